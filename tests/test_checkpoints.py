from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_fetalkd.checkpoints import load_weights
from monai_fetalkd.networks import student_resnet


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights, "epoch": 3}])
def test_weights_come_back_from_a_checkpoint(tmp_path, wrap):
    source, target = student_resnet(4), student_resnet(4)
    torch.save(wrap(source.state_dict()), tmp_path / "model.pt")
    load_weights(target, tmp_path / "model.pt")
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value, rtol=0, atol=0)


def _garbage(path):
    path.write_bytes(b"no checkpoint at all")


def _truncated(path):
    torch.save(student_resnet(4).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def _code(path):
    torch.save({"model": student_resnet(4)}, path)  # a pickled object, which could run code when it is loaded


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "does not exist"),
        (_garbage, ValueError, "cannot be read as a checkpoint"),
        (_truncated, ValueError, "cannot be read as a checkpoint"),
        (_code, ValueError, "cannot be read as a checkpoint"),
        (lambda path: torch.save({"accuracy": 0.9}, path), ValueError, "holds no state dict"),
        (lambda path: torch.save(student_resnet(8).state_dict(), path), ValueError, r"conv1.weight is \(8, 1, 7, 7\)"),
        (lambda path: torch.save(nn.Linear(1, 1).state_dict(), path), ValueError, "conv1.weight is missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named_and_changes_nothing(tmp_path, write, error, message):
    path = tmp_path / "model.pt"
    write(path)
    network = student_resnet(4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(error, match=message) as caught:
        load_weights(network, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
