from __future__ import annotations

import json

import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd
from torch import nn
from torch.utils.data import DataLoader

from monai_fetalkd.evaluation.scores import read_predictions, scores
from monai_fetalkd.evaluation.summary import Summary, compare_networks
from monai_fetalkd.networks import student_resnet

CLASSES = ("brain", "femur", "other")


class Frames(Dataset):
    """Rows of a datalist whose image is noise of the row's own."""

    def __init__(self, prefix: str, count: int) -> None:
        rows = [{"image": f"{prefix}{n}.png", "label": n % 3, "group": f"{prefix}{n // 2}"} for n in range(count)]
        super().__init__(rows)

    def __getitem__(self, index):
        noise = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"image": noise, "label": self.data[index]["label"]}


def evaluator(dataset):
    return SupervisedEvaluator(
        "cpu",
        DataLoader(dataset, batch_size=4),
        nn.Identity(),
        postprocessing=Activationsd(keys="pred", softmax=True),
    )


@pytest.fixture
def summary(tmp_path):
    networks = {}
    for name, width in (("teacher", 8), ("student", 4)):
        network = student_resnet(width, num_classes=3)
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
        networks[name] = (student_resnet(width, num_classes=3), str(tmp_path / f"{name}.pt"))

    def build(**options):
        return Summary(
            evaluator(Frames("t", 15)),
            networks,
            CLASSES,
            (1, 32, 32),
            tmp_path / "result",
            tmp_path / "logs",
            validation=evaluator(Frames("v", 9)),
            settings={"seed": 3},
            repeats=20,
            **options,
        )

    return build


def test_the_table_the_file_and_the_predictions_tell_the_same(summary, tmp_path, capsys):
    content = summary()()
    assert json.loads((tmp_path / "result" / "metrics.json").read_text()) == content
    printed = capsys.readouterr().out
    for name, network in content["networks"].items():
        predictions = read_predictions(tmp_path / "result" / network["predictions"])
        assert predictions.files == tuple(f"t{n}.png" for n in range(15))
        assert {key: value["value"] for key, value in network["metrics"].items()} == pytest.approx(scores(predictions))
        assert f"{network['metrics']['accuracy']['value']:.3f} (" in printed
        assert network["temperature"]["frames"] == 9
        loaded = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert network["cost"]["parameters"] == sum(
            value.numel() for key, value in loaded.items() if not key.endswith(("mean", "var", "tracked"))
        )
    assert content["settings"] == {"seed": 3}
    assert str(tmp_path / "logs") in printed


def test_an_older_result_stays_unless_it_may_be_replaced(summary, tmp_path):
    summary()()
    before = (tmp_path / "result" / "metrics.json").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"metrics\.json' is an older result"):
        summary()()
    assert (tmp_path / "result" / "metrics.json").stat().st_mtime_ns == before
    summary(overwrite=True)()
    assert (tmp_path / "result" / "metrics.json").stat().st_mtime_ns > before


def test_a_missing_checkpoint_writes_nothing(summary, tmp_path):
    (tmp_path / "student.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"student\.pt' does not exist"):
        summary()()
    assert not (tmp_path / "result").exists()


def test_networks_of_any_task_are_compared_by_the_metrics_of_the_evaluator(tmp_path, capsys):
    network = student_resnet(4, num_classes=3)
    torch.save(network.state_dict(), tmp_path / "student.pt")
    scored = evaluator(Frames("t", 6))
    scored.add_event_handler(
        Events.COMPLETED, lambda engine: engine.state.metrics.update(dice=torch.tensor([0.25, 0.5]))
    )
    scored.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update(mean_dice=0.375))
    networks = {"student": (network, str(tmp_path / "student.pt"))}
    content = compare_networks(scored, networks, (1, 32, 32), tmp_path / "metrics.json")
    assert content["student"]["metrics"] == {"dice": [0.25, 0.5], "mean_dice": 0.375}
    assert json.loads((tmp_path / "metrics.json").read_text()) == content
    head, _, row = (line for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    assert "mean_dice" in head
    assert "0.375" in row
    (tmp_path / "student.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"student\.pt"):
        compare_networks(scored, networks, (1, 32, 32), tmp_path / "metrics.json")
