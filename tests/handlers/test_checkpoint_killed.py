"""A training process that is killed, and resumed in another, has the weights of one in one go."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from ignite.engine import Events
from ignite.handlers import EMAHandler

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer

from .stage import Stage, assert_same

pytestmark = pytest.mark.slow
KINDS = {"attention": AttentionTransferTrainer, "distillation": DistillationTrainer}
STEP = 10  # the second of the third epoch


def averaged_and_scaled(stage):
    """An average of weights, and a gradient scaler whose scale changes within an epoch."""
    stage.ema = EMAHandler(stage.student, momentum=0.1)
    stage.ema.attach(stage.trainer)
    stage.trainer.amp = True

    @stage.trainer.on(Events.STARTED)  # MONAI makes a scaler for CUDA as a run starts, which does nothing on a CPU
    def scale():
        stage.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

    return {}


def stage_of(folder, kind, **arguments):
    return Stage(folder, kind=KINDS[kind], prepare=averaged_and_scaled, **arguments)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(folder, kind, moment):
    """What the other process runs."""
    stage = stage_of(folder, kind)

    def at_step(engine):
        if engine.state.iteration == STEP:
            if moment == "step":
                kill()
            os.replace = lambda *args: kill()  # the next file is written and never gets its name

    stage.trainer.add_event_handler(Events.ITERATION_COMPLETED, at_step)
    stage.run()


@pytest.mark.parametrize("moment", ["step", "write"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_killed_process_is_resumed_as_if_it_had_never_been(tmp_path, processes, kind, moment):
    killed = processes.Process(target=train_until_killed, args=(tmp_path / "killed", kind, moment))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    whole = stage_of(tmp_path / "whole", kind).run()
    resumed = stage_of(tmp_path / "killed", kind, resume=True, process_seed=9).run()
    assert list(resumed.seen) == [3, 4]
    for part in ("student", "hint"):
        assert_same(getattr(whole, part), getattr(resumed, part))
    assert_same(whole.ema.ema_model, resumed.ema.ema_model)
    assert whole.trainer.scaler.get_scale() > 4
    assert whole.trainer.scaler.state_dict() == resumed.trainer.scaler.state_dict()
    assert whole.optimizer.state_dict()["state"].keys() == resumed.optimizer.state_dict()["state"].keys()
    for one, other in zip(*(s.optimizer.state_dict()["state"].values() for s in (whole, resumed)), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
