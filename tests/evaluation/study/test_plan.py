from __future__ import annotations

import json

import pytest

from monai_fetalkd.evaluation.study import Arm, Study, read_study

ARMS = {
    "two stages": Arm("train", teacher="teacher", start_from="stage 1", set={"at_weight": 0}),
    "stage 1": Arm("attention", teacher="teacher", scored=False),
    "teacher": Arm("teacher"),
    "from scratch": Arm("baseline"),
}


def study(**changes):
    return Study(**{"configs": ("train.json",), "bundle_root": "bundle", "arms": ARMS, **changes})


def test_cells_come_seed_by_seed_and_each_after_those_it_starts_from(tmp_path):
    cells = list(study(seeds=(0, 1), folds=3).cells(tmp_path))
    assert len(cells) == 2 * 3 * 4
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    folders = [cell.folder for cell in cells]
    assert len(set(folders)) == len(folders)
    for cell in cells:
        assert all(folders.index(needed) < folders.index(cell.folder) for needed in cell.needs)


def test_asked_for_arms_bring_those_that_they_start_from(tmp_path):
    cells = study().cells(tmp_path, arms=["two stages"], seeds=[7])
    assert [cell.name for cell in cells] == ["seed 7, teacher", "seed 7, stage 1", "seed 7, two stages"]


def test_a_cell_overrides_the_config(tmp_path):
    cells = {cell.arm: cell for cell in study(set={"at_weight": 5, "batch_size": 2}).cells(tmp_path)}
    two_stages = cells["two stages"].overrides
    assert two_stages["teacher#ckpt"] == str(cells["teacher"].folder / "model.pt")
    assert two_stages["train#start_from"] == str(cells["stage 1"].folder / "model.pt")
    assert (two_stages["at_weight"], two_stages["batch_size"], two_stages["seed"]) == (0, 2, 0)
    assert cells["stage 1"].overrides["at_weight"] == 5
    # one store of targets and one list of frames
    for key in ("targets_dir", "dataset_dir"):
        assert two_stages[key] == cells["stage 1"].overrides[key]


def test_students_are_the_scored_arms_that_teach_nobody():
    assert study().students() == ["two stages", "from scratch"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"a": Arm("train", teacher="b")}}, "no arm 'b'.* the arms are a"),
        (
            {"arms": {"a": Arm("train", start_from="b"), "b": Arm("train", start_from="a")}},
            "start from itself: a < b < a",
        ),
        ({"references": ("stage 1",)}, "'stage 1' is not scored"),
        ({"references": ("soft",)}, "no arm 'soft'"),
        ({"folds": 2}, "folds must be 3 or more, got 2"),
        ({"arms": {"Stage 1": Arm("train"), "stage-1": Arm("train")}}, "name them apart"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)


@pytest.mark.parametrize("name", ["教师", "δάσκαλος", "Учитель", "शिक्षक", "!?", "targets", "Lehrer 2"])
def test_an_arm_of_any_name_has_a_folder_of_its_own(tmp_path, name):
    cells = list(study(arms={name: Arm("teacher"), "学生": Arm("train", teacher=name)}).cells(tmp_path))
    group = tmp_path / "split" / "seed_0"
    assert all(cell.folder.parent == group for cell in cells)
    assert len({str(cell.folder).lower() for cell in cells} | {cell.overrides["targets_dir"] for cell in cells}) == 3


def test_marks_tell_names_apart(tmp_path):
    first, second = study(arms={"किताब": Arm("teacher"), "कतब": Arm("baseline")}).cells(tmp_path)
    assert first.folder != second.folder


def test_a_seed_named_twice_is_run_once(tmp_path):
    assert [cell.seed for cell in study().cells(tmp_path, arms=["teacher"], seeds=[1, 1])] == [1]


def test_unknown_arms_are_told(tmp_path):
    with pytest.raises(ValueError, match="no arm 'thrice'"):
        list(study().cells(tmp_path, arms=["thrice"]))


@pytest.mark.parametrize("name", ["arms.json", "phantom.json"])
def test_studies_of_the_bundle_compare_what_the_article_claims(project_dir, name):
    found = read_study(project_dir / "bundle" / "studies" / name)
    assert found.references == ("soft targets alone", "teacher")
    assert len(found.seeds) >= 3
    assert {"from scratch", "attention alone", "both jointly", "two stages", "two stages, attention kept on"} < set(
        found.arms
    )
    assert found.arms["two stages"].start_from == "stage 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no valid JSON"),
        ('{"arms": {}}', "must be a JSON object with arms, bundle_root, configs"),
        ('{"configs": [], "bundle_root": ".", "arms": {}, "fold": 3}', "folds, nested, references, seeds, set"),
        ('{"configs": [], "bundle_root": ".", "arms": {"a": {"teacher": "b"}}}', "The arm 'a'.* with stage"),
        ('{"configs": [], "bundle_root": ".", "arms": []}', "'arms' must be"),
        ('{"configs": [], "bundle_root": ".", "arms": {}, "seeds": 3}', "'seeds' must be"),
        ('{"configs": [], "bundle_root": ".", "arms": {}, "seeds": ["a"]}', "'seeds' must be"),
        ('{"configs": "a.json", "bundle_root": ".", "arms": {}}', "'configs' must be"),
        ('{"configs": [], "bundle_root": ".", "arms": {}, "folds": "5"}', "'folds' must be"),
        ('{"configs": [], "bundle_root": ".", "arms": {"a": {"stage": "t", "set": 3}}}', "The arm 'a'.*'set' must be"),
        ('{"configs": [], "bundle_root": ".", "arms": {"a": {"stage": 3}}}', "'stage' must be"),
        ('{"configs": ["none.json"], "bundle_root": ".", "arms": {}}', "none.json', which does not exist"),
    ],
)
def test_a_file_that_is_no_study_is_told(tmp_path, content, message):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        read_study(tmp_path / "study.json")


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.json").write_text("{}")
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "study.json"
    path.write_text(json.dumps({"configs": ["../configs/a.json"], "bundle_root": "..", "arms": {"a": {"stage": "a"}}}))
    found = read_study(path)
    assert found.configs == (str(tmp_path / "configs" / "a.json"),)
    assert found.bundle_root == str(tmp_path)
