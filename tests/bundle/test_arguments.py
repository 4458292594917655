"""A slip in an argument's name, and a value of another kind, are told before anything is trained."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from monai_fetalkd.bundle.arguments import check_arguments, check_names, read_values, set_items

CONFIG = {
    "imports": ["$import os"],
    "output_dir": "out",
    "image_size": [64, 64],
    "epochs": 3,
    "teacher": {"epochs": 5, "lr": 0.1, "loss": {"_target_": "torch.nn.CrossEntropyLoss"}},
    "initialize": [
        {"_target_": "monai_fetalkd.bundle.arguments.check_arguments"},
        "$print('folder', repr(@output_dir))",
    ],
    "run": ["$print('trained', @epochs, @image_size, @teacher#epochs, @teacher#lr, @teacher#loss)"],
    "run_alone": ["$print(@teacher#epochs)"],
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "configs" / "train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def run(config, monkeypatch):

    def go(*overlays, run_id="run", **overrides):
        flow = ConfigWorkflow([str(config), *map(str, overlays)], logging_file=False, run_id=run_id, **overrides)
        flow.initialize()
        return flow

    return go


def cause(caught):
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    return error


SLIPS = [
    ("teacher#epoch", 7, "teacher#epochs"),
    ("max_epochs", 7, "epochs"),
    ("imagesize", [32, 32], "image_size"),
    ("imagesize", "$[32, 32]", "image_size"),
    ("noresume", True, None),
    ("run_ids", "run_alone", "run_id"),
    ("teachers", {"epochs": 7}, "teacher#epochs"),
    ("trainer", {"_target_": "torch.nn.ReLU"}, None),
    ("teacher#loss#label_smoothin", 0.1, "label_smoothing"),
]


@pytest.mark.parametrize(("item", "value", "near"), SLIPS)
def test_a_slip_in_a_name_is_told_with_near_names(run, item, value, near):
    with pytest.raises(RuntimeError) as caught:
        run(**{item: value})
    told = str(cause(caught))
    assert isinstance(cause(caught), ValueError)
    assert item.rpartition("#")[2] in told
    assert near is None or near in told.partition("near names")[2]


def test_all_slips_are_told_at_once(run):
    with pytest.raises(RuntimeError) as caught:
        run(imagesize=3, max_epochs=4)
    assert "'imagesize'" in str(cause(caught))
    assert "'max_epochs'" in str(cause(caught))


def test_a_slip_in_an_overlay_is_told(run, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"+teacher": {"epoch": 7}}))
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path / "mine.json")
    assert "'teacher#epoch'" in str(cause(caught))


def test_an_overlay_may_add_what_it_refers_to(run, tmp_path):
    mine = {"half": 0.5, "options": {"lr": "$@half * 0.1"}, "teacher#lr": "@options#lr", "run_mine": ["$print(@half)"]}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    run(tmp_path / "mine.json", run_id="run_mine")


def test_a_default_may_be_of_no_use_any_more(run, capsys):
    run(**{"run": ["$print('nothing else')"]}).run()
    assert "nothing else" in capsys.readouterr().out


def test_an_argument_may_be_of_no_use_beside_another(run):
    run(**{"run": ["$print('nothing else')"], "teacher#lr": 0.2})


@pytest.mark.parametrize(
    "other", ['{"split": "testing", "ckpt": "model.pt", "run": ["$print(@split, @ckpt)"]}', "no config"]
)
def test_an_item_of_a_config_that_is_not_read_is_a_slip(run, config, other):
    config.with_name("evaluate.json").write_text(other)
    with pytest.raises(RuntimeError) as caught:
        run(ckpt="model.pt")
    assert "'ckpt'" in str(cause(caught))


@pytest.mark.parametrize(
    "configs",
    [
        "train",
        "train phantom ultrasound",
        "train evaluate multi_gpu_evaluate",
        "train export",
        "train qat",
        "train multi_gpu_train",
        "train federated",
        "inference",
        "inference ultrasound",
        "inference inference_trt",
    ],
)
def test_the_configs_of_the_bundle_are_right(project_dir, configs):
    folder = project_dir / "bundle" / "configs"
    parser = ConfigParser()
    parser.read_config([folder / f"{name}.json" for name in configs.split()])
    check_names(parser, folder)
    read_values(parser.get())


@pytest.mark.parametrize("name", ["run_id", "init_id", "tracking_uri", "experiment_name", "run_name"])
def test_what_monai_reads_itself_is_no_slip(config, name):
    parser = ConfigParser(json.loads(config.read_text()) | {name: "x"} if "id" not in name[-2:] else CONFIG.copy())
    check_names(parser, config.parent)


def test_an_item_to_run_that_is_not_there_is_told_before_the_run(run):
    with pytest.raises(RuntimeError) as caught:
        run(run_id="run_alon")
    assert "run_alone" in str(cause(caught))


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("teacher#epochs", "two"),
        ("teacher#epochs", 0),
        ("teacher#epochs", 1.5),
        ("teacher#epochs", True),
        ("teacher#lr", "fast"),
        ("teacher#lr", float("nan")),
        ("teacher#lr", -1),
        ("batch_size", "abc"),
        ("num_workers", -1),
        ("at_weight", "0.5 "),
        ("temperature", 0),
        ("views", 1.5),
        ("bootstrap_repeats", 0),
        ("threads", 0),
        ("device", "gpu"),
        ("image_size", 64),
        ("image_size", "64 64"),
        ("image_size", [64, 0]),
        ("layers", "layer4"),
        ("layers", []),
        ("resume", "yes"),
        ("max_skipped", 5),
        ("output_dir", None),
        ("dataset_dir", ["a"]),
        ("teacher#ckpt", True),
        ("optimizer", {"_target_": "torch.optim.SGD", "lr": "fast"}),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_name(item, value):
    parser = ConfigParser({"teacher": {}})
    parser[item] = value
    with pytest.raises(ValueError, match="must be") as caught:
        read_values(parser.get())
    assert f"'{item}" in str(caught.value)


@pytest.mark.parametrize(
    ("item", "value", "read"),
    [
        ("output_dir", 20250101, "20250101"),
        ("dataset_dir", 1.5, "1.5"),
        ("resume", "false", False),
        ("resume", "True", True),
        ("image_size", (64, 32), [64, 32]),
        ("layers", ("layer3",), ["layer3"]),
    ],
)
@pytest.mark.parametrize("words", [[], ["run", "--seed", "1"]], ids=["no words", "other words"])
def test_what_the_command_line_makes_of_a_value_is_mended(monkeypatch, words, item, value, read):
    monkeypatch.setattr(sys, "argv", ["program", *words])
    assert read_values({item: value}) == {item: read}


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("threads", None),
        ("cache_dir", None),
        ("start_from", None),
        ("dataset_dir", {"_target_": "make", "folder": "@output_dir"}),
        ("device", torch.device("cpu")),
        ("device", "$torch.device('cpu')"),
        ("ckpt", "@other"),
        ("network_def", {"_target_": "student", "layers": [1, 1, 1, 1], "temperature": None}),
    ],
)
def test_a_value_that_is_right_stays_as_it_is(item, value):
    assert read_values({item: value}) == {}


def test_a_home_folder_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    assert read_values({"output_dir": "~/runs"}) == {"output_dir": "/home/someone/runs"}


@pytest.mark.parametrize("words", [["--output_dir", "2025_01_01"], ["--output-dir=2025_01_01"]])
def test_a_folder_that_looks_like_a_number_keeps_its_name(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["run", *words])
    assert read_values({"output_dir": 20250101}) == {"output_dir": "2025_01_01"}


def test_changed_values_reach_the_run(run, capsys):
    run(output_dir=20250101)
    assert "folder '20250101'" in capsys.readouterr().out


def test_it_works_for_workflows_made_from_python(config, monkeypatch):
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=str(config), logging_file=False, **{"teacher#epoch": 1})
    assert "teacher#epochs" in str(cause(caught))


@pytest.mark.parametrize(("item", "value"), [("teacher#epoch", "7"), ("teacher#epochs", "two"), ("output_dir", "True")])
def test_on_the_command_line_it_is_one_sentence(config, monai_command, item, value):
    told = monai_command("run", "--config_file", config, f"--{item}", value)
    assert "Traceback" not in told
    assert told.strip().splitlines()[-1].startswith(f"error: {'Nothing uses ' if value == '7' else ''}'{item}'")


def test_it_is_for_configs_alone():
    with pytest.raises(RuntimeError, match="initialize"):
        check_arguments()


def test_a_section_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="teacher"):
        set_items(ConfigParser({"teacher": {"epochs": 3}}), {"techer#epochs": 1})
