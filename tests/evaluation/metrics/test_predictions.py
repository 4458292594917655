from __future__ import annotations

import pytest
import torch
from ignite.metrics import Accuracy
from monai.data import DataLoader, Dataset, DistributedSampler
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from monai_fetalkd.evaluation.metrics import PredictionCollector

CLASSES = ["abdomen", "brain", "femur"]
COUNT = 7
ROWS = [{"image": f"{index}.png", "label": index % 3} for index in range(COUNT)]


def evaluate(even_divisible=False, left_out=0):
    """Probabilities in the order of the datalist, and the accuracy; on each rank where there are several."""
    generator = torch.Generator().manual_seed(0)
    frames = [
        {"image": probabilities, "label": index % 3}
        for index, probabilities in enumerate(torch.rand(COUNT, 3, generator=generator).softmax(1))
    ]
    dataset = Dataset(frames[: COUNT - left_out])
    several = torch.distributed.is_initialized()
    sampler = DistributedSampler(dataset, even_divisible=even_divisible, shuffle=False) if several else None
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(dataset, batch_size=2, sampler=sampler),
        torch.nn.Identity(),
        key_val_metric={"accuracy": Accuracy(output_transform=from_engine(["pred", "label"]))},
    )
    collector = PredictionCollector(ROWS, CLASSES)
    collector.attach(evaluator)
    evaluator.run()
    return collector.predictions.probabilities, evaluator.state.metrics["accuracy"]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_have_the_predictions_of_one_in_its_order(in_ranks, size):
    probabilities, accuracy = evaluate()
    for found, found_accuracy in in_ranks(evaluate, size=size):
        assert (found == probabilities).all()
        assert found_accuracy == pytest.approx(accuracy)


def test_frames_that_a_sampler_repeats_count_once(in_ranks):
    probabilities, _ = evaluate()
    for found, _ in in_ranks(evaluate, True, size=2):
        assert (found == probabilities).all()


def test_frames_that_no_rank_has_seen_are_missed(in_ranks):
    def refused():
        with pytest.raises(ValueError, match="6 of the 7 frames"):
            evaluate(left_out=1)

    in_ranks(refused)
