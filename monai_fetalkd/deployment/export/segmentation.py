"""A segmentation network as files for the edge device, verified on frames with masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.utils.enums import CommonKeys
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_fetalkd import __version__
from monai_fetalkd.deployment.runtime import Preprocessing, Segmenter
from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.files import written_whole
from monai_fetalkd.utils.machine import check_writable

from .formats import trace, write_onnx, write_program
from .verification import check_preprocessing, logits_of

__all__ = ["SegmentationExport"]

_FLOAT32, _PROGRAM, _REPORT = "student.onnx", "student.pt2", "export.json"
_DISTRIBUTIONS = ("torch", "monai", "onnx", "onnxruntime", "onnxscript")
_TOLERANCE = 1e-4


class SegmentationExport:
    """Writes a finished segmentation network as ONNX and ``.pt2`` in float32, verifies the files, and reports.

    Files get their names when they are verified: the runtime must prepare the frames of ``frames`` as MONAI does, and
    the files must give PyTorch's logits to 1e-4 on every frame of ``loader``. ``export.json`` holds the largest
    difference, the share of pixels that get the same class, and the mean Dice of each.

    Args:
        network: the network that the checkpoint belongs to; its weights are loaded.
        ckpt: the checkpoint.
        frames: dataset of frames by which the preprocessing is verified.
        loader: loader of the frames and masks that the files are verified on.
        class_names: the class table, the background first.
        image_shape: channels and size of the input, such as ``(1, 96, 96)``.
        output_dir: folder for the files; made where it does not exist.
        settings: what belongs into the report; plain values, written as they are.
        licence: of the exported network.
        version: of the exported network; None for none.
        overwrite: whether an older export in ``output_dir`` may be replaced.
    """

    def __init__(
        self,
        network: nn.Module,
        ckpt: str | PathLike[str],
        frames: Dataset,
        loader: DataLoader,
        class_names: Sequence[str],
        image_shape: Sequence[int],
        output_dir: str | PathLike[str],
        settings: Mapping[str, object] | None = None,
        licence: str = "Apache-2.0",
        version: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.network = network
        self.ckpt = Path(ckpt)
        self.preprocessing = Preprocessing(size=(image_shape[1], image_shape[2]), crop=False)
        self.frames = frames
        self.loader = loader
        self.class_names = tuple(class_names)
        self.image_shape = tuple(image_shape)
        self.output_dir = Path(output_dir)
        self.settings = dict(settings or {})
        self.licence = licence
        self.version = version
        self.overwrite = overwrite

    def __call__(self) -> dict[str, Any]:
        """Write, verify and report.

        Returns:
            The content of ``export.json``.

        Raises:
            FileExistsError: when there is an older export that may not be replaced.
            FileNotFoundError: when the checkpoint does not exist.
            OSError: when the folder cannot be written.
            ValueError: when the checkpoint does not fit, the runtime prepares frames otherwise, or a file is not the
                same network; nothing is left then.
        """
        older = [name for name in (_FLOAT32, _PROGRAM, _REPORT) if (self.output_dir / name).exists()]
        if older and not self.overwrite:
            raise FileExistsError(
                f"There is an older export in '{self.output_dir}' ({', '.join(older)}): choose another folder or "
                "overwrite it (--overwrite)."
            )
        check_writable(self.output_dir)
        load_weights(self.network, self.ckpt)
        self.network.cpu().eval()
        inputs = [np.asarray(item[CommonKeys.IMAGE]) for item in self.frames]
        difference = check_preprocessing(self.preprocessing, self.frames.data, inputs)
        versions = {"monai_fetalkd": __version__, **{name: distribution_version(name) for name in _DISTRIBUTIONS}}
        content: dict[str, Any] = {
            "checkpoint": str(self.ckpt),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "licence": self.licence,
            "version": self.version,
            "class_names": list(self.class_names),
            "preprocessing": {**self.preprocessing.to_dict(), "max_difference": difference},
            "settings": self.settings,
            "versions": versions,
        }
        metadata = {
            "task": "segmentation",
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(self.preprocessing.to_dict()),
            "precision": "float32",
            "input": "image",
            "outputs": json.dumps(["logits"]),
            **{name: versions[name] for name in ("monai_fetalkd", "torch", "monai")},
            **{name: content[name] for name in ("created", "licence")},
            **({} if self.version is None else {"version": self.version}),
        }
        with ExitStack() as files:
            float32 = files.enter_context(written_whole(self.output_dir / _FLOAT32))
            program = files.enter_context(written_whole(self.output_dir / _PROGRAM))
            content |= self._write(float32, program, metadata)
        with written_whole(self.output_dir / _REPORT) as report:
            report.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        return content

    def _write(self, float32: Path, program: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
        traced = trace(self.network, self.image_shape)
        write_program(traced, program)
        write_onnx(traced, ["logits"], float32, metadata)
        with program.open("rb") as file:
            loaded = torch.export.load(file).module()
        segmenter = Segmenter(float32, backend="onnxruntime")  # which every edge device has
        logits = logits_of(
            self.loader,
            {"torch": self.network, _PROGRAM: loaded, _FLOAT32: lambda image: segmenter.logits(image.numpy())},
        )
        labels = torch.cat([batch[CommonKeys.LABEL] for batch in self.loader])
        content = {}
        for name, path in ((_FLOAT32, float32), (_PROGRAM, program)):
            content[name] = {"bytes": path.stat().st_size, **self._compare(logits[name], logits["torch"], labels)}
            if not content[name]["max_difference"] <= _TOLERANCE:  # not(... <=): a NaN is no agreement either
                raise ValueError(
                    f"The exported '{name}' is not the same network: its logits differ from PyTorch's by up to "
                    f"{content[name]['max_difference']:.2g} (at most {_TOLERANCE:g}). No file is left."
                )
        return content

    def _compare(self, logits: NDArray[np.float32], reference: NDArray[np.float32], labels: Tensor) -> dict[str, Any]:
        classes = torch.from_numpy(logits).argmax(dim=1, keepdim=True)
        count = len(self.class_names)
        dice = compute_dice(one_hot(classes, count), one_hot(labels, count), include_background=False)
        mean = float(dice.nanmean())  # NaN for a class that is neither there nor found
        return {
            "max_difference": float(np.abs(logits.astype(np.float64) - reference).max()),
            "agreement": float((classes.numpy()[:, 0] == reference.argmax(axis=1)).mean()),
            "mean_dice": None if np.isnan(mean) else mean,
        }
