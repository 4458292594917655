"""An exported network as a function of frames."""

from __future__ import annotations

import json
import math
import os
import warnings
from typing import Any

import numpy as np

from monai_fetalkd.ultrasound.frames import read_frame

from .network import ExportedNetwork
from .processor import adds_exactly
from .shipped import SHIPPED_STUDENT

__all__ = ["Recognizer"]

_LARGEST_LOGIT = 1e6
_FLATTENING = 100  # times the temperature, for a frame unlike those of training: hardly more than equal shares remain


class Recognizer(ExportedNetwork):
    r"""Class probabilities of frames, from a file that ``python -m monai_fetalkd export`` has written.

    The file brings everything along: classes, preprocessing, the temperature :math:`T` of
    :math:`p_c = e^{z_c / T} / \sum_k e^{z_k / T}`, with logits :math:`z`, computed in float64. Neither torch nor MONAI
    is needed. Several threads may share a recognizer.

    A frame that is unlike those of training, by the output ``distance`` of the file
    (:class:`monai_fetalkd.deployment.export.distance.FrameDistance`), tells nothing of planes: its probabilities are
    those at 100 T, nearly equal for all classes and below any threshold.

    With ``backend="auto"`` it runs on ONNX Runtime, or on OpenVINO where that is installed and takes less than nine
    tenths of the time here, which is measured while loading. The two round differently: float32 files agree to about
    1e-6, INT8 files to about 1e-2. Name the runtime where every start has to give the same digits.

    Args:
        path: the ONNX file; unless given, the student that comes with the package.
        backend: ``"onnxruntime"``, ``"openvino"`` or ``"auto"``.
        threads: threads that one frame is computed with.

    Attributes:
        backend: the runtime in use.
        class_names: of the classes, in the order of their probabilities.
        preprocessing: what a frame goes through before the network.
        threshold: where the largest probability is below, no plane is decided on; None where none has been chosen.
        largest_distance: what is farther from the frames of training is unlike them; None where that is not known.
        temperature: what logits are divided by.
        attention: whether the network also tells where it looks, see :meth:`explain`.
        attention_grid: rows and columns of that; None where it does not tell.
        name: of the file, without its suffix.
        metadata: all that the file tells, as it stands.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when the runtime is not installed.
        ValueError: when the file is no exported network, or an argument is no choice.

    Example:
        >>> recognizer = Recognizer(backend="onnxruntime")  # the student that comes with the package
        >>> probabilities = recognizer(np.zeros((480, 640), dtype=np.uint8))  # a black frame
        >>> recognizer.class_names[probabilities.argmax()]
        'Other'
    """

    task = "classification"

    def __init__(self, path: str | os.PathLike[str] = SHIPPED_STUDENT, backend: str = "auto", threads: int = 1) -> None:
        super().__init__(path, backend, threads)
        if self.metadata.get("weight_bits") == "8" and adds_exactly() is False:
            warnings.warn(
                f"'{os.fspath(path)}' has weights of 8 bits, whose products overflow on this processor: its answers "
                "may be wrong. Export it with 7 bits (--set weight_bits=7).",
                stacklevel=2,
            )
        self.attention_grid: tuple[int, int] | None = None
        if self.attention:
            self.attention_grid = self.explain(np.zeros((1, 1, *self.preprocessing.size), dtype=np.float32)).shape[1:]

    def __call__(self, pixels: np.ndarray, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Recognise one frame.

        Args:
            pixels: grey levels 0 to 255 of shape ``(H, W)``, of any type.
            region: where the B-mode picture is, see :class:`~monai_fetalkd.deployment.runtime.Preprocessing`.

        Returns:
            The probabilities of the classes, float64 of shape ``(C,)``.

        Raises:
            ValueError: when the pixels are not ``(H, W)``, or not finite.
        """
        inputs = self.preprocessing(pixels, region)[None]
        if self.largest_distance is None:
            return self.probabilities(self.batch(inputs))[0]
        logits, [distance] = self._session.outputs(inputs, ("logits", "distance"))
        return self.probabilities(logits if distance <= self.largest_distance else logits / _FLATTENING)[0]

    def file(self, path: str | os.PathLike[str], number: int | None = None) -> np.ndarray:
        """Recognise a frame of a file, see :func:`monai_fetalkd.ultrasound.frames.read_frame`.

        Args:
            path: a picture, DICOM file or volume.
            number: index of the frame; None where the file holds one only.

        Returns:
            The probabilities of the classes, float64 of shape ``(C,)``.

        Raises:
            FileNotFoundError: when there is no such file.
            monai_fetalkd.ultrasound.frames.FrameError: when it cannot be read.
        """
        frame = read_frame(path, number)
        return self(frame.pixels, frame.region)

    def batch(self, inputs: np.ndarray) -> np.ndarray:
        """The logits of frames that are prepared already.

        Args:
            inputs: what :attr:`preprocessing` returns, stacked to ``[N, 1, h, w]``, float32.

        Returns:
            The logits, float32 ``[N, C]``.

        Raises:
            ValueError: when the inputs have another shape or type.
        """
        return self._session(self._checked(inputs), "logits")

    def explain(self, inputs: np.ndarray) -> np.ndarray:
        """Where the network looks in frames that are prepared already.

        Args:
            inputs: see :meth:`batch`.

        Returns:
            Attention maps from 0 to 1, float32 ``[N, h', w']``, which cover the whole input.

        Raises:
            ValueError: when the file has no attention output, or the inputs have another shape or type.
        """
        if not self.attention:
            raise ValueError("The network has no output 'attention': export it with one to see where it looks.")
        return self._session(self._checked(inputs), "attention")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax at the temperature of the file.

        Args:
            logits: ``[N, C]``.

        Returns:
            Rows that sum to one, float64 ``[N, C]``.
        """
        scaled = logits.astype(np.float64) / self.temperature
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def _read_metadata(self) -> None:
        self.temperature = _temperature(float(self.metadata["temperature"]))
        self.threshold = _threshold(json.loads(self.metadata["threshold"]))
        outputs = _outputs(json.loads(self.metadata["outputs"]))
        self.attention = "attention" in outputs
        self.largest_distance: float | None = None
        if "distance" in outputs:
            self.largest_distance = _distance(json.loads(self.metadata["largest_distance"]))

    def _logits_shape(self) -> tuple[int, ...]:
        return (len(self.class_names),)

    def _checked(self, inputs: np.ndarray) -> np.ndarray:
        expected = (1, *self.preprocessing.size)
        if inputs.ndim != 4 or inputs.shape[1:] != expected or inputs.dtype != np.float32:
            height, width = self.preprocessing.size
            raise ValueError(
                f"The network takes float32 inputs [N, 1, {height}, {width}], not {inputs.dtype} {inputs.shape}."
            )
        return inputs


def _temperature(value: float) -> float:
    if not (0 < value < math.inf and math.isfinite(_LARGEST_LOGIT / value)):
        raise ValueError(f"the temperature is a number above 0, not {value}.")
    return value


def _threshold(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"the threshold is a number from 0 to 1 or null, not {value!r}.")
    return float(value)


def _distance(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"the largest distance is a number from 0, not {value!r}.")
    return float(value)


def _outputs(value: Any) -> list[str]:
    if not isinstance(value, list) or "logits" not in value:
        raise ValueError(f"the outputs are a list of names with 'logits' in it, not {value!r}.")
    return value
