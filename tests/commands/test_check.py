from __future__ import annotations

import json

import pytest
from PIL import Image

from monai_fetalkd.__main__ import main
from monai_fetalkd.ultrasound.data import phantom_frame


@pytest.fixture
def datalist(tmp_path):
    """Writes a datalist of four frames with these groups and gives its path."""
    frames = [phantom_frame(number % 2, rng=number, size=96) for number in range(4)]

    def write(groups=("p1", "p2", "p3", "p4"), same=False):
        rows = []
        for number, group in enumerate(groups):
            frame = frames[0] if same and number == 2 else frames[number]
            Image.fromarray(frame).save(tmp_path / f"{number}.png")
            rows.append({"image": f"{number}.png", "label": number % 2, "group": group, "source": "phantom"})
        path = tmp_path / "planes.json"
        content = {"labels": {"0": "abdomen", "1": "brain"}, "training": rows[:2], "testing": rows[2:]}
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_a_sound_datalist_passes_and_its_tables_are_printed(datalist, capsys):
    assert main(["check", datalist(groups=("p1", "p1", "p2", "p2")), "--workers", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["class", "training", "testing", "all"]
    assert out[1].split() == ["abdomen", "1", "1", "2"]
    assert out[4].split() == ["groups", "1", "1", "2"]
    assert out[-1] == "0 problems"


def test_a_datalist_that_training_refuses_is_reported_on(datalist, capsys, tmp_path):
    source, output = datalist(groups=("p1", "p2", "p1", "p3"), same=True), tmp_path / "report.json"
    assert main(["check", source, "--output", str(output), "--workers", "2"]) == 1
    out = capsys.readouterr().out
    assert "2 problems:" in out
    assert "1 exact, 0 near" in out
    torn, exact = json.loads(output.read_text(encoding="utf-8"))["problems"]
    assert f"is in training ('{tmp_path / '0.png'}') and testing ('{tmp_path / '2.png'}')." in torn
    assert exact.endswith("are the same frame.")


def test_without_duplicates_balance_and_groups_are_checked_alone(datalist, capsys):
    assert main(["check", datalist(same=True), "--no_duplicates"]) == 0
    captured = capsys.readouterr()
    assert "duplicates" not in captured.out
    assert "frames:" not in captured.err


def test_near_duplicates_can_be_judged_more_strictly(datalist, tmp_path):
    source = datalist(groups=("p1", "p1", "p2", "p2"))
    Image.open(tmp_path / "0.png").point(lambda level: 255 * (level / 255) ** 0.7).save(tmp_path / "2.png")
    assert main(["check", source, "--workers", "1"]) == 1
    assert main(["check", source, "--workers", "1", "--min_correlation", "0.999"]) == 0


@pytest.mark.parametrize(
    ("option", "value"), [("workers", "0"), ("min_correlation", "0"), ("min_correlation", "1.1"), ("workers", "-1")]
)
def test_values_out_of_range_are_told_in_one_sentence(datalist, option, value, capsys):
    assert main(["check", datalist(), f"--{option}={value}"]) == 1
    assert f"error: {option} must be " in capsys.readouterr().err


def test_a_source_that_does_not_exist_is_told_in_one_sentence(capsys):
    assert main(["check", "/nowhere/planes.json"]) == 1
    assert "'/nowhere/planes.json'" in capsys.readouterr().err


def test_anything_but_a_datalist_is_read_whatever_the_case_of_its_columns(datalist, tmp_path, capsys):
    datalist()
    lines = [f"./{number}.png;{'brain' if number % 2 else 'femur'};p{number};train" for number in range(4)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["sep=;", "IMAGE;Label;Patient ID;Split", *lines]).replace("./", ".\\"))
    assert main(["check", str(table), "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "brain"
