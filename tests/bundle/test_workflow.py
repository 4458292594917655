"""What a run does before it costs anything, and how it tells errors."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch

from monai_fetalkd.bundle.process import told_plainly
from monai_fetalkd.bundle.workflow import prepare_run
from monai_fetalkd.utils.locks import release_folder


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    root, package, threads = logging.getLogger(), logging.getLogger("monai_fetalkd"), torch.get_num_threads()
    handlers, level = root.handlers[:], package.level
    yield
    release_folder()
    torch.set_num_threads(threads)
    package.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return type(caught), caught, caught.__traceback__


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "3.5"])
def test_a_device_that_is_not_there_is_told(tmp_path, device):
    with pytest.raises(ValueError, match=device):
        prepare_run(device, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file" / "eval")):
        prepare_run("cpu", tmp_path / "file" / "eval")


def test_a_folder_of_another_run_is_refused(tmp_path):
    code = "from monai_fetalkd.utils.locks import hold_folder as h; h(sys.argv[1]); print(1, flush=True); input()"
    code = f"import sys; {code}"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout.readline()
        with pytest.raises(FileExistsError, match=str(other.pid)):
            prepare_run("cpu", tmp_path)
        other.communicate(b"\n")
    prepare_run("cpu", tmp_path)


@pytest.mark.parametrize(
    ("main", "sets"), [("monai.bundle.__main__", True), ("monai_fetalkd.__main__", True), ("ipykernel_launcher", False)]
)
def test_hook_levels_and_threads_are_set_in_a_command_and_not_in_a_notebook(tmp_path, monkeypatch, main, sets):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(main, None))
    terminal, package = logging.StreamHandler(), logging.getLogger("monai_fetalkd")
    logging.getLogger().addHandler(terminal)
    package.setLevel(logging.NOTSET)
    torch.set_num_threads(2)

    def state():
        return sys.excepthook, terminal.level, package.level, torch.get_num_threads()

    before = state()
    prepare_run("cpu", tmp_path, quiet=True, threads=1)
    assert state() == ((told_plainly, logging.WARNING, logging.INFO, 1) if sets else before)
    assert (tmp_path / "log.txt").is_file()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("temperature must be positive"), "temperature must be positive"),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "'a.json': Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device", "model.pt"), "'model.pt' cannot be written"),
        (MemoryError(), "--batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "--batch_size"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(capsys, error, said):
    told_plainly(*raised(error))
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1


def test_a_full_disk_behind_an_error_of_torch_is_told(capsys):
    error = RuntimeError("unexpected pos 22848 vs 22744")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", "model.pt")
    told_plainly(*raised(error))
    told = capsys.readouterr().err
    assert "model.pt" in told
    assert "--resume" in told
    assert "unexpected pos" not in told


def test_a_bug_keeps_its_traceback(capsys):
    told_plainly(*raised(TypeError("a bug")))
    assert "Traceback" in capsys.readouterr().err
