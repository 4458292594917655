"""An exported segmentation network as a function of frames."""

from __future__ import annotations

import os

import numpy as np

from .letterbox import from_letterbox
from .network import ExportedNetwork, task_of
from .sessions import open_sessions

__all__ = ["Segmenter", "is_segmentation"]


def is_segmentation(path: str | os.PathLike[str]) -> bool:
    """Whether an exported network segments; False for one that recognises planes.

    Args:
        path: the ONNX file.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when no runtime is installed.
        ValueError: when the file cannot be loaded.
    """
    return task_of(open_sessions(path)[0].metadata) == Segmenter.task


class Segmenter(ExportedNetwork):
    """Masks of frames, from a file that ``python -m monai_fetalkd export`` has written for a segmentation bundle.

    The file brings classes and preprocessing along; neither torch nor MONAI is needed. Several threads may share a
    segmenter. What an ellipse fitted to a mask measures: :func:`monai_fetalkd.ultrasound.biometry.head_ellipse`.

    Args:
        path: the ONNX file.
        backend: ``"onnxruntime"``, ``"openvino"`` or ``"auto"``, as for :class:`Recognizer`.
        threads: threads that one frame is computed with.

    Attributes:
        backend: the runtime in use.
        class_names: of the classes; the number of a class is its value in a mask.
        preprocessing: what a frame goes through before the network.
        name: of the file, without its suffix.
        metadata: all that the file tells, as it stands.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when the runtime is not installed.
        ValueError: when the file is no exported segmentation network, or an argument is no choice.

    Example:
        >>> segmenter = Segmenter("student.onnx")  # doctest: +SKIP
        >>> frame = read_frame("frame.dcm")  # doctest: +SKIP
        >>> head_circumference(segmenter(frame.pixels) == 1, frame.pixel_size)  # doctest: +SKIP
        174.2
    """

    task = "segmentation"

    def __init__(self, path: str | os.PathLike[str], backend: str = "auto", threads: int = 1) -> None:
        super().__init__(path, backend, threads)
        if self.preprocessing.crop:
            raise ValueError(
                f"'{os.fspath(path)}' crops frames to the scan sector, from where masks are not brought back."
            )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Segment one frame.

        Args:
            pixels: grey levels 0 to 255 of shape ``(H, W)``, of any type.

        Returns:
            The number of the class of each pixel, uint8 of shape ``(H, W)``.

        Raises:
            ValueError: when the pixels are not ``(H, W)``, or not finite.
        """
        logits = self.logits(self.preprocessing(pixels)[None])[0]
        # against the background, so that of two classes one map is enlarged
        ahead = from_letterbox(logits[1:] - logits[:1], (pixels.shape[0], pixels.shape[1]))
        best = ahead.argmax(axis=0) + 1 if len(ahead) > 1 else 1
        return np.where(ahead.max(axis=0) > 0, best, 0).astype(np.uint8)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """The logits of frames that are prepared already.

        Args:
            inputs: what :attr:`preprocessing` returns, stacked to ``[N, 1, h, w]``, float32.

        Returns:
            The logits, float32 ``[N, C, h, w]``.
        """
        return self._session(inputs, "logits")

    def _logits_shape(self) -> tuple[int, ...]:
        return (len(self.class_names), *self.preprocessing.size)
