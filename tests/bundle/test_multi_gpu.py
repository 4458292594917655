"""The overlays for several processes: ranks of the tests here, started by torchrun in test_torchrun.py."""

from __future__ import annotations

import json

import pytest
import torch

from monai_fetalkd.evaluation.scores import read_predictions
from monai_fetalkd.networks import student_resnet

from .conftest import monai_bundle

# normalised frame by frame, so that a share of a batch changes nothing
BY_FRAME = {
    "_target_": "Classifier",
    "in_shape": [1, 32, 32],
    "classes": 6,
    "strides": [2, 2],
    "norm": "INSTANCE",
}
EXACT = {
    "network_def": {**BY_FRAME, "channels": [2, 4]},
    "teacher#network_def": {**BY_FRAME, "channels": [4, 8]},
    "layers": ["net.layer_0", "net.layer_1"],
    "train#random_transforms": [],
    "precision": "float32",
    "channels_last": False,
    "stage#optimizer": "$torch.optim.SGD",  # AdamW blows up what rounding changes
    **{f"{stage}#lr": 0.05 for stage in ("teacher", "train")},
    "run": ["@run_teacher", "@run_baseline", "@run_attention", "@run_distillation", "@run_summary"],
}
NETWORKS = ("teacher", "student, from scratch", "student, distilled")
CHECKPOINTS = ("teacher", "baseline", "attention", "model")


@pytest.fixture
def train(run, in_ranks):
    """Run ``train.json`` with the overlay on so many ranks."""

    def go(ranks: int, folder, *configs, **overrides):
        def one_rank():
            given = {"device": "$join_ranks()", "output_dir": str(folder), **overrides}
            with monai_bundle():
                run(*(configs or ("train.json", "multi_gpu_train.json")), **given)

        in_ranks(one_rank, size=ranks)
        return folder

    return go


def files(folder):
    return {str(path.relative_to(folder)).split(".tfevents")[0] for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow  # twenty seconds
def test_two_ranks_train_and_measure_what_one_does_with_the_same_global_batch(train, tmp_path):
    one = train(1, tmp_path / "one", batch_size=8, **EXACT)
    two = train(2, tmp_path / "two", batch_size=4, **EXACT)
    for name in CHECKPOINTS:
        first, second = (torch.load(folder / "models" / f"{name}.pt", weights_only=True) for folder in (one, two))
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=0, atol=1e-4)
    figures = [json.loads((folder / "eval" / "metrics.json").read_text()) for folder in (one, two)]
    assert [content["settings"]["ranks"] for content in figures] == [1, 2]
    for name in NETWORKS:
        first, second = (content["networks"][name]["metrics"] for content in figures)
        for metric, interval in first.items():
            assert second[metric] == pytest.approx(interval, abs=1e-5), metric
    for path in (one / "eval" / "predictions").glob("*.csv"):
        first, second = (read_predictions(folder / "eval" / "predictions" / path.name) for folder in (one, two))
        assert second.files == first.files
        assert second.probabilities == pytest.approx(first.probabilities, abs=1e-5)


def test_only_the_first_rank_writes(train, tmp_path):
    short = {
        "run": ["@run_attention", "@run_summary"],
        "summary#networks": {"student": ["@student", "@attention#ckpt"]},
    }
    torch.save(student_resnet(4, (1, 1, 1, 1), num_classes=6).state_dict(), tmp_path / "teacher.pt")
    one, two = (
        train(ranks, tmp_path / str(ranks), **short, **{"teacher#ckpt": str(tmp_path / "teacher.pt")})
        for ranks in (1, 2)
    )
    assert {"models/attention.pt", "eval/metrics.json", "eval/log.txt"} <= files(one)
    assert files(two) == files(one)


def test_two_ranks_evaluate_as_one_process_does(train, run, tmp_path):
    network = student_resnet(2, (1, 1, 1, 1), num_classes=6)
    torch.save(network.state_dict(), tmp_path / "student.pt")
    given = {"ckpt": str(tmp_path / "student.pt"), "channels_last": False}
    run("train.json", "evaluate.json", output_dir=str(tmp_path / "one"), **given)
    train(2, tmp_path / "two", "train.json", "evaluate.json", "multi_gpu_evaluate.json", **given)
    one, two = (tmp_path / name / "eval" / "evaluation" for name in ("one", "two"))
    first, second = (read_predictions(folder / "predictions" / "student.csv") for folder in (one, two))
    assert second.files == first.files
    assert second.probabilities == pytest.approx(first.probabilities, abs=1e-5)
    assert json.loads((two / "metrics.json").read_text())["settings"]["ranks"] == 2


def test_the_overlay_needs_torchrun(run):
    with pytest.raises(RuntimeError) as caught:
        run("train.json", "multi_gpu_train.json", device="$join_ranks()")
    assert "needs torchrun to start them" in str(caught.value.__cause__)
