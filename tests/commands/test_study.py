from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from monai_fetalkd.__main__ import main
from monai_fetalkd.evaluation.scores.predictions import read_predictions
from monai_fetalkd.evaluation.study import workers as workers_of_studies
from monai_fetalkd.ultrasound.data import PLANE_NAMES
from monai_fetalkd.ultrasound.data.datalist import load_datalist

TINY = {
    "image_size": [32, 32],
    "layers": ["layer1", "layer2", "layer3"],
    "batch_size": 6,
    "device": "cpu",
    "views": 2,
    "network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 2, "layers": [1, 1, 1, 1]},
    "teacher#network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 4, "layers": [1, 1, 1, 1]},
    "teacher#epochs": 1,
    "attention#epochs": 1,
    "train#epochs": 1,
}
ARMS = {
    "teacher": {"stage": "teacher"},
    "soft targets alone": {"stage": "train", "teacher": "teacher", "set": {"at_weight": 0, "train#epochs": 2}},
    "stage 1": {"stage": "attention", "teacher": "teacher", "scored": False},
    "two stages": {"stage": "train", "teacher": "teacher", "start_from": "stage 1"},
}


@pytest.fixture(scope="module", autouse=True)
def workers(processes):
    """Workers from the server of the tests begin as those that are spawned do, without importing torch anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers_of_studies, "multiprocessing", SimpleNamespace(get_context=lambda method: processes))
        yield


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Noise, brighter from class to class, of three patients a class with two frames each."""
    folder = tmp_path_factory.mktemp("frames")
    generator = np.random.default_rng(0)
    lines = ["image,label,patient_id,split"]
    for label, name in enumerate(PLANE_NAMES):
        for patient, split in enumerate(("train", "val", "test")):
            for number in range(2):
                pixels = np.clip(generator.normal(30 + 35 * label, 20, (32, 32)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{label}_{patient}_{number}.png")
                lines.append(f"{label}_{patient}_{number}.png,{name},mrn {label} {patient},{split}")
    (folder / "planes.csv").write_text("\n".join(lines))
    return folder / "planes.csv"


@pytest.fixture(scope="module")
def write_study(project_dir, tmp_path_factory):
    """Writes a study of tiny networks and gives its path."""
    folder = tmp_path_factory.mktemp("studies")

    def write(name, arms=ARMS, tiny=TINY, **changes):
        content = {
            "configs": [str(project_dir / "bundle" / "configs" / "train.json")],
            "bundle_root": str(project_dir / "bundle"),
            "set": tiny,
            "references": ["soft targets alone"] if "soft targets alone" in arms else [],
            "arms": arms,
            **changes,
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
        return folder / f"{name}.json"

    return write


@pytest.fixture(scope="module")
def finished(write_study, frames, tmp_path_factory):
    """A finished study: its file and its folder."""
    output = tmp_path_factory.mktemp("finished")
    path = write_study("finished")
    assert main(["study", str(path), "--output_dir", str(output), "--repeats", "20", "--dataset_dir", str(frames)]) == 0
    return path, output


def result_of(output, arm, split="split"):
    return json.loads((output / split / "seed_0" / arm / "result.json").read_text())


def files(output, pattern):
    return {path.relative_to(output): path.read_bytes() for path in sorted(output.rglob(pattern))}


def test_every_arm_is_trained_and_evaluated(finished):
    _, output = finished
    for arm in ("teacher", "soft_targets_alone", "two_stages"):
        for split in ("testing", "validation"):
            predictions = read_predictions(output / "split" / "seed_0" / arm / f"{split}.csv")
            rows = load_datalist(output / "data" / "split.json", PLANE_NAMES).section(split)
            assert [file.rpartition("/")[2] for file in predictions.files] == [
                row["image"].rpartition("/")[2] for row in rows
            ]
    assert not (output / "split" / "seed_0" / "stage_1" / "testing.csv").exists()
    assert not list(output.rglob("*_resume.pt"))
    assert "epoch 2/2" in (output / "split" / "seed_0" / "soft_targets_alone" / "eval" / "log.txt").read_text()


def test_students_start_alike_and_take_as_many_steps(finished):
    _, output = finished
    results = {arm: result_of(output, arm) for arm in ("soft_targets_alone", "stage_1", "two_stages")}
    assert len({result["initial_weights"] for result in results.values()}) == 1
    assert result_of(output, "teacher")["initial_weights"] != results["stage_1"]["initial_weights"]
    assert results["soft_targets_alone"]["steps"] == results["stage_1"]["steps"] + results["two_stages"]["steps"] == 4


def test_all_students_of_a_teacher_share_its_targets(finished):
    _, output = finished
    assert len(list((output / "split" / "seed_0" / "_targets").iterdir())) == 1


def test_the_table_is_printed_and_written(finished, capsys):
    path, output = finished
    assert main(["study", str(path), "--output_dir", str(output), "--repeats", "20", "--table"]) == 0
    printed = capsys.readouterr().out
    table = (output / "table.md").read_text()
    assert table.strip() in printed
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["teacher", "soft targets alone", "two stages"]
    written = json.loads((output / "study.json").read_text())
    predictions = read_predictions(output / "split" / "seed_0" / "teacher" / "testing.csv")
    accuracy = (predictions.probabilities.argmax(1) == predictions.labels).mean()
    assert written["arms"]["teacher"]["metrics"]["accuracy"]["value"] == accuracy
    assert written["versions"][0]["torch"] == torch.__version__


def test_a_finished_study_is_not_run_again_and_more_arms_may_join(finished, write_study, frames, capsys):
    _, output = finished
    before = files(output, "model.pt")
    more = write_study("more", {**ARMS, "from scratch": {"stage": "baseline"}})
    assert main(["study", str(more), "--output_dir", str(output), "--repeats", "20", "--dataset_dir", str(frames)]) == 0
    printed = capsys.readouterr().out
    assert "4 of 5" in printed
    assert "[5/5] seed 0, from scratch: accuracy " in printed
    after = files(output, "model.pt")
    assert {name: after[name] for name in before} == before
    assert result_of(output, "from_scratch")["initial_weights"] == result_of(output, "two_stages")["initial_weights"]
    assert result_of(output, "from_scratch")["steps"] == 4


@pytest.mark.parametrize(
    ("arms", "tiny", "changed"),
    [
        (ARMS, TINY | {"temperature": 2.0}, "'set'"),
        (ARMS | {"stage 1": {**ARMS["stage 1"], "set": {"attention#lr": 0.1}}}, TINY, "'set'"),
        (ARMS | {"two stages": {"stage": "train", "teacher": "teacher"}}, TINY, "'start_from'"),
    ],
)
def test_other_settings_are_refused(finished, write_study, frames, capsys, arms, tiny, changed):
    _, output = finished
    path = write_study("other", arms, tiny)
    assert main(["study", str(path), "--output_dir", str(output), "--repeats", "20", "--dataset_dir", str(frames)]) == 1
    assert f"({changed} changed)" in capsys.readouterr().err


def test_other_data_are_refused(finished, frames, capsys):
    path, output = finished
    rows = frames.read_text().replace(f",{PLANE_NAMES[0]},mrn 0 0,", f",{PLANE_NAMES[1]},mrn 0 0,")
    other = frames.with_name("other.csv")
    other.write_text(rows)
    assert main(["study", str(path), "--output_dir", str(output), "--repeats", "20", "--dataset_dir", str(other)]) == 1
    assert "same data, or another output_dir" in capsys.readouterr().err


def test_a_failing_cell_is_named_in_one_sentence_and_finished_cells_stay(write_study, frames, tmp_path, capsys):
    arms = {
        "teacher": {"stage": "teacher"},
        "bad": {"stage": "train", "teacher": "teacher", "set": {"on_error": "pass"}},
    }
    path = write_study("failing", arms)
    command = ["study", str(path), "--output_dir", str(tmp_path), "--dataset_dir", str(frames)]
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: seed 0, bad: ")
    assert "on_error" in error
    assert str(tmp_path / "split" / "seed_0" / "bad" / "output.txt") in error
    assert "Traceback" in (tmp_path / "split" / "seed_0" / "bad" / "output.txt").read_text()
    assert (tmp_path / "split" / "seed_0" / "teacher" / "result.json").is_file()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"stage": "finetune"}, "no stage 'finetune'"),
        ({"stage": "baseline", "start_from": "teacher"}, "'baseline' has no 'start_from'"),
    ],
)
def test_a_stage_that_the_configs_do_not_have_is_told(write_study, frames, tmp_path, capsys, arm, message):
    path = write_study("stage", {"teacher": {"stage": "teacher"}, "other": arm})
    assert main(["study", str(path), "--output_dir", str(tmp_path), "--dataset_dir", str(frames)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"at_weigth": 0}, "at_weight"),
        ({"train#epoch": 3}, "train#epochs"),
        ({"trian#epochs": 3}, "train"),
        ({"train#epochs": "three"}, "train#epochs"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_slip_in_what_an_arm_sets_is_told_before_any_arm_is_trained(
    write_study, frames, tmp_path, capsys, change, told
):
    arms = {"teacher": {"stage": "teacher"}, "bad": {"stage": "train", "teacher": "teacher", "set": change}}
    path = write_study("slip", arms)
    assert main(["study", str(path), "--output_dir", str(tmp_path / "out"), "--dataset_dir", str(frames)]) == 1
    said = capsys.readouterr().err
    assert "'bad'" in said
    assert told in said
    assert not list((tmp_path / "out").rglob("settings.json"))


def test_a_folder_that_cannot_be_written_is_told_before_the_work(write_study, frames, tmp_path, capsys):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert main(["study", str(write_study("nowhere")), "--output_dir", str(output), "--dataset_dir", str(frames)]) == 1
    assert str(output) in capsys.readouterr().err


@pytest.mark.slow
def test_folds_of_the_phantom_that_is_made_once(write_study, project_dir, tmp_path):
    configs = [str(project_dir / "bundle" / "configs" / name) for name in ("train.json", "phantom.json")]
    tiny = TINY | {"dataset_dir#train": 24, "dataset_dir#val": 6, "dataset_dir#test": 6}
    path = write_study("phantom", {"teacher": {"stage": "teacher"}}, tiny, configs=configs, folds=3, seeds=[0, 1])
    assert main(["study", str(path), "--output_dir", str(tmp_path), "--jobs", "2"]) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 36
    for seed in (0, 1):
        tested = [
            read_predictions(tmp_path / f"fold_{fold}" / f"seed_{seed}" / "teacher" / "testing.csv")
            for fold in range(3)
        ]
        assert len({file for table in tested for file in table.files}) == 36


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_the_same(finished, frames, project_dir, tmp_path):
    path, whole = finished
    command = [sys.executable, "-m", "monai_fetalkd", "study", str(path), "--output_dir", str(tmp_path)]
    command += ["--dataset_dir", str(frames), "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(project_dir)}
    for written in ("teacher/model_resume.pt", "stage_1/result.json", "two_stages/model_resume.pt"):
        process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "split" / "seed_0" / written).exists():
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    for pattern in ("testing.csv", "validation.csv"):
        expected = {name: text for name, text in files(whole, pattern).items() if name.parts[2] != "from_scratch"}
        for name, text in files(tmp_path, pattern).items():
            assert columns(text) == columns(expected.pop(name)), name
        assert not expected


def columns(text):
    """Predictions without the pseudonyms, which are new in every folder."""
    return [line.split(",")[:1] + line.split(",")[2:] for line in text.decode().splitlines()]
