"""A teacher whose probabilities of whole volumes are computed once, and read with each crop."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from monai_fetalkd.targets.identity import identity_of
from monai_fetalkd.targets.soft_labels import SoftLabelVolumes, name_of_volume
from monai_fetalkd.teachers import Query, Targets, Teacher, as_teacher
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.tensor import full_precision, plain

__all__ = ["SoftLabelTeacher"]

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


class SoftLabelTeacher(Teacher):
    r"""A frozen teacher that has said all it has to say of each volume before the first step.

    When the run of a trainer starts, it asks the teacher for the whole of each volume of the loader's dataset, and
    writes the mean of its probabilities over the teachers of a :class:`~monai_fetalkd.teachers.TeacherEnsemble` and
    over flips. The step then takes the logits from the batch, where :class:`SoftLabeld` and the random spatial
    transforms have put them, and the teacher rests, however many crops are drawn. In a config two lines, behind the
    deterministic transforms and in the place of the teacher:

    .. code-block:: json

        {"_target_": "monai_fetalkd.targets.SoftLabeld", "keys": "image", "folder": "@soft_labels"}
        {"_target_": "monai_fetalkd.targets.SoftLabelTeacher", "teacher": "@teacher#network", "folder": "@soft_labels"}

    **Form.** One file ``<volume>.npy`` for each volume beside ``manifest.json``: uint8 ``[classes, *spatial]``, with
    the code :math:`255 + 20 \log p` of a probability :math:`p`, rounded, from 1 up. A step of the code is 0.05 of a
    logit at any probability, so the softmax at any temperature keeps its small probabilities, down to
    :math:`e^{-12.7}`; steps of the probability itself would cut them off below 0.002. With ``sigmoid`` the code is
    :math:`128 + 10 \log (p / (1 - p))`. Codes may be interpolated as logits may; 0, which padding leaves behind, is
    none: there the student is compared with nothing.

    **Resumed.** A file appears whole or not at all; a run that was killed writes what is missing. The folder belongs to
    one teacher: its weights, code and settings, its inferer and flips are hashed into the manifest, and another teacher
    is refused. Volumes are told by their content, so a changed volume, or a change of the transforms before
    :class:`SoftLabeld`, makes new files. Of several ranks each writes a share of them.

    Hidden layers, where a loss compares them, are still asked of the teacher in each step.

    Args:
        teacher: a network, or one of :mod:`monai_fetalkd.teachers`.
        folder: folder of the soft labels, made where it does not exist.
        inferer: how the teacher is called on a whole volume, such as a ``SlidingWindowInferer`` with the teacher's own
            window; a :class:`~monai_fetalkd.teachers.LiveTeacher` with an inferer of its own keeps that. None passes
            the volume through in one go.
        flip_axes: spatial axes, from 0; the mean is taken over the flips along all combinations of them.
        sigmoid: whether the classes are independent (sigmoid) rather than exclusive.
        soft_label_key: key of the soft label in a batch.

    Raises:
        ValueError: by the run, when the dataset has no :class:`SoftLabeld` of this folder behind deterministic
            transforms alone, a random spatial transform leaves the soft label out, or the folder holds that of another
            teacher; by the step, when the batch has no soft label of the size of the image.
        OSError: by the run, when the disk has no room for all soft labels.

    Example:
        >>> import tempfile
        >>> from monai.data import DataLoader, Dataset
        >>> from monai.networks.nets import BasicUNet
        >>> from monai.transforms import Compose, RandSpatialCropd
        >>> from monai_fetalkd.engines import DistillationTrainer
        >>> from monai_fetalkd.targets import SoftLabeld
        >>> folder = tempfile.mkdtemp()
        >>> student, teacher = (BasicUNet(2, out_channels=3, features=[width] * 6) for width in (2, 4))
        >>> volumes = [{"image": torch.rand(1, 48, 48), "label": torch.zeros(1, 48, 48)} for _ in range(2)]
        >>> crop = RandSpatialCropd(["image", "label", "soft_label"], (32, 32), random_size=False)
        >>> loader = DataLoader(Dataset(volumes, Compose([SoftLabeld("image", folder), crop])), batch_size=2)
        >>> trainer = DistillationTrainer(
        ...     device="cpu", max_epochs=3, train_data_loader=loader, network=student, decollate=False,
        ...     teacher=SoftLabelTeacher(teacher, folder, flip_axes=[0]),
        ...     optimizer=torch.optim.SGD(student.parameters(), lr=0.1))
        >>> trainer.run()
        >>> len(list(Path(folder).glob("*.npy")))
        2
    """

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        folder: str | os.PathLike[str],
        inferer: Callable[..., Any] | None = None,
        flip_axes: Sequence[int] = (),
        sigmoid: bool = False,
        soft_label_key: str = "soft_label",
    ) -> None:
        self.teacher = as_teacher(teacher)
        self.folder = Path(folder)
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.flip_axes = tuple(flip_axes)
        self.sigmoid = sigmoid
        self.soft_label_key = soft_label_key
        if any(axis < 0 for axis in self.flip_axes) or len(set(self.flip_axes)) < len(self.flip_axes):
            raise ValueError(f"flip_axes must be spatial axes from 0, each once, got {list(flip_axes)}")

    def networks(self) -> list[nn.Module]:
        """The networks of the teacher."""
        return self.teacher.networks()

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ``ValueError`` unless these layers of the teacher can be read."""
        self.teacher.check_layers(layers)

    def describe(self) -> list[Any]:
        """The settings of the teacher, and how its probabilities are averaged."""
        return [self.teacher.describe(), self.flip_axes, self.sigmoid]

    def targets(self, query: Query) -> Targets:
        """Take the logits from the batch, and ask the teacher for its features where they are wanted."""
        features = self.teacher.targets(query._replace(logits=False)).features if query.layers else {}
        if not query.logits:
            return Targets(None, features)
        codes = self._codes(query)
        # padding has left 0 behind, and interpolation fractions
        there = None if codes.min() >= 0.5 else codes.amin(1) >= 0.5
        zero, step = (128, 10) if self.sigmoid else (255, 20)
        # in place: a large tensor that is allocated anew takes longer than all of the arithmetic
        logits = codes.to(torch.float32, copy=True).sub_(zero).div_(step)
        return Targets(logits, features, there)

    def start(self, loader: Iterable, device: torch.device) -> None:
        """Write the soft labels that are missing."""
        volumes = SoftLabelVolumes(loader, self.folder, self.soft_label_key)
        self._claim_folder()
        mine = range(idist.get_rank(), len(volumes), idist.get_world_size())
        missing, voxels = [], 0
        for index in mine:
            volume = volumes.read(index)[volumes.key]
            if not volumes.path(volume).is_file():
                missing.append(index)
                voxels += math.prod(volume.shape[1:])
        begun, written = time.monotonic(), 0
        for index in missing:
            item = volumes.read(index)
            codes = self._asked(item, volumes.key, device)
            if not written:
                self._check_room(len(missing), len(codes) * voxels)
            with written_whole(volumes.path(item[volumes.key])) as temporary, temporary.open("wb") as file:
                np.save(file, codes.cpu().numpy())
            written += 1
        if missing:
            logger.info("Soft labels of %d volumes took %.1f s.", written, time.monotonic() - begun)
        idist.barrier()

    def _codes(self, query: Query) -> Tensor:
        if self.soft_label_key not in query.batch:
            raise ValueError(
                f"the batch has no '{self.soft_label_key}', only {sorted(map(str, query.batch))}: put SoftLabeld "
                "behind the deterministic transforms"
            )
        codes, inputs = plain(query.batch[self.soft_label_key]), query.inputs
        if codes.ndim != inputs.ndim or codes.shape[2:] != inputs.shape[2:]:
            raise ValueError(
                f"'{self.soft_label_key}' has the shape {tuple(codes.shape)} beside an input of {tuple(inputs.shape)}: "
                "give it to each spatial transform of the image"
            )
        return codes.to(inputs.device, non_blocking=True)

    @torch.no_grad()
    def _asked(self, item: Mapping[Hashable, Any], key: Hashable, device: torch.device) -> Tensor:
        """The codes of a whole volume, ``[classes, *spatial]``."""
        shape = item[key].shape
        if self.flip_axes and max(self.flip_axes) >= len(shape) - 1:
            raise ValueError(f"flip_axes {list(self.flip_axes)} are not those of a volume of shape {tuple(shape)}")
        batch = {
            str(name): plain(value).unsqueeze(0).to(device)
            for name, value in item.items()
            if isinstance(value, Tensor) and value.shape[1:] == shape[1:]
        }
        total: Tensor | None = None
        combinations = [
            axes for count in range(len(self.flip_axes) + 1) for axes in itertools.combinations(self.flip_axes, count)
        ]
        for axes in combinations:
            dims = [axis + 2 for axis in axes]
            flipped = {name: value.flip(dims) for name, value in batch.items()}
            query = Query(flipped[str(key)], flipped, self.inferer, (), {}, True, {}, {}, dict, _whole)
            logits = self.teacher.targets(query).logits
            assert logits is not None  # they were asked for
            logits = full_precision(logits).flip(dims)
            probabilities = logits.sigmoid() if self.sigmoid else logits.softmax(1)
            total = probabilities if total is None else total + probabilities
        assert total is not None  # the first combination is that of no axis
        mean = total[0] / len(combinations)
        if mean.shape[1:] != shape[1:] or mean.isnan().any():
            fault = "NaN" if mean.isnan().any() else f"an output of shape {tuple(mean.shape)}"
            raise ValueError(
                f"The teacher gives {fault} for the volume {name_of_volume(item[key])} of shape {tuple(shape)}: "
                "look at its weights, or give an inferer for volumes of any size, such as SlidingWindowInferer."
            )
        codes = 128 + 10 * mean.logit() if self.sigmoid else 255 + 20 * mean.log()
        return codes.round().clamp(1, 255).to(torch.uint8)

    def _claim_folder(self) -> None:
        """Write whose soft labels the folder holds, or check that they are this teacher's."""
        identity = identity_of(self, self.inferer)
        path = self.folder / _MANIFEST
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"'{path}' is damaged: delete its folder ({error}).") from error
            if found != identity:
                names = [name for name, value in identity.items() if found.get(name) != value]
                raise ValueError(
                    f"'{self.folder}' holds the soft labels of another teacher or of other settings "
                    f"({', '.join(names)}): give another folder, or delete it."
                )
        elif self.folder.is_dir() and any(self.folder.glob("*.npy")):
            raise ValueError(f"'{self.folder}' holds files, but no soft labels: give another folder.")
        else:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(identity, indent=4), encoding="utf-8")
        idist.barrier()  # no rank looks for a manifest among the files of another

    def _check_room(self, count: int, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise OSError(
                f"The soft labels of {count} volumes need {size / 1e6:,.1f} MB in '{self.folder}', which has "
                f"{free / 1e6:,.1f} MB free: make room, or give another folder."
            )
        logger.info("Soft labels of %d volumes: %.1f MB in '%s'.", count, size / 1e6, self.folder)


def _whole(layer: str, teacher: Tensor, student: Tensor) -> Tensor:
    return teacher
