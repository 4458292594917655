"""One run a folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from monai_fetalkd.utils.locks import hold_folder, release_folder

HOLD = (
    "import multiprocessing, sys, time\n"
    "from monai_fetalkd.utils.locks import hold_folder\n"
    "hold_folder(sys.argv[1])\n"
    "if sys.argv[2] == 'fork': multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,)).start()\n"
    "print('held', flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def _free():
    yield
    release_folder()


@pytest.fixture
def other(tmp_path):
    """Start a process that holds the folder; it may have a child, as a loader has workers."""
    processes = []

    def start(child="none"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), child],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_folder_that_another_process_holds_is_refused(tmp_path, other):
    process = other()
    with pytest.raises(FileExistsError) as caught:
        hold_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert str(process.pid) in str(caught.value)


@pytest.mark.parametrize(
    "child", ["none", pytest.param("fork", marks=pytest.mark.skipif(os.name == "nt", reason="no fork"))]
)
def test_a_killed_run_leaves_its_folder_free_even_while_its_workers_live(tmp_path, other, child):
    process = other(child)
    process.kill()
    process.wait()
    hold_folder(tmp_path)


def test_the_same_process_may_run_again(tmp_path):
    hold_folder(tmp_path)
    hold_folder(tmp_path)
    assert str(os.getpid()) in (tmp_path / "run.lock").read_text()


def test_a_process_that_goes_on_elsewhere_leaves_its_folder_free(tmp_path, other):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    hold_folder(tmp_path)
    hold_folder(elsewhere)
    started = time.monotonic()
    other()
    assert time.monotonic() - started < 60
