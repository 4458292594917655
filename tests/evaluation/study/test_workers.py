from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_fetalkd.evaluation.study.workers import TaskError, run_in_order

# workers import their function by name, and a test module has none that they could find: so functions of the library


def test_every_task_is_done_after_those_it_needs():
    tasks = dict.fromkeys(["student", "teacher", "stage 1"], 0.0)
    needs = {"student": {"teacher", "stage 1"}, "teacher": set(), "stage 1": {"teacher"}}
    assert list(run_in_order(time.sleep, tasks, needs, jobs=2)) == ["teacher", "stage 1", "student"]


def test_what_is_no_task_counts_as_finished():
    assert list(run_in_order(time.sleep, {"student": 0.0}, {"student": {"teacher"}}, jobs=1)) == ["student"]
    assert list(run_in_order(time.sleep, {}, {}, jobs=1)) == []


def test_no_worker_is_too_few():
    with pytest.raises(ValueError, match="jobs must be 1 or more, got 0"):
        next(run_in_order(time.sleep, {"student": 0.0}, {"student": set()}, jobs=0))


def test_a_failing_task_is_named_and_ends_the_others(tmp_path):
    tasks = {"good": tmp_path, "bad": tmp_path / "none" / "here", "late": tmp_path / "late"}
    needs = {"good": set(), "bad": {"good"}, "late": {"bad"}}
    run = run_in_order(os.listdir, tasks, needs, jobs=1)
    assert next(run) == "good"
    with pytest.raises(TaskError, match="bad: .*No such file or directory"):
        next(run)


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(TaskError, match="gone: its process was ended from outside"):
        list(run_in_order(os._exit, {"gone": 3}, {"gone": set()}, jobs=1))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_however_that_ends(tmp_path, project_dir, how):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from monai_fetalkd.evaluation.study.workers import TaskError, run_in_order\n"
        "def work(path):\n"
        "    import os\n"
        "    Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    list(run_in_order(work, {{'a': {str(tmp_path / 'pid')!r}}}, {{'a': set()}}, jobs=1))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(project_dir)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    process.send_signal(how)
    process.wait(20)
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


def alive(pid):
    try:
        # a dead process whose parent has not looked yet is still in the table, as a zombie
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
