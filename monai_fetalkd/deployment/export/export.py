"""A checkpoint becomes files for the terminal, and none counts before it is shown to be the same network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose
from monai.utils.enums import CommonKeys
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from monai_fetalkd.deployment.runtime import Preprocessing, Recognizer
from monai_fetalkd.evaluation.scores import Predictions, answer_threshold, answered, fit_temperature, with_temperature
from monai_fetalkd.ultrasound.descriptions import check_weights, crops_to_sector
from monai_fetalkd.utils.checkpoints import load_weights
from monai_fetalkd.utils.files import written_whole

from .distance import fit_distance
from .formats import (
    NetworkWithAttention,
    attention_layer,
    trace,
    usable_weight_bits,
    write_int8,
    write_onnx,
    write_program,
)
from .record import FLOAT32, PROGRAM, check_folder, describe, metadata_of, write_report
from .verification import check_preprocessing, check_same_network, compare_logits, logits_of

__all__ = ["Export"]

_INT8 = "student.int8.onnx"
_DISTANCE_MARGIN = 1.05  # INT8 rounds the distances too

logger = logging.getLogger(__name__)


class Export:
    """Writes a finished network as ONNX (float32 and INT8) and as ``.pt2``, verifies the files, and reports.

    In ``output_dir`` there are then

    - ``student.onnx``: float32, input ``image`` ``[N, 1, h, w]``, outputs ``logits``, ``attention`` and ``distance``,
    - ``student.int8.onnx``: the same in INT8,
    - ``student.pt2``: the same for ``torch.export.load``,
    - ``export.json``: what they were made of, and every figure of the verification.

    Files get their names when they are verified. The float32 files must give PyTorch's logits to 1e-4 and its class on
    every frame of ``loader``. The INT8 file must decide as the float32 file does on the share ``agreement`` of them;
    otherwise it is left out, the report tells so, and the call ends in a ``ValueError``. That the runtime prepares
    frames as MONAI does is verified on the calibration frames.

    The temperature of the probabilities and the threshold of an answer are chosen on ``validation``, see
    :func:`~monai_fetalkd.evaluation.scores.fit_temperature` and
    :func:`~monai_fetalkd.evaluation.scores.answer_threshold`. So is the largest distance to the calibration frames, by
    the texture that the first layer sees (:class:`~monai_fetalkd.deployment.export.distance.FrameDistance`): a
    twentieth more than that of any validation frame. The runtime is undecided about what is farther away.

    Args:
        network: the network that the checkpoint belongs to; its weights are loaded.
        ckpt: the checkpoint.
        reading: the transforms that read a frame; with a ``CropSectord`` in them the runtime crops too.
        calibration: dataset of the frames that the ranges of INT8 are measured on.
        validation: loader of the frames that temperature and threshold are chosen on, in the order of its dataset.
        loader: loader of the frames that the files are verified on, likewise.
        class_names: the class table.
        image_shape: channels and size of a frame, such as ``(1, 224, 224)``.
        output_dir: folder for the files; made where it does not exist.
        layers: hidden layers, from the first to the last; the attention output is that of the last one with at least
            7 x 7 positions, or of the one that has the most.
        weight_bits: of the INT8 file: 7 for processors without VNNI, 8 for others, None for what fits this machine.
        agreement: least share of frames on which INT8 decides as float32 does.
        target: share of right answers that the threshold is chosen for.
        settings: what belongs into the report (data, seed, versions); plain values, written as they are.
        split: what the frames of ``loader`` are called.
        licence: of the exported network.
        version: of the exported network; None for none.
        overwrite: whether an older export in ``output_dir`` may be replaced.
    """

    def __init__(
        self,
        network: nn.Module,
        ckpt: str | PathLike[str],
        reading: Compose,
        calibration: Dataset,
        validation: DataLoader,
        loader: DataLoader,
        class_names: Sequence[str],
        image_shape: Sequence[int],
        output_dir: str | PathLike[str],
        layers: Sequence[str] = ("layer1", "layer2", "layer3", "layer4"),
        weight_bits: int | None = None,
        agreement: float = 0.98,
        target: float = 0.95,
        settings: Mapping[str, object] | None = None,
        split: str = "testing",
        licence: str = "Apache-2.0",
        version: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.network = network
        self.ckpt = Path(ckpt)
        self.reading = reading
        self.preprocessing = Preprocessing(size=(image_shape[1], image_shape[2]), crop=crops_to_sector(reading))
        self.calibration = calibration
        self.validation = validation
        self.loader = loader
        self.class_names = tuple(class_names)
        self.image_shape = tuple(image_shape)
        self.output_dir = Path(output_dir)
        self.layers = tuple(layers)
        self.weight_bits = usable_weight_bits(weight_bits)
        self.agreement = agreement
        self.target = target
        self.settings = dict(settings or {})
        self.split = split
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
            ValueError: when it does not fit, or was trained for another size, other classes or another crop; when the
                runtime prepares frames otherwise, or a float32 file is not the same network (nothing is left); when
                INT8 decides otherwise too often (the float32 files are left).
        """
        check_folder(self.output_dir, (FLOAT32, _INT8, PROGRAM), self.overwrite)
        check_weights(self.ckpt, image_size=self.preprocessing.size, class_names=self.class_names, reading=self.reading)
        load_weights(self.network, self.ckpt)
        self.network.cpu().eval()
        frames = [np.asarray(item[CommonKeys.IMAGE]) for item in self.calibration]
        content = describe(self.ckpt, self.class_names, self.preprocessing, self.settings, self.licence, self.version)
        content["split"] = self.split
        layer, grid = attention_layer(self.network, self.layers, self.image_shape)
        content["attention"] = {"layer": layer, "grid": list(grid)}
        content["preprocessing"]["max_difference"] = check_preprocessing(
            self.preprocessing, self.calibration.data, frames
        )
        content.update(self._temperature_and_threshold())
        distance = None if content["threshold"]["value"] is None else fit_distance(self.network, self.layers[0], frames)
        outputs = NetworkWithAttention(self.network, layer, distance)
        content["distance"] = self._largest_distance(outputs)
        metadata = metadata_of(
            content,
            self.preprocessing,
            ["logits", "attention", *(["distance"] if distance is not None else [])],
            temperature=str(content["temperature"]),
            threshold=json.dumps(content["threshold"]["value"]),
            largest_distance=json.dumps(content["distance"]["largest"]),
            attention_layer=layer,
        )
        with ExitStack() as files:
            float32 = files.enter_context(written_whole(self.output_dir / FLOAT32))
            program = files.enter_context(written_whole(self.output_dir / PROGRAM))
            reference = self._write_float32(outputs, float32, program, metadata, content)
            refusal = self._write_int8(float32, frames, reference, metadata, content)
        write_report(self.output_dir, content)
        if refusal:
            raise ValueError(refusal)
        return content

    def _temperature_and_threshold(self) -> dict[str, Any]:
        logits = logits_of(self.validation, {"network": self.network})["network"]
        predictions = self._predictions(self.validation, logits)
        temperature = fit_temperature(predictions)
        predictions = with_temperature(predictions, temperature)
        threshold = answer_threshold(predictions, self.target)
        if threshold is None:
            logger.warning(
                f"On the validation frames even the surest answers are right in less than {self.target:.0%}, so that "
                "there is no threshold, and the network will never be undecided."
            )
        return {
            "temperature": temperature,
            "threshold": {"value": threshold, "target": self.target, "validation": answered(predictions, threshold)},
        }

    def _largest_distance(self, network: NetworkWithAttention) -> dict[str, Any]:
        if network.distance is None:
            return {"layer": None, "largest": None}
        distances = logits_of(self.validation, {"distance": lambda image: network(image)[2]})["distance"]
        return {"layer": network.distance.layer, "largest": _DISTANCE_MARGIN * float(distances.max())}

    def _write_float32(
        self,
        network: NetworkWithAttention,
        float32: Path,
        program: Path,
        metadata: Mapping[str, str],
        content: dict[str, Any],
    ) -> NDArray[np.float32]:
        """Write and verify both, and give the logits of the ONNX file for the frames of the loader."""
        traced = trace(network, self.image_shape)
        write_program(traced, program)
        write_onnx(traced, json.loads(metadata["outputs"]), float32, {**metadata, "precision": "float32"})
        with program.open("rb") as file:
            loaded = torch.export.load(file).module()
        logits = logits_of(
            self.loader,
            {"torch": self.network, PROGRAM: lambda image: loaded(image)[0], FLOAT32: _onnx_logits(float32)},
        )
        for name, path in ((PROGRAM, program), (FLOAT32, float32)):
            figures = compare_logits(logits[name], logits["torch"], self._labels(), self.class_names)
            check_same_network(name, figures)
            content[name] = {"bytes": path.stat().st_size, **figures}
        content["threshold"]["float32"] = self._answered(logits[FLOAT32], content)
        return logits[FLOAT32]

    def _write_int8(
        self,
        float32: Path,
        frames: Sequence[NDArray[np.float32]],
        reference: NDArray[np.float32],
        metadata: Mapping[str, str],
        content: dict[str, Any],
    ) -> str | None:
        """Write the file and keep it when it decides as float32 does; otherwise say why not."""
        path = self.output_dir / _INT8
        try:
            with written_whole(path) as int8:
                write_int8(float32, frames, int8, {**metadata, "precision": "int8"}, self.weight_bits)
                logits = logits_of(self.loader, {_INT8: _onnx_logits(int8)})[_INT8]
                figures = compare_logits(logits, reference, self._labels(), self.class_names)
                content[_INT8] = {
                    "written": figures["agreement"] >= self.agreement,
                    "least_agreement": self.agreement,
                    "calibration_frames": len(frames),
                    "weight_bits": self.weight_bits,
                    "bytes": int8.stat().st_size,
                    **figures,
                }
                content["threshold"]["int8"] = self._answered(logits, content)
                if not content[_INT8]["written"]:
                    raise _RefusedError(
                        f"INT8 decides as float32 does on {figures['agreement']:.2%} of the frames only, less than "
                        f"{self.agreement:.2%}, so '{path}' is not written; train on with qat.json, or use "
                        f"'{FLOAT32}' beside it. All figures are in 'export.json'."
                    )
        except _RefusedError as refused:
            path.unlink(missing_ok=True)  # that of an older export would belong to another network
            return str(refused)
        return None

    def _labels(self) -> list[int]:
        return [row[CommonKeys.LABEL] for row in self.loader.dataset.data]

    def _answered(self, logits: NDArray[np.float32], content: Mapping[str, Any]) -> dict[str, float | None]:
        predictions = with_temperature(self._predictions(self.loader, logits), content["temperature"])
        return answered(predictions, content["threshold"]["value"])

    def _predictions(self, loader: DataLoader, logits: NDArray[np.float32]) -> Predictions:
        probabilities = softmax(logits.astype(np.float64), axis=1)
        return Predictions.from_rows(self.class_names, loader.dataset.data, probabilities)


class _RefusedError(Exception):
    """An INT8 file that differs too much."""


def _onnx_logits(path: Path) -> Callable[[Tensor], NDArray[np.float32]]:
    """The logits that the runtime will give, on the backend that every terminal has."""
    recognizer = Recognizer(path, backend="onnxruntime")
    return lambda image: recognizer.batch(image.numpy())
