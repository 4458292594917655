"""The teacher's targets of fixed views: computed when first met, stored, and read from then on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import monai
import numpy as np
import torch
from torch import Tensor, nn

from monai_fetalkd._tensor import plain
from monai_fetalkd.keys import hash_of_data

from .layout import FeatureType, TargetLayout
from .store import TargetStore
from .views import FixedViews

__all__ = ["StoredTargets", "Targets", "TeacherTargets"]

# far above what hardware and libraries differ by, far below what another view of a frame makes
_TOLERANCE = 0.1


class Targets(NamedTuple):
    """What the student learns from: the teacher's logits, and its features as the loss condenses them."""

    logits: Tensor
    features: list[Tensor]


class TeacherTargets:
    """Where the targets of a frozen teacher are kept: an option of the trainers of :mod:`monai_fetalkd.engines`.

    The loader's dataset is a :class:`FixedViews`. When a view is met for the first time, the teacher runs and its
    logits and condensed features (one attention map a layer) are written through; later the step reads them and the
    teacher rests. A run may be killed at any time, and several ranks and several runs may share the folder.

    In a config, two lines: the dataset of the loader is wrapped, and the trainer gets the option.

    .. code-block:: json

        "dataset": {"_target_": "monai_fetalkd.targets.FixedViews", "dataset": "@frames", "views": 8, "seed": "@seed"}
        "targets": {"_target_": "monai_fetalkd.targets.TeacherTargets", "cache_dir": "targets"}

    Each combination of the teacher's structure and weights, its layers, what the loss keeps of them, the inferer and
    its autocast, the views (frames, transforms, number, seed), the form of the targets and the versions of torch, MONAI
    and this package has a folder of its own in ``cache_dir``, so a change never meets targets of before. Folders of
    combinations that are no longer needed may be deleted. What the key cannot see, such as a transform that draws from
    a global generator or changed code of a network, is caught by comparison: the first batch of each run goes through
    the teacher, and must agree with what is stored of it.

    Args:
        cache_dir: folder of the folders; made where it does not exist.
        dtype: ``"uint8"`` keeps one byte a value of a feature, ``"float32"`` all of it.

    Example:
        >>> import tempfile
        >>> from monai.data import DataLoader, Dataset
        >>> from monai.transforms import Compose, RandFlipd
        >>> from monai_fetalkd.engines import DistillationTrainer
        >>> from monai_fetalkd.networks import student_resnet
        >>> student, teacher = student_resnet(4, num_classes=3), student_resnet(8, num_classes=3)
        >>> frames = [{"image": torch.rand(1, 32, 32), "label": index % 3} for index in range(4)]
        >>> views = FixedViews(Dataset(frames, Compose([RandFlipd("image")])), views=2)
        >>> trainer = DistillationTrainer(
        ...     device="cpu", max_epochs=2, train_data_loader=DataLoader(views, batch_size=2), network=student,
        ...     teacher=teacher, optimizer=torch.optim.SGD(student.parameters(), lr=0.1), decollate=False,
        ...     targets=TeacherTargets(tempfile.mkdtemp()))
        >>> trainer.run()
    """

    def __init__(self, cache_dir: str | os.PathLike[str], dtype: FeatureType = "uint8") -> None:
        self.cache_dir = Path(cache_dir)
        self.dtype = dtype

    def open(
        self,
        views: FixedViews,
        teacher: nn.Module,
        inferer: Callable[..., Any],
        layers: Sequence[str],
        condensation: str | None,
        example: Targets,
    ) -> StoredTargets:
        """Open the store for these views and this teacher, and make it where there is none.

        Args:
            views: the dataset of the loader.
            teacher: the teacher, with its weights.
            inferer: how it is called.
            layers: names of its tapped layers.
            condensation: what is kept of their features, see :class:`monai_fetalkd.losses.FeatureLoss`.
            example: targets of a batch, for their shapes.

        Returns:
            The store.

        Raises:
            OSError: when the disk has no room for all views.
            ValueError: when something the targets depend on cannot be pickled.
        """
        shapes = {layer: feature.shape[1:] for layer, feature in zip(layers, example.features, strict=True)}
        layout = TargetLayout(example.logits.shape[1:], shapes, self.dtype)
        device = example.logits.device.type
        manifest = {
            **views.description(),
            "teacher": type(teacher).__name__,
            "hash_of_teacher": hash_of_data([repr(teacher), teacher.state_dict()]),
            "inferer": type(inferer).__qualname__,
            # what an inferer remembers of its calls is private
            "hash_of_inferer": hash_of_data({k: v for k, v in vars(inferer).items() if not k.startswith("_")}),
            "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None,
            "features": condensation,
            "row": [list(map(str, field)) for field in layout.row.descr],
            "torch": torch.__version__,
            "monai": monai.__version__,
        }
        key = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()[:16]
        store = TargetStore(self.cache_dir / key, layout.row, len(views) * views.views, manifest)
        return StoredTargets(store, layout)


class StoredTargets:
    """Targets of views on disk.

    Args:
        store: their rows.
        layout: how a row is packed.
    """

    def __init__(self, store: TargetStore, layout: TargetLayout) -> None:
        self.store = store
        self.layout = layout

    def read(self, views: Tensor, device: torch.device | str) -> Targets | None:
        """Read the targets of a batch.

        Args:
            views: numbers of the views, ``[N]``.
            device: where the targets go.

        Returns:
            The targets, or None where those of some view have not been stored yet.
        """
        rows, whole = self.store.read(_indices(views))
        return self._targets(rows, device) if whole.all() else None

    def settle(self, views: Tensor, computed: Targets) -> Targets:
        """Store targets that the teacher has just computed, of the views that have none yet.

        Args:
            views: numbers of the views, ``[N]``.
            computed: their targets.

        Returns:
            The targets as they are stored, so that the student learns from the same in every epoch.

        Raises:
            ValueError: when the targets stored before differ from those computed, or have another shape.
        """
        indices, device = _indices(views), computed.logits.device
        new = self.layout.pack(*computed).cpu().numpy()
        rows, whole = self.store.read(indices)
        if whole.any():
            self._compare(self._targets(rows[whole], "cpu"), self._targets(new[whole], "cpu"))
        self.store.write(indices[~whole], new[~whole])
        rows[~whole] = new[~whole]
        return self._targets(rows, device)

    def _targets(self, rows: np.ndarray, device: torch.device | str) -> Targets:
        packed = torch.from_numpy(rows)
        if torch.device(device).type == "cuda":
            packed = packed.pin_memory()  # one copy for all layers, which the student's forward pass need not wait for
        return Targets(*self.layout.unpack(packed.to(device, non_blocking=True)))

    def _compare(self, stored: Targets, computed: Targets) -> None:
        pairs = zip((stored.logits, *stored.features), (computed.logits, *computed.features), strict=True)
        for name, (before, now) in zip(self.layout.shapes, pairs, strict=True):
            difference, size = (before - now).norm().item(), before.norm().item()
            if difference > _TOLERANCE * size:
                raise ValueError(
                    f"The targets in '{self.store.folder}' are not what the teacher says now of the same views "
                    f"('{name}' differs): look for a transform that draws from a global generator, or delete the "
                    "folder if code of the teacher or of a transform has changed."
                )


def _indices(views: Tensor) -> np.ndarray:
    return plain(views).cpu().numpy()
