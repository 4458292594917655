"""What the configs of the bundle call around the engines: checks before a run, and its folder and log."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.bundle import ConfigParser
from monai.networks.utils import eval_mode
from torch import nn

from monai_fetalkd.bundle.process import LOG_FILE, is_command, set_up_process
from monai_fetalkd.utils.locks import hold_folder
from monai_fetalkd.utils.machine import check_writable

__all__ = [
    "check_networks",
    "config_item",
    "fitting_threads",
    "native_precision",
    "prepare_run",
    "quiet_readers",
]


def config_item(path: str | os.PathLike[str], item: str, **overrides: Any) -> Any:
    """One item of another config file, parsed and instantiated.

    So a training config uses the very preprocessing and network of ``inference.json``, without writing them twice. A
    ``metadata.json`` beside it is read too.

    Args:
        path: the config file.
        item: id of the item, such as ``"preprocessing"`` or ``"network_def"``.
        overrides: items of that config to replace, as on the command line of ``monai.bundle``.

    Returns:
        The object that the item describes.

    Raises:
        FileNotFoundError: when there is no such file.
        KeyError: when the config has no such item.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "net.json").write_text('{"width": 2, "layer": {"_target_": "torch.nn.Linear",'
        ...     ' "in_features": "@width", "out_features": 1}}')
        >>> config_item(folder / "net.json", "layer", width=3)
        Linear(in_features=3, out_features=1, bias=True)
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no config '{path}': give the folder of the bundle as --bundle_root.")
    parser = ConfigParser()
    parser.read_config(str(path))
    metadata = Path(path).with_name("metadata.json")
    if metadata.is_file():  # as MONAI's ConfigWorkflow does
        parser.read_meta(str(metadata))
    parser.update(overrides)
    with quiet_readers():
        return parser.get_parsed_content(item)


def fitting_threads(num_workers: int) -> int:
    """Threads of PyTorch that fit this machine: one for each core that the process may use and no loader worker takes.

    More threads than free cores wait for each other, and a step can take ten times as long.

    Args:
        num_workers: worker processes of the loader of training frames.

    Returns:
        The number, at least 1, and no more than PyTorch has now (see ``OMP_NUM_THREADS``).

    Example:
        >>> fitting_threads(num_workers=1000)
        1
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores - num_workers))


def native_precision(device: str | torch.device) -> str:
    """Precision in which a device trains fastest without a gradient scaler.

    Elsewhere bfloat16 is emulated, and slower than float32. A PyTorch that cannot tell what the CPU computes in
    (before ``torch.cpu.get_capabilities``) gets float32 there.

    Args:
        device: where the networks are.

    Returns:
        ``"bfloat16"`` where the hardware computes in it (GPUs since Ampere, CPUs with AVX512-BF16 or AMX), otherwise
        ``"float32"``; see :class:`~monai_fetalkd.inferers.PrecisionInferer`.

    Example:
        >>> native_precision("cpu") in ("bfloat16", "float32")
        True
    """
    device = torch.device(device)
    if device.type == "cuda":
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        native = any(found.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"


def prepare_run(
    device: str | torch.device,
    log_dir: str | os.PathLike[str],
    quiet: bool = False,
    threads: int | None = None,
) -> None:
    """Check what a run needs before it costs anything, hold its folder, and begin its log, ``<log_dir>/log.txt``.

    In a command (:func:`~monai_fetalkd.bundle.process.is_command`) log lines of level INFO go to the terminal as the
    logging config says, an error that the user can mend is told in one sentence, with its traceback in the log file
    alone, and any other keeps Python's traceback. A notebook or a server that runs a workflow keeps its own hook,
    levels and threads. Of several ranks the first speaks; the others tell of warnings and errors, and write a log of
    their own, ``log_rank1.txt``, when there is an error to tell.

    Args:
        device: where the run computes.
        log_dir: folder for the logs; made where it does not exist.
        quiet: keep the terminal of a command to warnings, errors and the final table.
        threads: threads of PyTorch on the CPU in a command, see :func:`fitting_threads`; None leaves them as they are.

    Raises:
        ValueError: when a device is asked for that is not there.
        OSError: when the folder cannot be written, or another run is writing there.
    """
    rank = idist.get_rank()
    if is_command():
        set_up_process(quiet or rank > 0, threads)
    _check_device(device)
    folder = Path(log_dir)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        hold_folder(folder)
        _log_to(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
    else:
        errors = logging.FileHandler(folder / f"log_rank{rank}.txt", encoding="utf-8", delay=True)
        errors.setLevel(logging.ERROR)
        _log_to(errors)


def check_networks(networks: Mapping[str, nn.Module], image_shape: Sequence[int], class_names: Sequence[str]) -> None:
    """Check that every network takes a frame and gives a logit for each class, before any of them is trained.

    A network for segmentation takes a volume, and gives a logit for each class at each of its voxels.

    Args:
        networks: network by the name that a message calls it.
        image_shape: channels and size of a frame or volume.
        class_names: the class table.

    Raises:
        ValueError: when a network gives another number of logits.

    Example:
        >>> check_networks({"student": nn.Linear(4, 2)}, [4], ["brain", "femur"])
    """
    for name, network in networks.items():
        with eval_mode(network):
            logits = network(torch.zeros(1, *image_shape, device=next(network.parameters()).device))
        if logits.shape[:2] != (1, len(class_names)) or logits.shape[2:] not in ((), tuple(image_shape[1:])):
            raise ValueError(
                f"The {name} gives logits of shape {tuple(logits.shape)} for a frame, "
                f"but there are {len(class_names)} classes: {', '.join(class_names)}."
            )


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Without what MONAI's ``LoadImage`` says of a decoder for CUDA, which it looks for with every reader."""
    plugin = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    before = plugin.level
    plugin.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "NvImgCodecPydicomReader")
            yield
    finally:
        plugin.setLevel(before)


def _log_to(to_file: logging.FileHandler) -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if handler.name == LOG_FILE:  # of an earlier run in this process
            root.removeHandler(handler)
            handler.close()
    to_file.set_name(LOG_FILE)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(to_file)


def _check_device(name: str | torch.device) -> None:
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"There is no device '{name}': give one of PyTorch, such as cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"The device '{device}' was asked for, but there are {torch.cuda.device_count()} CUDA devices here: "
            "pass --device cpu."
        )
