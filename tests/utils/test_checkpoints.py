from __future__ import annotations

import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointSaver
from torch import nn

from monai_fetalkd.networks import load_imagenet_weights, student_resnet
from monai_fetalkd.utils.checkpoints import fit_names, load_weights, read_state_dict, save_weights


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def other(weights):
    return {name: value + 1 for name, value in weights.items()}


def optimizer_state():
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


WRAPS = {
    "alone": lambda weights: weights,
    "model": lambda weights: {"model": weights, "epoch": 3},
    "net": lambda weights: {"net": weights, "optimizer": optimizer_state(), "best": torch.ones(1)},
    "network": lambda weights: {"network": weights},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "optimizer_state_dict": optimizer_state()},
    "only an average": lambda weights: {"ema": weights, "epoch": 3},
    "beside an average": lambda weights: {"model_ema": other(weights), "state_dict": weights},
    "several of the known names": lambda weights: {"net": other(weights), "model": weights},
    "one below": lambda weights: {"state": {"network": weights, "optimizer": optimizer_state()}, "args": {"lr": 0.1}},
    "Lightning": lambda weights: {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "callbacks": {"EarlyStopping": {"wait_count": 0, "best_score": torch.ones(())}},
        "optimizer_states": [optimizer_state()],
        "hyper_parameters": {"lr": 0.1, "layers": [1, 2]},
    },
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "net."])
def test_weights_come_back_from_a_checkpoint(tmp_path, wrap, prefix):
    source, target = student_resnet(4), student_resnet(4)
    torch.save(wrap({prefix + name: value for name, value in source.state_dict().items()}), tmp_path / "model.pt")
    load_weights(target, tmp_path / "model.pt")
    assert equal(source, target)


def test_weights_come_back_from_monais_own_checkpoints(tmp_path):
    source, target = student_resnet(4), student_resnet(4)
    objects = {"net": source, "opt": torch.optim.Adam(source.parameters())}
    engine = Engine(lambda *_: None)
    CheckpointSaver(str(tmp_path), objects, save_final=True, final_filename="final.pt").attach(engine)
    engine.run([0], max_epochs=1)
    load_weights(target, tmp_path / "final.pt")
    assert equal(source, target)


@pytest.mark.parametrize(
    "wrapper", [nn.Sequential, nn.DataParallel, lambda network: nn.DataParallel(nn.Sequential(network))]
)
def test_a_wrapped_network_takes_the_weights_of_a_bare_one(tmp_path, wrapper):
    source, target = student_resnet(4), student_resnet(4)
    save_weights(source, tmp_path / "model.pt")
    load_weights(wrapper(target), tmp_path / "model.pt")
    assert equal(source, target)


@pytest.mark.parametrize(
    ("names", "own", "fitted"),
    [
        (["module.a.x", "module.b.x"], ["a.x", "b.x"], ["a.x", "b.x"]),
        (["module.a.x", "head.x"], ["a.x", "head.x"], ["module.a.x", "head.x"]),  # not all share it
        (["model.a", "model.b"], ["model.a", "model.b"], ["model.a", "model.b"]),  # the network has it too
        (["net.model.a", "net.model.b"], ["model.a", "model.b"], ["model.a", "model.b"]),
        (["a", "b"], ["module.a", "module.b"], ["module.a", "module.b"]),
        (["a", "c"], ["module.a", "module.b"], ["a", "c"]),
        ([], ["a.b"], []),
    ],
)
def test_a_prefix_that_all_names_share_is_fitted(names, own, fitted):
    assert list(fit_names(dict.fromkeys(names, torch.ones(1)), own)) == fitted


def test_imagenet_weights_may_have_a_prefix(tmp_path):
    source, target = student_resnet(4, in_channels=3), student_resnet(4, num_classes=2)
    torch.save({"state_dict": {f"module.{name}": v for name, v in source.state_dict().items()}}, tmp_path / "in.pt")
    load_imagenet_weights(target, tmp_path / "in.pt")
    torch.testing.assert_close(target.conv1.weight, source.conv1.weight.sum(1, keepdim=True))


def test_saving_changes_nothing(tmp_path):
    network = student_resnet(4).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_weights(network, tmp_path / "one.pt")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    read = read_state_dict(tmp_path / "one.pt")
    assert list(read) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in read.items())


def test_a_network_with_an_extra_state_or_without_weights_comes_back(tmp_path):
    class Counted(nn.Linear):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    source, target = Counted(2, 2), Counted(2, 2)
    source.count = 3
    for one, other_one in ((source, target), (nn.Flatten(), nn.Flatten())):
        save_weights(one, tmp_path / "model.pt")
        load_weights(other_one, tmp_path / "model.pt")
    assert target.count == 3
    assert torch.equal(source.weight, target.weight)


def _garbage(path):
    path.write_bytes(b"no checkpoint at all")


def _truncated(path):
    torch.save(student_resnet(4).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def _code(path):
    torch.save({"model": student_resnet(4)}, path)  # a pickled object, which could run code when it is loaded


def _cut(path):
    torch.save(student_resnet(4).state_dict(), path)
    path.write_bytes(path.read_bytes()[:100])


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "text")


def _program(path):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def _several(path):
    weights = nn.Linear(1, 1).state_dict()
    torch.save({"student": weights, "teacher": {"backbone": weights}}, path)


FOREIGN = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "text": (lambda path: path.write_text("<!DOCTYPE html>"), "another format"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "another format"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "safetensors": (lambda path: path.write_bytes((64).to_bytes(8, "little") + b'{"w":{}}'), "safetensors"),
    "cut": (_cut, "damaged, its end is missing"),
    "archive": (_zip, "archive of another kind"),
    "TorchScript": (lambda path: torch.jit.script(nn.Linear(1, 1)).save(path), "TorchScript archive"),
    "torch.export": (_program, "torch.export"),
    "network": (lambda path: torch.save(nn.Linear(1, 1), path), r"Linear\), .* load it .* save network.state_dict\(\)"),
    "numpy": (lambda path: torch.save({"a": np.float64(1)}, path), r"objects \(numpy\.\S+scalar\)"),
    "settings": (lambda path: torch.save({"args": SimpleNamespace(lr=1)}, path), r"objects \(types.SimpleNamespace\)"),
    "a list": (lambda path: torch.save([1, 2], path), "holds no state dict of tensors, but a list"),
    "no weights": (
        lambda path: torch.save({"epoch": 3, "best": torch.ones(2), "optimizer": optimizer_state()}, path),
        r"'epoch' \(int\), 'best' \(Tensor \(2,\)\), 'optimizer' \(dict of 'state', 'param_groups'\)",
    ),
    "several": (_several, r"under \['student'\], \['teacher'\]\['backbone'\]: save the right one"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("write", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_is_named_in_one_sentence_without_unsafe_advice(tmp_path, write, message):
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        read_state_dict(path)
    error = caught.value
    assert str(path) in str(error)
    assert "\n" not in str(error)
    while error is not None:
        assert "weights_only" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_state_dict(tmp_path)


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
