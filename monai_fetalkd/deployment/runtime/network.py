"""An exported network with its classes and preprocessing: what recognisers and segmenters have in common."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from .metadata import class_names_of, reading_metadata
from .preprocessing import Preprocessing
from .sessions import fastest, open_sessions

__all__ = ["ExportedNetwork", "task_of"]


def task_of(metadata: Mapping[str, str]) -> str:
    """The task that a file tells in its metadata; one that tells none is for classification."""
    return metadata.get("task", "classification")


class ExportedNetwork(ABC):
    """A file that ``python -m monai_fetalkd export`` has written, checked and loaded.

    Args:
        path: the ONNX file.
        backend: ``"onnxruntime"``, ``"openvino"`` or ``"auto"``.
        threads: threads that one frame is computed with.

    Attributes:
        task: what files of this kind of network tell as their task.
        backend: the runtime in use.
        class_names: of the classes.
        preprocessing: what a frame goes through before the network.
        name: of the file, without its suffix.
        metadata: all that the file tells, as it stands.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when the runtime is not installed.
        ValueError: when the file is no exported network for this task, or an argument is no choice.
    """

    task: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str], backend: str = "auto", threads: int = 1) -> None:
        name = os.fspath(path)
        self.name = Path(name).stem
        sessions = open_sessions(name, backend, threads)
        self.metadata: Mapping[str, str] = MappingProxyType(dict(sessions[0].metadata))
        if (task := task_of(self.metadata)) != self.task:
            raise ValueError(
                f"'{name}' is a network for {task}, and one for {self.task} is needed "
                "(`stream` and `serve` take either)."
            )
        with reading_metadata(name):
            self.class_names = class_names_of(json.loads(self.metadata["class_names"]))
            self.preprocessing = Preprocessing.from_dict(json.loads(self.metadata["preprocessing"]))
            self._read_metadata()
        shape = (1, *self.preprocessing.size)
        if sessions[0].shape != shape:
            raise ValueError(f"'{name}' prepares frames as {shape}, but takes {sessions[0].shape}: export it anew.")
        blank = np.zeros((1, *shape), dtype=np.float32)
        try:
            self._session = fastest(sessions, blank)
            logits = self._session(np.repeat(blank, 2, axis=0), "logits").shape[1:]
        except Exception as error:  # a runtime's own: for a fixed batch, or other names
            raise ValueError(
                f"'{name}' does not give 'logits' for any number of frames 'image': export it anew."
            ) from error
        if logits != (expected := self._logits_shape()):
            raise ValueError(f"'{name}' gives logits {logits}, but its metadata need {expected}: export it anew.")
        self.backend = self._session.name

    def _read_metadata(self) -> None:  # noqa: B027, a task may have no more
        """Read what the metadata of this task hold beyond classes and preprocessing."""

    @abstractmethod
    def _logits_shape(self) -> tuple[int, ...]:
        """The shape of the logits of one frame that the metadata promise."""
