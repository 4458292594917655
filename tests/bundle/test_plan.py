"""What the later stages of a run need is checked at its start."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from monai_fetalkd.bundle.plan import check_files, check_layers, tell_plan
from monai_fetalkd.networks import student_resnet

SHAPE = (1, 32, 32)


def networks(student=("layer3", "layer4"), teacher=("layer3", "layer4")):
    network = student_resnet(width=2, layers=(1, 1, 1, 1), num_classes=2)
    return {"student": (network, student), "teacher": (network, teacher)}


def test_layers_that_are_there_are_right():
    check_layers(networks(), SHAPE)


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ({"student": ("layer9",) * 2}, "layer4"),
        ({"teacher": ("layer3", "layer9")}, "teacher"),
        ({"teacher": ("layer4",)}, "1 of the teacher"),
        ({"student": ("layer4", "layer4")}, "twice"),
    ],
)
def test_layers_that_are_not_there_or_do_not_pair_up_are_told(layers, told):
    with pytest.raises(ValueError, match=told):
        check_layers(networks(**layers), SHAPE)


def test_a_layer_that_no_frame_passes_is_told():
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    network.forward = lambda image: image  # and so not the layer
    with pytest.raises(ValueError, match="student"):
        check_layers({"student": (network, ["0"])}, SHAPE)


def test_a_check_leaves_the_mode_of_a_network():
    network, _ = networks()["student"]
    network.train()
    check_layers({"student": (network, ["layer4"])}, SHAPE)
    assert network.training


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_not_there_is_told_with_its_name(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "none.jsonl"
    with pytest.raises(FileNotFoundError, match="patient 1"):
        check_files({"patient 1": path})


@pytest.mark.parametrize("files", ["stream.jsonl", ["stream.jsonl"], {"patient 1": 3}])
def test_files_are_given_by_name(files):
    with pytest.raises(ValueError, match="name"):
        check_files(files)


def test_files_that_are_there_are_right(tmp_path):
    (tmp_path / "a.jsonl").touch()
    check_files({"a": tmp_path / "a.jsonl"})
    check_files({})


def test_networks_epochs_and_times_are_told_and_leave_no_trace(caplog):
    network = student_resnet(width=2, layers=(1, 1, 1, 1), num_classes=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with caplog.at_level(logging.INFO), torch.random.fork_rng():
        state = torch.random.get_rng_state()
        tell_plan({"teacher": (network, 7), "stage 1": (network, 3)}, SHAPE, 10, 2, lambda images, net: net(images))
        tell_plan({"teacher": (network, 7)}, SHAPE, 10, 2, lambda images, net: net(images), resume=True)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert ["already" in message for message in caplog.messages] == [False, False, False, False, True]
    told = "\n".join(caplog.messages)
    assert all(part in told for part in ("teacher", "7 epochs", "stage 1", "3 epochs", "M parameters", "10", "32 x 32"))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
