from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.__main__ import main


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


@pytest.mark.parametrize("command", [[], ["paint"], ["datalist", "x"]])
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
    assert "duplicates across sections: 0 exact, 0 near" in capsys.readouterr().out
