from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from PIL import Image

from monai_fetalkd.bundle.process import told_plainly
from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.ultrasound.data import PLANE_NAMES

STAGES = {
    "run_teacher": "teacher.pt",
    "run_baseline": "baseline.pt",
    "run_attention": "attention.pt",
    "run_distillation": "model.pt",
}


def weights(path):
    return torch.load(path, weights_only=True)


def test_one_run_trains_every_stage_and_prints_one_table(run, tmp_path, capsys):
    run()
    models = tmp_path / "out" / "models"
    assert {path.name for path in models.iterdir()} >= set(STAGES.values())
    printed = capsys.readouterr().out
    for name in ("teacher", "student, from scratch", "student, distilled"):
        assert f"| {name} " in printed
    assert str(models) in printed
    content = json.loads((tmp_path / "out" / "eval" / "metrics.json").read_text())
    assert list(content["networks"]) == ["teacher", "student, from scratch", "student, distilled"]
    assert content["settings"]["seed"] == 0
    report = (tmp_path / "out" / "eval" / "report.html").read_text()
    assert "student, distilled, before stage 1" in report
    assert "stage 2, distillation" in (tmp_path / "out" / "eval" / "log.txt").read_text()


def test_stages_run_alone_leave_the_same_as_one_run(run, trained_once, tmp_path):
    for run_id in STAGES:
        run(run_id=run_id)
    for file in STAGES.values():
        one, other = (weights(folder / "models" / file) for folder in (trained_once, tmp_path / "out"))
        assert all(torch.equal(value, other[name]) for name, value in one.items()), file


def test_stages_follow_the_checkpoints_they_are_given(run, trained_once, tmp_path):
    shutil.copy(trained_once / "models" / "teacher.pt", tmp_path / "elsewhere.pt")
    run(run_id="run_attention", **{"teacher#ckpt": str(tmp_path / "elsewhere.pt")})
    shutil.move(tmp_path / "out" / "models" / "attention.pt", tmp_path / "prior.pt")
    run(
        run_id="run_distillation",
        **{"teacher#ckpt": str(tmp_path / "elsewhere.pt"), "attention#ckpt": str(tmp_path / "prior.pt")},
    )
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


def test_baseline_and_distilled_student_start_alike_and_train_as_long(workflow):
    flow = workflow("train.json", **{"attention#epochs": 2, "train#epochs": 3})
    flow.initialize()
    student = flow.parser.get_parsed_content("student").state_dict()
    baseline = flow.parser.get_parsed_content("baseline#network").state_dict()
    assert all(torch.equal(value, baseline[name]) for name, value in student.items())
    assert flow.parser.get_parsed_content("baseline#trainer").state.max_epochs == 5


def test_a_new_run_is_never_resumed_with_the_stages_of_an_older_one(run, trained, training, tmp_path):
    older = weights(trained / "models" / "model.pt")
    with pytest.raises(RuntimeError):  # the new run ends after its teacher
        run(seed=1, run_baseline="$1 / 0")
    run(seed=1, resume=True, **training)
    run(seed=1, output_dir=str(tmp_path / "whole"), **training)
    resumed, whole = (weights(tmp_path / name / "models" / "model.pt") for name in ("out", "whole"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert any(not torch.equal(value, resumed[name]) for name, value in older.items())


@pytest.mark.usefixtures("trained")
def test_a_mistake_found_before_training_leaves_what_can_be_resumed(run, tmp_path):
    with pytest.raises(RuntimeError):
        run(dataset_dir="/nowhere")
    assert len(list((tmp_path / "out" / "models").glob("*_resume.pt"))) == len(STAGES)


def test_another_seed_gives_another_student(workflow):
    firsts = []
    for seed in (0, 0, 1):
        flow = workflow("train.json", seed=seed)
        flow.initialize()
        firsts.append(flow.parser.get_parsed_content("student").conv1.weight)
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])


def test_train_json_has_every_property_that_monai_asks_for(workflow, bundle_dir):
    flow = workflow("train.json")
    flow.initialize()
    assert flow.check_properties() == []
    assert isinstance(flow.trainer, DistillationTrainer)
    assert flow.trainer.network is flow.parser.get_parsed_content("student")
    assert isinstance(flow.parser.get_parsed_content("attention#trainer"), AttentionTransferTrainer)
    assert type(flow.parser.get_parsed_content("teacher#trainer")) is SupervisedTrainer


