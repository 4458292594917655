"""The bundle under torchrun: two processes on the CPU, which find each other as on any machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
CONFIGS = ("train.json", "multi_gpu_train.json")


def process_of_rank(rank, launcher):
    """The id of the process that torchrun has started as this rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    variable = f"RANK={rank}".encode()
    (found,) = (int(pid) for pid in children if variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    return found


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_the_same_command_resumes_it(arguments, tmp_path):
    line = arguments(tmp_path / "out", configs=CONFIGS, launcher=TORCHRUN, device="$join_ranks()")
    line += ["--teacher#epochs", "50"]
    job = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "eval" / "log.txt"
    deadline = time.monotonic() + 240
    while not (log.is_file() and "teacher  epoch  2/50" in log.read_text()):
        assert time.monotonic() < deadline
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.05)
    os.kill(process_of_rank(1, job), signal.SIGKILL)
    killed = time.monotonic()
    _, told = job.communicate(timeout=60)
    assert job.returncode != 0
    assert time.monotonic() - killed < 60
    assert "Signal 9 (SIGKILL) received by PID" in told
    assert re.search(r"rank +: 1 \(local_rank: 1\)", told)
    assert not (tmp_path / "out" / "eval" / "metrics.json").exists()

    done = subprocess.run(
        [*line, "--teacher#epochs", "8", "--resume", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "teacher_resume resumed after epoch" in log.read_text()
    assert done.stdout.count("| student, distilled") == 1
    assert json.loads((tmp_path / "out" / "eval" / "metrics.json").read_text())["settings"]["ranks"] == 2
    assert (tmp_path / "out" / "eval" / "report.html").is_file()
