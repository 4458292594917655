from __future__ import annotations

import os
import sys

import pytest
import torch

from monai_fetalkd.bundle.process import told_plainly
from monai_fetalkd.bundle.workflow import prepare_run
from monai_fetalkd.utils.distributed import join_ranks


@pytest.fixture
def started_by_torchrun(monkeypatch, process_group):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")


@pytest.mark.usefixtures("started_by_torchrun")
def test_a_rank_computes_on_the_gpu_of_its_number(monkeypatch):
    assert join_ranks() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert join_ranks() == torch.device("cuda", 0)
    assert taken == [torch.device("cuda", 0)]


@pytest.mark.usefixtures("started_by_torchrun")
def test_more_ranks_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes .*1 GPUs: .*--nproc_per_node"):
        join_ranks()


def test_a_process_that_torchrun_did_not_start_is_told_so(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="needs torchrun to start them"):
        join_ranks()


def test_a_rank_that_is_left_alone_says_so(in_ranks, tmp_path):
    def lose_the_other_rank():
        prepare_run("cpu", tmp_path / "log")
        if torch.distributed.get_rank() == 1:
            os._exit(9)
        with pytest.raises(RuntimeError) as caught:
            torch.distributed.all_reduce(torch.ones(1))
        with (tmp_path / "told").open("w") as sys.stderr:
            told_plainly(caught.type, caught.value, caught.tb)

    in_ranks(lose_the_other_rank, survivors=1)
    assert "another process of this job has ended" in (tmp_path / "told").read_text()
    assert "Traceback" in (tmp_path / "log" / "log.txt").read_text()


def test_other_ranks_leave_a_log_only_when_there_is_an_error(in_ranks, tmp_path):
    def fail_on_the_second():
        prepare_run("cpu", tmp_path)
        if torch.distributed.get_rank() == 1:
            error = ValueError("the frame is torn")
            with (tmp_path / "told").open("w") as sys.stderr:
                told_plainly(type(error), error, None)

    in_ranks(prepare_run, "cpu", tmp_path)
    assert [path.name for path in tmp_path.glob("*.txt")] == ["log.txt"]
    in_ranks(fail_on_the_second)
    assert (tmp_path / "told").read_text() == "error (rank 1): the frame is torn\n"
    assert "the frame is torn" in (tmp_path / "log_rank1.txt").read_text()