def test_defaults_are_the_real_sizes(workflow, bundle_dir, tiny):
    flow = workflow("train.json")
    for key in tiny:  # back to what the file says
        flow.parser[key] = _item(json.loads((bundle_dir / "configs" / "train.json").read_text()), key)
    flow.initialize()
    get = flow.parser.get_parsed_content
    assert get("image_shape") == [1, 128, 128]
    assert sum(p.numel() for p in get("teacher#network").parameters()) == pytest.approx(23.5e6, rel=0.01)
    assert sum(p.numel() for p in get("student").parameters()) < 0.8e6


def _item(config, key):
    for part in key.split("#"):
        config = config[part]
    return config


@pytest.mark.parametrize("size", [(40, 48), (48, 40)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_frame_reaches_the_network_upright_and_grey_whatever_its_file(workflow, tmp_path, size, mode):
    pixels = np.zeros(size, np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = 200  # upper left
    pixels[: size[0] // 2, size[1] // 2 :] = 100  # upper right
    Image.fromarray(pixels).convert(mode).save(tmp_path / "frame.png")
    flow = workflow("train.json")
    flow.initialize()
    image = flow.parser.get_parsed_content("validate#preprocessing")({"image": str(tmp_path / "frame.png")})["image"]
    assert image.shape == (1, 32, 32)
    height, width = (round(32 * side / max(size)) for side in size)  # as high to wide as it was, black around
    top, left = (32 - height) // 2, (32 - width) // 2
    picture = image[0, top : top + height, left : left + width]
    assert picture.count_nonzero() == image.count_nonzero()
    ends = (
        [slice(2, height // 2 - 2), slice(height // 2 + 2, -2)],
        [slice(2, width // 2 - 2), slice(width // 2 + 2, -2)],
    )
    quarters = [picture[rows, columns].mean().item() * 255 for rows in ends[0] for columns in ends[1]]
    assert quarters == pytest.approx([200, 100, 0, 0], abs=1)


def test_training_prepares_frames_as_inference_does_before_it_varies_them(workflow, frames_dir):
    get = {}
    for configs, item in ((("train.json",), "train#preprocessing"), (("inference.json",), "preprocessing")):
        given = {"ckpt": __file__} if "inference.json" in configs else {}
        flow = workflow(*configs, image_size=[32, 32], **given)
        flow.parser["dataset_dir"] = str(frames_dir if "inference.json" in configs else frames_dir / "planes.csv")
        flow.initialize()
        get[item] = flow.parser.get_parsed_content(item)
    path = str(frames_dir / "test_3_0.png")
    own = list(get["train#preprocessing"].transforms)
    fixed = len(get["preprocessing"].flatten().transforms)
    frame = get["preprocessing"]({"image": path})["image"]
    first = {"image": path}
    for transform in own[:fixed]:
        first = transform(first)
    assert torch.equal(frame.as_tensor(), first["image"].as_tensor())


def _break(overrides):
    return lambda folder: overrides


def _damaged(folder):
    shutil.copytree(folder.parent / "frames", folder / "frames")
    path = folder / "frames" / "train_2_0.png"
    path.write_bytes(path.read_bytes()[:60])
    return {"dataset_dir": str(folder / "frames" / "planes.csv")}


def _foreign_label(folder):
    shutil.copytree(folder.parent / "frames", folder / "frames")
    table = folder / "frames" / "planes.csv"
    table.write_text(table.read_text().replace("Fetal femur", "Fetal foot"))
    return {"dataset_dir": str(table), "class_names": list(PLANE_NAMES)}


def _empty(folder):
    (folder / "datalist.json").write_text('{"training": []}')
    return {"dataset_dir": str(folder)}


def _foreign_teacher(folder):
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "resnet.pt")
    return {"teacher#ckpt": str(folder / "resnet.pt"), "run_id": "run_attention"}


def _class_counts(folder):
    return {"teacher#network_def#num_classes": 5}


def _file_as_folder(folder):
    (folder / "file").touch()
    return {"output_dir": str(folder / "file")}


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (_break({"dataset_dir": "/nowhere/frames"}), "The dataset '/nowhere/frames' does not exist"),
        (_empty, "has no frames in 'training'"),
        (_damaged, r"The frame '.*train_2_0\.png' cannot be read"),
        (_foreign_label, r"The label 'Fetal foot' of '.*' is outside the class table"),
        (_foreign_teacher, r"The checkpoint '.*resnet\.pt' belongs to another network"),
        (_break({"run_id": "run_attention"}), r"The checkpoint '.*teacher\.pt' does not exist"),
        (_class_counts, r"The teacher gives logits of shape \(1, 5\) for a frame, but there are 6 classes"),
        (_break({"layers": ["layer7"]}), "no layer 'layer7' in ResNet; near names"),
        (_break({"teacher#lr": 1e30}), "teacher: the loss is not finite in epoch 1"),
        (_break({"teacher#lr": float("inf")}), "'teacher#lr' must be a number above 0"),
        (_break({"teacher#epoch": 1}), "teacher#epochs"),
        (_break({"layers": ["layer1", "layer4"]}), "'layer4' cannot be compared with the teacher's"),
        (_break({"device": "cuda:7"}), "The device 'cuda:7' was asked for, but there are"),
        (_file_as_folder, "The folder '.*file.eval' cannot be written"),
        (_break({"bundle_root": "/nowhere"}), "There is no config '/nowhere/configs/inference.json'"),
    ],
)
def test_a_mistake_ends_in_one_sentence_and_loses_nothing(run, frames_dir, tmp_path, capsys, prepare, sentence):
    shutil.copytree(frames_dir, tmp_path / "frames")
    (tmp_path / "case").mkdir()
    models = tmp_path / "out" / "models"
    models.mkdir(parents=True)
    (models / "model.pt").write_text("the student of last week")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the sentence is checked below
        run(**prepare(tmp_path / "case"))
    capsys.readouterr()
    told_plainly(caught.type, caught.value, caught.tb)  # what the interpreter does at the end of the command
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert re.search(sentence, told), told
    assert (models / "model.pt").read_text() == "the student of last week"


def test_quiet_keeps_the_table_and_drops_the_rest(run, measured, tmp_path, capsys):
    run(quiet=True, **measured)
    printed = capsys.readouterr().out
    assert "| teacher " in printed
    assert "epoch" not in printed
    assert "epoch" in (tmp_path / "out" / "eval" / "log.txt").read_text()


def test_a_mistake_on_the_command_line_exits_with_an_error(command, tmp_path):
    done = command(tmp_path / "out", "--dataset_dir", str(tmp_path / "nowhere"))
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: The dataset")
    assert "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "out" / "eval" / "log.txt").read_text()


@pytest.mark.slow
def test_a_run_killed_anywhere_and_resumed_ends_as_one_that_was_not(command, arguments, tmp_path):
    """SIGKILL after each stage has been seen at work, then the same command with --resume true."""
    epochs = ["--teacher#epochs", "2", "--attention#epochs", "2", "--train#epochs", "2"]
    whole = command(tmp_path / "whole", *epochs)
    assert whole.returncode == 0, whole.stderr
    resume: list[str] = []
    for stage in (
        "teacher  epoch 1/2",
        "student, from scratch  epoch 2/4",
        "attention  epoch 1/2",
        "distillation  epoch 1/2",
    ):
        process = subprocess.Popen(
            arguments(tmp_path / "killed", *epochs, *resume),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = tmp_path / "killed" / "eval" / "log.txt"
        deadline = time.monotonic() + 120
        while not (log.is_file() and stage in log.read_text()):
            assert time.monotonic() < deadline, stage
            assert process.poll() is None, stage
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resume = ["--resume", "true"]
    done = command(tmp_path / "killed", *epochs, *resume)
    assert done.returncode == 0, done.stderr
    for file in STAGES.values():
        one, other = (weights(tmp_path / folder / "models" / file) for folder in ("whole", "killed"))
        assert all(torch.equal(value, other[name]) for name, value in one.items()), file
