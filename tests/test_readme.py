from __future__ import annotations

import re


def blocks(project_dir, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (project_dir / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_readme_run(project_dir):
    names: dict = {}
    for example in blocks(project_dir, "python"):
        exec(example, names)
    assert names["student_logits"].grad is not None
    assert [tuple(feature.shape[:2]) for feature in names["features"].values()] == [(1, 4), (1, 2)]
    assert {"loss", "ce", "kd", "at"} == names["parts"].keys()


def test_the_first_two_commands_install_and_run(project_dir):
    first, second = blocks(project_dir, "bash")[:2]
    for command, extra, what in ((first, "bundle", "python -m monai.bundle run"), (second, "test", "python -m pytest")):
        install, then = command.strip().splitlines()
        assert install == f'python -m pip install -c constraints.txt -e ".[{extra}]"'
        assert then.startswith(what)
