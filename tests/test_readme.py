from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from monai_fetalkd.__main__ import main


def blocks(project_dir, language, page="README.md"):
    return re.findall(rf"^```{language}\n(.*?)^```", (project_dir / page).read_text(), re.DOTALL | re.MULTILINE)


def test_the_example_of_the_readme_runs(project_dir, capsys):
    names: dict = {}
    (example,) = blocks(project_dir, "python")
    exec(example, names)
    assert {"loss", "ce", "kd"} <= names["trainer"].state.output.keys()
    assert re.fullmatch(r"loss \d\.\d\d ce \d\.\d\d kd \d\.\d\d\n", capsys.readouterr().out)


def test_the_readme_stays_short(project_dir):
    assert len((project_dir / "README.md").read_text().splitlines()) <= 110


def test_factors_of_other_code_are_those_of_the_page(project_dir):
    names: dict = {}
    for example in blocks(project_dir, "python", "docs/translation.md"):  # each compares both sides
        exec(example, names)
    assert names["P"] == 14 * 14


def test_the_example_of_the_page_on_the_phantom_runs(project_dir, capsys):
    for example in blocks(project_dir, "python", "docs/phantom.md"):
        exec(example, {})
    assert capsys.readouterr().out == "Fetal brain\n"


def test_the_first_two_commands_install_and_run(project_dir):
    first, second = blocks(project_dir, "bash")[:2]
    for command, extra, what in ((first, "bundle", "python -m monai.bundle run"), (second, "test", "python -m pytest")):
        install, then = command.strip().splitlines()
        assert install == f'python -m pip install -c constraints.txt -e ".[{extra}]"'
        assert then.startswith(what)


def test_the_example_of_the_page_on_data_runs(project_dir, capsys):
    for example in blocks(project_dir, "python", "docs/data.md"):
        exec(example, {})
    assert capsys.readouterr().out == "0 0.0 (240, 320)\n"


def test_the_examples_of_the_page_on_distillation_run(project_dir):
    pytest.importorskip("einops")
    names: dict = {}
    for example in blocks(project_dir, "python", "docs/distil.md"):
        exec(example, names)
    assert "at_layer2" in names["stage_1"]
    for output in ("stage_2", "deep", "sigmoid", "regression", "hints", "ensemble", "half_labelled", "soft_labels"):
        assert names[output]["kd"] > 0, output
    assert names["deep"]["pred"].shape == (2, 3, 16, 16, 16)
    assert {"hint", "at"} <= names["hints"].keys()


@pytest.mark.slow  # two thousand resamples
def test_the_example_of_the_page_on_evaluation_prints_what_the_page_shows(project_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for example in blocks(project_dir, "python", "docs/evaluation.md"):
        exec(example, {})
    capsys.readouterr()
    _, head, command, printed, *_ = blocks(project_dir, "text", "docs/evaluation.md")
    assert Path("testing/forest.csv").read_text().startswith(head)
    assert main(command.split()[3:]) == 0
    assert capsys.readouterr().out == printed


PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "bundle/docs/README.md", "bundle/docs/model_card.md"]
PAGES += [f"docs/{path.name}" for path in sorted((Path(__file__).parents[1] / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_options_and_files_that_the_pages_name_are_there(project_dir, page):
    text = (project_dir / page).read_text()
    for target in re.findall(r"\[[^]]*\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (project_dir / page).parent.joinpath(target).exists(), target
    for command in re.findall(r"`?python -m monai_fetalkd (\w+)(.*)", text):
        told = subprocess.run(
            [sys.executable, "-m", "monai_fetalkd", command[0], "--help"], capture_output=True, text=True, check=True
        )
        assert all(option in told.stdout for option in re.findall(r"(--\w+)", command[1].split("`")[0]))
