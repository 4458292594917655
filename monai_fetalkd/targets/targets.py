"""The teacher's targets of fixed views: computed when first met, stored, and read from then on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from monai_fetalkd.teachers import Query, Targets, Teacher
from monai_fetalkd.utils.hashing import hash_of_data
from monai_fetalkd.utils.tensor import plain

from .identity import identity_of
from .layout import FeatureType, TargetLayout
from .store import TargetStore
from .views import FixedViews

__all__ = ["StoredTeacher", "TeacherTargets"]

# what rounding may make of the same computation on other hardware or in another batch, as a share of its size
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_KEY = 16  # digits in the name of a folder
_BYTES = 1e-2  # a value that lies between two bytes may become either


class TeacherTargets:
    """Where the targets of a frozen teacher are kept: an option of the trainers of :mod:`monai_fetalkd.engines`.

    The loader's dataset is a :class:`FixedViews`. When a view is met for the first time, the teacher runs and its
    logits and reduced features (one attention map a layer) are written through; later the step reads them and the
    teacher rests. A run may be killed at any time, and several ranks and several runs may share the folder.

    In a config, two lines: the dataset of the loader is wrapped, and the trainer gets the option.

    .. code-block:: json

        "dataset": {"_target_": "monai_fetalkd.targets.FixedViews", "dataset": "@frames", "views": 8, "seed": "@seed"}
        "targets": {"_target_": "monai_fetalkd.targets.TeacherTargets", "cache_dir": "targets"}

    Each combination of the teacher's structure, settings and weights, its layers, what the losses keep of them, the
    inferer and its autocast, the views (frames, transforms, number, seed), the form of the targets and the versions of
    torch and MONAI has a folder of its own in ``cache_dir``, so a change never meets targets of before. A run that
    needs fewer layers reads the folder of one that needed more. Folders of combinations that are no longer needed may
    be deleted. What the key cannot see, such as a transform that draws from a global generator or changed code of a
    network, is caught by comparison: the first batch of each run goes through the teacher, and must agree with what is
    stored of it, up to rounding. A teacher whose weights change while it is in use is refused.

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


