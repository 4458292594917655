"""A segmentation network as files for the edge device, verified on frames with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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

from monai_fetalkd.deployment.runtime import Preprocessing, Segmenter
from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.files import written_whole

from .formats import trace, write_onnx, write_program
from .record import FLOAT32, PROGRAM, check_folder, describe, metadata_of, write_report
from .verification import check_preprocessing, check_same_network, logits_of

__all__ = ["SegmentationExport"]

_OUTPUTS = ("logits",)


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
        check_folder(self.output_dir, (FLOAT32, PROGRAM), self.overwrite)
        load_weights(self.network, self.ckpt)
        self.network.cpu().eval()
        content = describe(self.ckpt, self.class_names, self.preprocessing, self.settings, self.licence, self.version)
        inputs = [np.asarray(item[CommonKeys.IMAGE]) for item in self.frames]
        content["preprocessing"]["max_difference"] = check_preprocessing(self.preprocessing, self.frames.data, inputs)
        metadata = metadata_of(content, self.preprocessing, _OUTPUTS, task="segmentation")
        with ExitStack() as files:
            float32 = files.enter_context(written_whole(self.output_dir / FLOAT32))
            program = files.enter_context(written_whole(self.output_dir / PROGRAM))
            content |= self._write(float32, program, metadata)
        write_report(self.output_dir, content)
        return content

    def _write(self, float32: Path, program: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
        traced = trace(self.network, self.image_shape)
        write_program(traced, program)
        write_onnx(traced, _OUTPUTS, float32, {**metadata, "precision": "float32"})
        with program.open("rb") as file:
            loaded = torch.export.load(file).module()
        segmenter = Segmenter(float32, backend="onnxruntime")  # which every edge device has
        logits = logits_of(
            self.loader,
            {"torch": self.network, PROGRAM: loaded, FLOAT32: lambda image: segmenter.logits(image.numpy())},
        )
        labels = torch.cat([batch[CommonKeys.LABEL] for batch in self.loader])
        content = {}
        for name, path in ((FLOAT32, float32), (PROGRAM, program)):
            content[name] = {"bytes": path.stat().st_size, **self._compare(logits[name], logits["torch"], labels)}
            check_same_network(name, content[name], least_agreement=0)  # two classes of a pixel may be as likely
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
