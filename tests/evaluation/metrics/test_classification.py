from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Accuracy
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import StatsHandler, TensorBoardStatsHandler, from_engine
from monai.transforms import Activationsd
from sklearn import metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_fetalkd.evaluation.metrics import ClassificationScores
from monai_fetalkd.evaluation.scores import Predictions, scores

CLASSES = ["abdomen", "brain", "femur", "other"]


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(scale=2, size=(23, 4)).astype(np.float32))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(4, size=23))


def expected_scores(logits, labels):
    rows = [{"image": str(number), "label": label} for number, label in enumerate(labels.tolist())]
    return scores(Predictions.from_rows(CLASSES, rows, logits.softmax(dim=1).numpy()))


@pytest.fixture
def evaluator(logits, labels, tmp_path) -> SupervisedEvaluator:
    """The logits are the frames, and the network passes them on; batches of 5 leave a smaller last one."""
    frames = Dataset([{"image": image, "label": int(label)} for image, label in zip(logits, labels, strict=True)])
    output = from_engine(["pred", "label"])
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(frames, batch_size=5),
        network=torch.nn.Identity(),
        postprocessing=Activationsd("pred", softmax=True),
        key_val_metric={"val_accuracy": Accuracy(output_transform=output)},
        additional_metrics={"scores": ClassificationScores(CLASSES, output_transform=output)},
        val_handlers=[
            StatsHandler(iteration_log=False, name="scores"),
            TensorBoardStatsHandler(log_dir=str(tmp_path), iteration_log=False),
        ],
    )


def test_an_evaluator_has_each_score_of_scikit_learn_among_its_metrics(evaluator, logits, labels):
    evaluator.run()
    found = dict(evaluator.state.metrics)
    assert found.pop("val_accuracy") == pytest.approx(found["accuracy"])
    assert found == pytest.approx(expected_scores(logits, labels), abs=1e-9)
    probabilities, classes = logits.softmax(dim=1).double(), logits.argmax(dim=1)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, classes, average="macro"), abs=1e-9)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, classes), abs=1e-9)
    assert found["macro_auroc"] == pytest.approx(
        metrics.roc_auc_score(labels, probabilities / probabilities.sum(dim=1, keepdim=True), multi_class="ovr"),
        abs=1e-9,
    )


def test_each_epoch_is_scored_anew(evaluator):
    evaluator.run()
    first = dict(evaluator.state.metrics)
    evaluator.run()
    assert evaluator.state.metrics == first


def test_handlers_log_each_score_and_nothing_else(evaluator, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="scores"):
        evaluator.run()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    for name, value in evaluator.state.metrics.items():
        assert f"{name}: {value:.4f}" in caplog.text
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert set(curves.Tags()["scalars"]) == set(evaluator.state.metrics)
    assert curves.Scalars("macro_auroc")[0].value == pytest.approx(evaluator.state.metrics["macro_auroc"])


def test_it_can_be_the_key_metric_by_the_name_of_a_score(logits, labels):
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": logits, "label": labels}],
        network=torch.nn.Softmax(dim=1),
        decollate=False,
        key_val_metric={"macro_f1": ClassificationScores(CLASSES, from_engine(["pred", "label"]))},
    )
    evaluator.run()
    assert evaluator.state.best_metric == pytest.approx(expected_scores(logits, labels)["macro_f1"], abs=1e-9)


def test_ranks_with_different_numbers_of_frames_have_the_same_scores_of_all(in_ranks, logits, labels):
    def score_my_share():
        mine = slice(0, 15) if torch.distributed.get_rank() == 0 else slice(15, None)
        metric = ClassificationScores(CLASSES)
        metric.update((logits[mine].softmax(dim=1), labels[mine]))
        return metric.compute()

    first, second = in_ranks(score_my_share)
    assert first == second
    assert first == pytest.approx(expected_scores(logits, labels), abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (torch.eye(4), torch.eye(4), r"integer labels \[N\], but got \(4, 4\) and \(4, 4\)"),
        (torch.ones(4), torch.arange(4), r"probabilities \[N, C\] .* but got \(4,\) and \(4,\)"),
        (torch.eye(3), torch.arange(3), r"have probabilities of shape \(3, 4\), but got \(3, 3\)"),
        (torch.eye(4), torch.arange(4.0), "'frame 0' is 0.0, not the index of a class"),
        (torch.eye(4), torch.arange(1, 5), "'frame 3' has the label 4, but the 4 classes count from 0"),
        (torch.eye(4) * torch.nan, torch.arange(4), "'frame 0' has the probability nan of 'abdomen'"),
        (3 * torch.eye(4), torch.arange(4), "the probabilities of 'frame 0' sum to 3, not to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(probabilities, labels, message):
    metric = ClassificationScores(CLASSES)
    metric.update((probabilities, labels))
    with pytest.raises(ValueError, match=message):
        metric.compute()


def test_an_epoch_without_frames_cannot_be_scored():
    with pytest.raises(NotComputableError, match="one frame at least"):
        ClassificationScores(CLASSES).compute()