class StoredTeacher(Teacher):
    """A frozen teacher whose answers are kept on disk.

    The trainers make it of a teacher and :class:`TeacherTargets`.

    Args:
        teacher: the teacher that is asked for views that are not stored yet.
        settings: where and how the answers are kept.
        views: the dataset of the loader.
        layers: the teacher's layer for each layer of the student.
        reduced: what the losses keep of those that they compare, by the student's layer, see
            :class:`monai_fetalkd.losses.FeatureLoss`.

    Raises:
        ValueError: when a loss needs whole features, which are not stored.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: TeacherTargets,
        views: FixedViews,
        layers: Mapping[str, str],
        reduced: Mapping[str, str | None],
    ) -> None:
        if whole := [layer for layer, kept in reduced.items() if kept is None]:
            raise ValueError(
                f"Targets are stored for losses on attention maps of one kind a layer, not for losses that need whole "
                f"features ({', '.join(whole)}): use AttentionTransferLoss, or leave targets out."
            )
        self.teacher = teacher
        self.settings = settings
        self.views = views
        self.layers = dict(layers)
        self.reduced = dict(reduced)
        self._open: _Open | None = None

    def targets(self, query: Query) -> Targets:
        """Read the answer, or ask the teacher and store it.

        Raises:
            OSError: when the disk has no room for all views.
            ValueError: when stored answers differ from those of the teacher, its weights have changed since, or the
                batch shows views of another epoch.
        """
        self.views.check_epoch(query.batch["view"])
        numbers = plain(query.batch["view"]).cpu().numpy()
        if self._open is not None:
            if self._open.versions != _versions(self._open.weights):
                raise self._changed()
            rows, whole = self._open.store.read(numbers)
            if whole.all():
                return self._unpacked(rows, query)
        # the first batch of a run is always computed, to be compared with what is stored of it
        manifest = self._manifest(query) if self._open is None else {}
        found = self._find(manifest, query) if self._open is None else self._open
        complete = self._complete(query, found)
        computed = self.teacher.targets(complete)
        for layer, feature in computed.features.items():
            if len(feature) != len(numbers):
                raise ValueError(
                    f"The teacher's feature for layer '{layer}' has {len(feature)} rows for a batch of {len(numbers)}: "
                    "networks that fold patches into the batch cannot have their features stored, leave targets out."
                )
        if self._open is None:
            self._open = found or self._make(manifest, complete, computed)
        return self._keep(numbers, computed, query)

    def networks(self) -> list[nn.Module]:
        """The networks of the teacher."""
        return self.teacher.networks()

    def check_layers(self, layers: Iterable[str]) -> None:
        """Raise ``ValueError`` unless these layers of the teacher can be read."""
        self.teacher.check_layers(list(layers))

    def close(self) -> None:
        """Forget the open store: the next batch may be one of another teacher."""
        self._open = None

    def check_weights(self) -> None:
        """Raise ``ValueError`` when the weights have changed, also where they were written through ``.data``.

        That leaves no trace in their versions, so the bytes are hashed: once an epoch, not at each step.
        """
        if self._open is not None and self._open.digest != _digest(self.teacher.networks()):
            raise self._changed()

    def _changed(self) -> ValueError:
        return ValueError(
            "The teacher's weights have changed since its targets were stored: leave targets out for a teacher that "
            "changes while the student learns."
        )

    def _complete(self, query: Query, found: _Open | None) -> Query:
        """The query for all that the store keeps of a view."""
        if found is None:
            # also for layers of weight zero: another stage, or another student, may want them of the same views
            layers = {layer: self.layers[layer] for layer in self.reduced}
            more = layers.keys() - query.features.keys()
            return query._replace(logits=True, layers=layers, features=query.all_features() if more else query.features)
        features = dict(query.features)
        for layer in found.layout.layers:
            if layer not in features:  # not wanted now; the store knows its size
                size = (len(query.inputs), *found.layout.shapes[f"feature.{layer}"])
                features[layer] = torch.empty(size, device=query.inputs.device)
        layers = {layer: self.layers[layer] for layer in found.layout.layers}
        return query._replace(logits=True, layers=layers, features=features)

    def _manifest(self, query: Query) -> dict[str, Any]:
        device = query.inputs.device.type
        return {
            **self.views.description(),
            **identity_of(self.teacher, query.inferer),
            "dtype": self.settings.dtype,
            "autocast": str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None,
        }

    def _find(self, manifest: dict[str, Any], query: Query) -> _Open | None:
        """The store of these views that keeps all that is wanted now, perhaps more."""
        wanted = {layer: self._kept(layer, query.features[layer]) for layer in query.layers}
        # by the form of a key: another process may be making a folder of another name
        for path in sorted(self.settings.cache_dir.glob(f"{'[0-9a-f]' * _KEY}/manifest.json")):
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"'{path}' is damaged: delete its folder ({error}).") from error
            logits, features = kept.pop("logits", None), kept.pop("features", {})
            # a row that is missing must be computed whole, also what is not wanted now
            known = all(
                self.layers.get(layer) == entry["teacher"] and self.reduced.get(layer) == entry["keeps"]
                for layer, entry in features.items()
            )
            if (
                kept == manifest
                and known
                and all(_without_shape(features.get(name)) == wanted[name] for name in wanted)
            ):
                return self._opened(manifest, logits, features)
        return None

    def _make(self, manifest: dict[str, Any], query: Query, computed: Targets) -> _Open:
        features = {
            layer: {**self._kept(layer, query.features[layer]), "shape": list(feature.shape[1:])}
            for layer, feature in computed.features.items()
        }
        return self._opened(manifest, list(_logits(computed).shape[1:]), features)

    def _kept(self, layer: str, student: Tensor) -> dict[str, Any]:
        size = list(student.shape[2:])
        return {"teacher": self.layers[layer], "keeps": self.reduced[layer], "student_size": size}

    def _opened(self, manifest: dict[str, Any], logits: list[int], features: dict[str, dict[str, Any]]) -> _Open:
        shapes = {layer: entry["shape"] for layer, entry in features.items()}
        layout = TargetLayout(logits, shapes, self.settings.dtype)
        whole = {**manifest, "logits": logits, "features": features}
        key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:_KEY]
        store = TargetStore(self.settings.cache_dir / key, layout.row, self.views.rows, whole)
        networks = self.networks()
        weights = list(_weights(networks))
        return _Open(store, layout, weights, _versions(weights), _digest(networks))

    def _keep(self, numbers: np.ndarray, computed: Targets, query: Query) -> Targets:
        """Store what is not stored yet, and give all as it is stored, so that each epoch learns from the same."""
        store, layout = self._open.store, self._open.layout  # type: ignore[union-attr]
        new = layout.pack(_logits(computed), computed.features).cpu().numpy()
        rows, whole = store.read(numbers)
        if whole.any():
            self._compare(rows[whole], new[whole], query)
        store.write(numbers[~whole], new[~whole])
        rows[~whole] = new[~whole]
        return self._unpacked(rows, query)

    def _unpacked(self, rows: np.ndarray, query: Query) -> Targets:
        packed, device = torch.from_numpy(rows), query.inputs.device
        if device.type == "cuda":
            packed = packed.pin_memory()  # one copy for all layers, which the student's forward pass need not wait for
        logits, features = self._open.layout.unpack(  # type: ignore[union-attr]
            packed.to(device, non_blocking=True), query.logits, list(query.layers)
        )
        return Targets(logits, features)

    def _compare(self, stored: np.ndarray, computed: np.ndarray, query: Query) -> None:
        layout, folder = self._open.layout, self._open.store.folder  # type: ignore[union-attr]
        device = query.inputs.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = getattr(torch, str(getattr(query.inferer, "dtype", "float32")), torch.float32)
        rounding = _ROUNDING.get(torch.get_autocast_dtype(device) if autocast else dtype, _ROUNDING[torch.float32])
        sides = [layout.unpack(torch.from_numpy(rows), True, layout.layers) for rows in (stored, computed)]
        named = [
            {"logits": logits, **{f"feature of {name}": f for name, f in features.items()}}
            for logits, features in sides
        ]
        for name, before in named[0].items():
            tolerance = max(rounding, _BYTES if name != "logits" and self.settings.dtype == "uint8" else 0.0)
            # classes that the teacher rules out are infinite on both sides
            before, now = (torch.nan_to_num(cast(Tensor, values)) for values in (before, named[1][name]))
            if (before - now).norm() > tolerance * before.norm():
                raise ValueError(
                    f"The targets in '{folder}' are not what the teacher says now of the same views ('{name}' "
                    "differs): look for a transform that draws from a global generator, or delete the folder if code "
                    "of the teacher or of a transform has changed."
                )


class _Open(NamedTuple):
    """An open store, and the weights that it belongs to."""

    store: TargetStore
    layout: TargetLayout
    weights: list[Tensor]  # listed once: to walk through the modules at each step takes as long as a small layer
    versions: list[int]
    digest: str


def _versions(weights: Iterable[Tensor]) -> list[int]:
    """How often each weight has been written to, which torch counts."""
    return [0 if tensor.is_inference() else tensor._version for tensor in weights]


def _digest(networks: Iterable[nn.Module]) -> str:
    return hash_of_data(list(_weights(networks)))


def _weights(networks: Iterable[nn.Module]) -> Iterator[Tensor]:
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()


def _logits(targets: Targets) -> Tensor:
    assert targets.logits is not None  # every query of this module asks for them
    return targets.logits


def _without_shape(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if entry is None else {key: value for key, value in entry.items() if key != "shape"}
