"""The runtimes that compute an exported network, behind one interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, Protocol

import numpy as np

from monai_fetalkd.utils.requirements import require

__all__ = ["BACKENDS", "OnnxRuntimeSession", "OpenVinoSession", "Session", "fastest", "open_sessions"]

_MOST_THREADS = 64  # or as many as there are cores: thousands of them stop the machine
_ROUNDS = 9
_MARGIN = 0.9  # a runtime must take less than this share of the default one's time


class Session(Protocol):
    """A network loaded by a runtime; several threads may call it.

    Attributes:
        name: the runtime.
        metadata: what the file tells of itself.
        shape: channels, height and width of the input "image", -1 where it takes any.
    """

    name: str
    metadata: Mapping[str, str]
    shape: tuple[int, ...]

    def __call__(self, inputs: np.ndarray, output: str) -> np.ndarray:
        """One named output for a batch of the input "image", float32."""

    def outputs(self, inputs: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Several outputs of one computation."""


class OnnxRuntimeSession:
    """A network on ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: threads of one call.

    Raises:
        ValueError: when the file is no network that the runtime loads.
    """

    name = "onnxruntime"

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime  # takes 0.1 s

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class in common but this
            raise ValueError(_unloadable("ONNX Runtime", path, error)) from error
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        sides = self._session.get_inputs()[0].shape[1:]
        self.shape = tuple(side if isinstance(side, int) else -1 for side in sides)

    def __call__(self, inputs: np.ndarray, output: str) -> np.ndarray:
        """One named output for a batch of the input "image", float32."""
        return self.outputs(inputs, [output])[0]

    def outputs(self, inputs: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Several outputs of one computation."""
        return self._session.run(list(names), {"image": inputs})


class OpenVinoSession:
    """A network on OpenVINO, in float32 where the file is: by default OpenVINO rounds to bfloat16 where the CPU can.

    Args:
        path: the ONNX file.
        threads: threads of one call.

    Raises:
        ValueError: when the file is no network that the runtime loads.
    """

    name = "openvino"

    def __init__(self, path: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # the integers of an INT8 file stay integers
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = _openvino_core()
        try:
            model = core.read_model(path)
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ValueError(_unloadable("OpenVINO", path, error)) from error
        entries = model.get_rt_info("framework").astype(dict) if model.has_rt_info("framework") else {}
        self.metadata: Mapping[str, str] = {key: entry.value for key, entry in entries.items()}
        sides = list(model.input(0).partial_shape)[1:]
        self.shape = tuple(side.get_length() if side.is_static else -1 for side in sides)
        self._lock = Lock()  # a request computes one batch at a time

    def __call__(self, inputs: np.ndarray, output: str) -> np.ndarray:
        """One named output for a batch of the input "image", float32."""
        return self.outputs(inputs, [output])[0]

    def outputs(self, inputs: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Several outputs of one computation."""
        with self._lock:
            results = self._request.infer({"image": inputs})
            return [results[name] for name in names]


@cache
def _openvino_core() -> Any:
    """The one core of this process, kept to its end.

    The CPU plugin of a core gives the thread that loads it a stack for signal handlers, and takes it away again with
    the core. When two cores end in the order in which they began, the thread is left with the stack of the first, which
    is gone, and the next signal that Python handles (Ctrl-C, the end of a worker) ends the process by SIGSEGV.
    """
    import openvino  # takes 0.3 s

    return openvino.Core()


_SESSIONS: dict[str, type[OnnxRuntimeSession] | type[OpenVinoSession]] = {
    session.name: session for session in (OnnxRuntimeSession, OpenVinoSession)
}

BACKENDS = ("auto", *_SESSIONS)
"""What a runtime is chosen by: its name, or "auto"."""


def open_sessions(path: str | os.PathLike[str], backend: str = "auto", threads: int = 1) -> list[Session]:
    """Load a network with the runtime of this name, or with each one that is installed.

    Args:
        path: the ONNX file.
        backend: one of ``BACKENDS``.
        threads: threads of one call.

    Returns:
        One session, or for "auto" one of each runtime, ONNX Runtime first.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when the runtime, or for "auto" any, is not installed.
        ValueError: when there is no such backend, less than one thread, or the file cannot be loaded.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"There is no exported network '{name}'.")
    if backend not in BACKENDS:
        raise ValueError(f"There is no runtime '{backend}': choose one of {', '.join(BACKENDS)}.")
    if not 1 <= threads <= max(_MOST_THREADS, os.cpu_count() or 1):
        raise ValueError(f"A network runs on one thread or more, {_MOST_THREADS} at most, not on {threads}.")
    wanted = _SESSIONS if backend == "auto" else (backend,)
    installed = [runtime for runtime in wanted if find_spec(runtime)]
    if not installed:
        require("To run exported networks", "onnxruntime" if backend == "auto" else backend)
    return [_SESSIONS[runtime](name, threads) for runtime in installed]


def _unloadable(runtime: str, path: str, error: Exception) -> str:
    reason = str(error).strip().rstrip(".")
    return f"{runtime} cannot load '{path}': {reason}. Networks are written with `python -m monai_fetalkd export`."


def fastest(sessions: Sequence[Session], inputs: np.ndarray, clock: Callable[[], float] = time.perf_counter) -> Session:
    """The first session, unless another is faster by more than a tenth.

    The median of nine calls each counts, made in turns, after one that warms up.

    Args:
        sessions: the same network on several runtimes.
        inputs: a batch to time them with.
        clock: the time in seconds.

    Returns:
        One of the sessions.
    """
    if len(sessions) == 1:
        return sessions[0]
    seconds = np.empty((1 + _ROUNDS, len(sessions)))
    for turn in seconds:
        for number, session in enumerate(sessions):
            start = clock()
            session(inputs, "logits")
            turn[number] = clock() - start
    shares = np.median(seconds[1:], axis=0)
    shares[0] *= _MARGIN
    return sessions[int(shares.argmin())]
