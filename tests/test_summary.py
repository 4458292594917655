from __future__ import annotations

import json

import pytest
import torch
from ignite.metrics import Accuracy
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from monai_fetalkd.metrics import BalancedAccuracy, MacroF1
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.summary import Summary, frame_milliseconds, multiply_accumulates


def evaluator(batches, network):
    output = from_engine(["pred", "label"])
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=batches,
        network=network,
        key_val_metric={"accuracy": Accuracy(output_transform=output)},
        additional_metrics={"balanced_accuracy": BalancedAccuracy(output), "macro_f1": MacroF1(output)},
    )


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2]], ids=["every class", "a class without a case"])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_metrics_in_an_engine_equal_scikit_learns_over_all_batches(classes):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 3, generator=generator)
    labels = torch.tensor(classes)[torch.randint(len(classes), (50,), generator=generator)]
    batches = [{"image": scores[i : i + 8], "label": labels[i : i + 8]} for i in range(0, 50, 8)]
    engine = evaluator(batches, nn.Identity())
    engine.run()
    chosen = scores.argmax(1)
    assert engine.state.metrics["accuracy"] == pytest.approx((chosen == labels).double().mean().item(), abs=1e-9)
    assert engine.state.metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, chosen), abs=1e-9)
    assert engine.state.metrics["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"), abs=1e-9)


@pytest.mark.parametrize("metric", [BalancedAccuracy, MacroF1])
def test_one_hot_labels_are_refused_rather_than_scored_elementwise(metric):
    one = metric()
    one.update((torch.eye(3), torch.eye(3)))
    with pytest.raises(ValueError, match=r"integer labels \[N\], but got \(3, 3\) and \(3, 3\)"):
        one.compute()


def test_multiply_accumulates_of_a_convolution_are_counted_by_hand():
    # 4 x 4 outputs, each of 2 channels over 3 x 3 x 1 inputs
    assert multiply_accumulates(nn.Conv2d(1, 2, 3, stride=2, padding=1), (1, 8, 8)) == 4 * 4 * 2 * 9


def test_multiply_accumulates_of_the_teacher_are_those_of_the_literature():
    # ResNet-50 at 3 x 224 x 224 is given as 4.1 G; one input channel saves two thirds of the first convolution
    three = multiply_accumulates(teacher_resnet(50, num_classes=1000, in_channels=3), (3, 224, 224))
    assert three / 1e9 == pytest.approx(4.09, abs=0.01)
    assert three - multiply_accumulates(teacher_resnet(50, num_classes=1000), (1, 224, 224)) == 112**2 * 64 * 49 * 2


def test_a_measurement_leaves_mode_threads_and_statistics_alone():
    network = student_resnet(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    threads = torch.get_num_threads()
    times = frame_milliseconds([network, network.conv1], (1, 32, 32), repeats=3)
    assert all(time > 0 for time in times)
    assert network.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_table_and_the_file_tell_the_same(tmp_path, capsys):
    networks = {}
    for name, width in (("teacher", 8), ("student", 4)):
        network = student_resnet(width, num_classes=2)
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
        networks[name] = (student_resnet(width, num_classes=2), str(tmp_path / f"{name}.pt"))
    batches = [{"image": torch.rand(4, 1, 32, 32), "label": torch.tensor([0, 1, 0, 1])}]
    rows = Summary(evaluator(batches, nn.Identity()), networks, (1, 32, 32), tmp_path, tmp_path)()
    content = json.loads((tmp_path / "summary.json").read_text())
    printed = capsys.readouterr().out
    assert [row.name for row in rows] == ["teacher", "student"]
    for row, written in zip(rows, content["networks"], strict=True):
        assert written["metrics"] == row.metrics
        assert written["parameters"] == sum(p.numel() for p in networks[row.name][0].parameters())
        line = next(line for line in printed.splitlines() if line.startswith(f"| {row.name} "))
        assert f" {row.metrics['accuracy']:.3f} " in line
        assert f" {row.parameters / 1e6:.2f} M " in line
    assert str(tmp_path) in printed


def test_a_missing_checkpoint_writes_no_summary(tmp_path):
    network = student_resnet(2, num_classes=2)
    with pytest.raises(FileNotFoundError, match=r"teacher\.pt' does not exist"):
        Summary(
            evaluator([], network),
            {"teacher": (network, str(tmp_path / "teacher.pt"))},
            (1, 32, 32),
            tmp_path,
            tmp_path,
        )()
    assert not (tmp_path / "summary.json").exists()
