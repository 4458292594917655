from __future__ import annotations

import json
import re
import sys

import pytest
import torch

from monai_fetalkd.__main__ import main
from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.data import PLANE_NAMES, make_phantom
from monai_fetalkd.utils.checkpoints import save_weights

_TINY = {"image_size": [32, 32], "num_workers": 0, "network_def#width": 2}
_SET = ("calibration#per_class=2", "target=1e-6")


@pytest.fixture
def command(project_dir, tmp_path, monkeypatch):
    """Runs the command on a tiny network of the phantom's configs, with other arguments where given."""
    configs = project_dir / "bundle" / "configs"
    (tmp_path / "tiny.json").write_text(json.dumps(_TINY))
    data = make_phantom(tmp_path / "phantom", train=12, val=6, test=6, size=32)
    torch.manual_seed(0)  # a network that is right nowhere has no threshold, and no columns for it
    save_weights(student_resnet(width=2, layers=(1, 1, 1, 1)), tmp_path / "model.pt")

    def run(*arguments, ckpt=tmp_path / "model.pt", dataset=data, first="train.json", output=tmp_path / "exported"):
        files = [str(configs / first), str(configs / "phantom.json"), str(tmp_path / "tiny.json")]
        given = ["--ckpt", str(ckpt), "--dataset_dir", str(dataset), "--output_dir", str(output)]
        return main(["export", "--config_file", *files, *given, "--set", *_SET, *arguments])

    return run


def test_the_files_of_a_training_are_exported_and_told(command, tmp_path, capsys):
    older = tmp_path / "exported" / "student.onnx"
    older.parent.mkdir()
    older.write_text("older")
    assert command() == 1
    assert "There is an older export" in capsys.readouterr().err
    assert older.read_text() == "older"

    assert command("--overwrite", "--agreement", "0.5", "--set", "image_size=[48,48]", "split=validation") == 0
    told = capsys.readouterr()
    assert not re.search("INFO|WARNING|constant folding", told.err)
    assert "layer1, 12 x 12" in told.out
    content = json.loads((tmp_path / "exported" / "export.json").read_text())
    for name in ("student.onnx", "student.pt2", "student.int8.onnx"):
        size = (tmp_path / "exported" / name).stat().st_size
        (line,) = [line for line in told.out.splitlines() if line.startswith(f"{name} ")]
        figures = content[name]
        answered = content["threshold"]["int8" if "int8" in name else "float32"]
        assert line.split()[1:] == [
            f"{size:,}",
            f"{figures['agreement']:.2%}",
            *(f"{value:.3f}" for value in (figures["accuracy"], answered["coverage"], answered["accuracy"])),
        ]
    assert content["split"] == "validation"
    assert content["student.int8.onnx"]["least_agreement"] == 0.5
    assert Recognizer(tmp_path / "exported" / "student.int8.onnx").preprocessing.size == (48, 48)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ckpt": "nowhere.pt"}, "The checkpoint 'nowhere.pt' does not exist"),
        ({"dataset": "/nowhere"}, "nowhere"),
        ({"first": "none.json"}, r"There is no config '.*none.json'"),
    ],
)
def test_what_the_user_can_mend_is_told_in_one_sentence(command, capsys, changes, said):
    assert command(**changes) == 1
    told = capsys.readouterr().err
    assert re.match(f"error: .*{said}", told)
    assert told.count("\n") == 1


def test_a_config_that_is_no_json_is_named(command, tmp_path, capsys):
    (tmp_path / "tiny.json").write_text('{"image_size": [32, 32],}')
    assert command() == 1
    told = capsys.readouterr().err
    assert "tiny.json" in told
    assert told.count("\n") == 1


def test_an_item_without_a_value_is_a_wrong_argument(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command("--set", "image_size")
    assert caught.value.code == 2
    assert "ITEM=VALUE, not as image_size" in capsys.readouterr().err


def test_without_what_writes_the_files_it_says_what_to_install(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert command() == 1
    assert capsys.readouterr().err.strip().endswith("`pip install onnxscript`.")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("imagesize=[48,48]", "image_size"),
        ("teacher#epoch=1", "teacher#epochs"),
        ("techer#epochs=1", "teacher"),
        ("batch_size=abc", "batch_size"),
    ],
)
def test_a_slip_in_an_item_is_told(command, capsys, tmp_path, change, told):
    assert command("--set", change) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("exported/*.onnx"))


def test_a_network_that_was_trained_at_another_size_is_refused(command, capsys, tmp_path):
    about = {"image_size": [64, 64], "class_names": list(PLANE_NAMES), "crop": False}
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert command() == 1
    said = capsys.readouterr().err
    assert "[64, 64]" in said
    assert "[32, 32]" in said


def test_a_folder_that_cannot_be_written_is_told_before_the_work(command, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert command(output=tmp_path / "file" / "exported") == 1
    assert str(tmp_path / "file" / "exported") in capsys.readouterr().err
