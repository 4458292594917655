from __future__ import annotations

import argparse
import errno
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd import __version__
from monai_fetalkd.__main__ import main

COMMANDS = ("datalist", "check", "evaluate", "study", "init", "export", "stream", "serve")


@pytest.mark.parametrize("arguments", [["--help"], ["datalist", "--help"], ["check", "--help"], ["--version"]])
def test_help_is_quick_to_have(arguments):
    code = (
        f"import sys; sys.argv[1:] = {arguments}\n"
        "from monai_fetalkd.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'monai', 'sklearn'} & sys.modules.keys()"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout
    assert not told.stderr


@pytest.mark.parametrize("command", [["datalist", "{}", "--output", "x.json"], ["check", "{}"]])
def test_what_the_user_can_mend_is_told_in_one_sentence(tmp_path, capsys, command):
    assert main([part.format(tmp_path / "nowhere") for part in command]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert "nowhere" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_its_defaults(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"python -m monai_fetalkd {command} " in told.partition("For example")[2]
    parser = argparse.ArgumentParser()
    importlib.import_module(f"monai_fetalkd.commands.{command}").add_arguments(parser)
    for action in parser._actions:
        if action.option_strings and action.default not in (None, False, [], argparse.SUPPRESS):
            shown = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            assert told.partition(f"--{action.dest} ")[2].count(f"({shown})"), action.dest


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 2
    told = capsys.readouterr().err
    assert all(f"    {command} " in told for command in COMMANDS)


def test_the_version_is_told_with_its_name(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"monai_fetalkd {__version__}\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "'a.json': Permission denied."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (MemoryError(), "memory"),
    ],
)
def test_an_error_of_the_machine_is_one_sentence(capsys, monkeypatch, error, told):
    def fail(arguments):
        try:
            raise error
        except OSError as full:
            if full.errno == errno.ENOSPC:  # as torch does
                raise RuntimeError("unexpected pos") from full
            raise

    monkeypatch.setattr("monai_fetalkd.commands.init.run", fail)
    assert main(["init", "x"]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fail(arguments):
        raise RuntimeError("bug")

    monkeypatch.setattr("monai_fetalkd.commands.init.run", fail)
    with pytest.raises(RuntimeError, match="bug"):
        main(["init", "x"])


@pytest.mark.parametrize(
    "command",
    [
        ["study", "s.json", "--output_dir", "o", "--jobs", "0"],
        ["study", "s.json", "--output_dir", "o", "--repeats", "none"],
        ["study", "s.json", "--output_dir", ""],
        ["export", "--config_file", "a", "--ckpt", "b", "--output_dir", "o", "--agreement", "98"],
    ],
)
def test_a_value_of_another_kind_exits_with_status_2(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert command[-2] in capsys.readouterr().err


def test_a_home_folder_is_found(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["init", "~/liver"]) == 0
    assert (tmp_path / "liver" / "configs" / "train.json").is_file()


@pytest.mark.parametrize("command", [["paint"], ["datalist", "x"]])
def test_wrong_arguments_exit_with_status_2(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "usage: python -m monai_fetalkd" in capsys.readouterr().err


def test_from_a_folder_per_class_to_a_checked_datalist(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for name in ("brain", "femur"):
        for patient in range(8):
            folder = tmp_path / "frames" / name / f"{name}{patient}"
            folder.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 255, (64, 64), np.uint8)).save(folder / "0.png")
    datalist = tmp_path / "planes.json"
    assert main(["datalist", str(tmp_path / "frames"), "--output", str(datalist)]) == 0
    content = json.loads(datalist.read_text())
    assert {len(content[section]) > 0 for section in ("training", "validation", "testing")} == {True}
    assert main(["check", str(datalist), "--workers", "1"]) == 0
    assert "0 exact, 0 near" in capsys.readouterr().out
