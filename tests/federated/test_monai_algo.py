"""MONAI's client for federated learning on the bundle, as any federated system drives it."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.data import make_phantom

TRAIN = ["configs/train.json", "configs/federated.json"]
EVALUATE = ["configs/train.json", "configs/evaluate.json"]
NETWORK = {"_target_": "monai_fetalkd.networks.student_resnet", "layers": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("site") / "phantom", train=12, val=6, test=6, size=32)


@pytest.fixture
def client(project_dir, phantom, tmp_path, monkeypatch):
    """A client of one site with tiny networks, whose teacher is there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def make(teacher=True, **overrides) -> MonaiAlgo:
        settings = {
            "bundle_root": str(project_dir / "bundle"),
            "output_dir": str(tmp_path / "out"),
            "dataset_dir": phantom,
            "image_size": [32, 32],
            "layers": ["layer1", "layer2", "layer3"],
            "batch_size": 6,
            "device": "cpu",
            "num_workers": 0,
            "network_def": {**NETWORK, "width": 2},
            "teacher#network_def": {**NETWORK, "width": 4},
            "teacher#ckpt": str(tmp_path / "teacher.pt"),
            "train#epochs": 4,
            **overrides,
        }
        if teacher:
            torch.manual_seed(0)
            torch.save(student_resnet(4, (1, 1, 1, 1), num_classes=6).state_dict(), tmp_path / "teacher.pt")
        algo = MonaiAlgo(
            bundle_root=str(project_dir / "bundle"),
            local_epochs=2,
            send_weight_diff=False,
            config_train_filename=TRAIN,
            config_evaluate_filename=EVALUATE,
            train_kwargs=copy.deepcopy(settings),
            eval_kwargs=copy.deepcopy(settings),
            best_model_filepath=str(tmp_path / "out" / "models" / "model.pt"),
        )
        algo.initialize({ExtraItems.CLIENT_NAME: "site-1"})
        return algo

    yield make
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def global_weights(seed=1):
    torch.manual_seed(seed)
    return ExchangeObject(weights=student_resnet(2, (1, 1, 1, 1), num_classes=6).state_dict())


def test_rounds_start_from_the_global_weights_and_never_touch_the_teacher(client, tmp_path):
    algo = client()
    (teacher,) = algo.trainer.teacher.networks()
    for seed in (1, 2):
        received = global_weights(seed)
        algo.train(received)
        sent = algo.get_weights()
        assert sent.weight_type == WeightType.WEIGHTS
        assert sent.weights.keys() == received.weights.keys()  # the student alone
        assert sent.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 4
        changed = np.mean([not torch.equal(sent.weights[name], value) for name, value in received.weights.items()])
        assert changed > 0.9
        # two short epochs from there, and not from wherever the round before ended
        assert (sent.weights["conv1.weight"] - received.weights["conv1.weight"]).abs().max() < 0.1
    assert algo.trainer.state.epoch == 4
    kept = torch.load(tmp_path / "teacher.pt", weights_only=True)
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())
    algo.finalize()


def test_a_site_scores_the_global_weights_and_hands_over_its_best(client):
    algo = client()
    scores = algo.evaluate(global_weights()).metrics
    assert 0 <= scores["accuracy"] <= 1
    assert scores["macro_f1"] >= 0
    algo.train(global_weights())
    best = algo.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL})
    assert best.weights.keys() == global_weights().weights.keys()
    algo.finalize()


def test_differences_of_weights_can_be_sent_instead(client):
    algo = client()
    algo.send_weight_diff = True
    received = global_weights()
    algo.train(received)
    sent = algo.get_weights()
    assert sent.weight_type == WeightType.WEIGHT_DIFF
    now = algo.trainer.network.state_dict()["conv1.weight"]
    torch.testing.assert_close(received.weights["conv1.weight"] + sent.weights["conv1.weight"], now)


def test_a_site_without_a_teacher_says_so(client):
    algo = client(teacher=False)
    with pytest.raises(FileNotFoundError, match=r"teacher\.pt' does not exist"):
        algo.train(global_weights())


def test_a_site_with_other_classes_says_so(client):
    with pytest.raises(RuntimeError) as caught:
        client(class_names=["Fetal brain", "Fetal abdomen", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other"])
    cause = caught.value
    while cause.__cause__ is not None and not isinstance(cause, ValueError):
        cause = cause.__cause__
    assert "are not those asked for" in str(cause)


def test_global_weights_of_another_network_are_refused(client):
    algo = client()
    other = ExchangeObject(weights=student_resnet(2, (1, 1, 1, 1), num_classes=4).state_dict())
    with pytest.raises(ValueError, match="fc"):
        algo.train(other)
