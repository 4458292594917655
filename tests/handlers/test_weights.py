from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.handlers import LossWeightSchedule
from monai_fetalkd.losses import DistillationLoss
from monai_fetalkd.networks import student_resnet


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([[1, 0.5]], {1: 0.5, 9: 0.5}),
        ([[1, 0.0], [5, 2.0]], {1: 0.0, 2: 0.5, 3: 1.0, 5: 2.0, 50: 2.0}),
        ([[3, 4.0], [7, 0.0]], {1: 4.0, 3: 4.0, 4: 3.0, 7: 0.0, 8: 0.0}),
        ([[4, 1.0], [5, 0.0]], {4: 1.0, 5: 0.0, 6: 0.0}),
        ([[1, 0.0], [3, 1.0], [6, 1.0], [10, 0.0]], {2: 0.5, 5: 1.0, 8: 0.5, 11: 0.0}),
    ],
    ids=["constant", "ramp", "decay", "switch", "up and down"],
)
def test_the_weight_is_a_line_through_the_points(points, expected):
    schedule = LossWeightSchedule(DistillationLoss(), "kd", points)
    assert {epoch: schedule.weight(epoch) for epoch in expected} == pytest.approx(expected)


def trainer(epochs: int, first: int = 1) -> tuple[list[tuple[float, list[str]]], DistillationTrainer]:
    """What each epoch of a run had for a weight and for parts of the loss."""
    batch = {"image": torch.rand(2, 1, 16, 16), "label": torch.tensor([0, 1])}
    student, teacher = (student_resnet(width, (1, 1, 1, 1), num_classes=2) for width in (2, 4))
    loss = DistillationLoss()
    made = DistillationTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[batch],
        network=student,
        teacher=teacher,
        loss_function=loss,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        decollate=False,
        train_handlers=[LossWeightSchedule(loss, "kd", [[2, 0.0], [4, 1.0]])],
    )
    seen: list[tuple[float, list[str]]] = []
    made.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append((loss.weights["kd"], sorted({"ce", "kd"} & engine.state.output.keys()))),
    )
    made.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "epoch", first - 1))
    return seen, made


def test_a_part_is_computed_from_the_epoch_in_which_it_has_a_weight():
    seen, made = trainer(4)
    made.run()
    assert seen == [(0.0, ["ce"]), (0.0, ["ce"]), (0.5, ["ce", "kd"]), (1.0, ["ce", "kd"])]


def test_a_run_that_is_resumed_goes_on_with_the_weight_of_its_epoch():
    seen, made = trainer(4, first=3)
    made.run()
    assert [weight for weight, _ in seen] == [0.5, 1.0]


def test_it_can_be_said_in_a_config():
    parser = ConfigParser(
        {
            "loss": {"_target_": "monai_fetalkd.losses.DistillationLoss"},
            "schedule": {
                "_target_": "monai_fetalkd.handlers.LossWeightSchedule",
                "loss": "@loss",
                "part": "ce",
                "points": [[1, 1.0], [3, 0.0]],
            },
        }
    )
    schedule = parser.get_parsed_content("schedule")
    assert schedule.loss is parser.get_parsed_content("loss")
    assert schedule.weight(2) == 0.5


@pytest.mark.parametrize("points", [[], [[1]], [[2, 1.0], [2, 0.0]], [[3, 1.0], [2, 0.0]], [[0, 1.0]], [[1.5, 1.0]]])
def test_impossible_points_are_refused(points):
    with pytest.raises(ValueError, match="points"):
        LossWeightSchedule(DistillationLoss(), "kd", points)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(ValueError, match="finite and not negative"):
        LossWeightSchedule(DistillationLoss(), "kd", [[1, weight]])


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"no part 'at' .*\['ce', 'kd'\]"):
        LossWeightSchedule(DistillationLoss(), "at", [[1, 1.0]])
