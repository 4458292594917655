from __future__ import annotations

import csv
import shutil

import pytest

from monai_fetalkd.ultrasound.data.datalist import BRAIN_PLANES, PLANES, load_datalist, read_source

TABLE = "FETAL_PLANES_DB_data.csv"


@pytest.fixture(scope="module")
def published(shared_dir, tmp_path_factory):
    """The published table, with an empty file for each of its images."""
    folder = tmp_path_factory.mktemp("FETAL_PLANES_DB")
    shutil.copy(shared_dir / "data" / "fetal_planes_db" / TABLE, folder)
    (folder / "Images").mkdir()
    with (folder / TABLE).open() as file:
        for row in csv.DictReader(file, delimiter=";"):
            (folder / "Images" / f"{row['Image_name'].strip()}.png").touch()
    return folder


@pytest.fixture(scope="module")
def official(published):
    """All of it in the published split."""
    return read_source(published / TABLE, val=0)


def total(datalist):
    counts = datalist.counts().values()
    return {name: sum(count[name] for count in counts) for name in datalist.class_names}


def test_the_six_planes_have_their_published_counts(published):
    datalist = load_datalist(published, PLANES)
    assert list(total(datalist).values()) == [711, 3092, 1040, 1718, 1626, 4213]
    row = datalist.section("training")[0]
    assert row.keys() == {"image", "label", "group", "source", "machine", "operator"}
    assert row["source"] == "FETAL_PLANES_DB"
    assert row["group"].startswith("fpdb-0")


def test_the_official_split_is_kept_with_validation_cut_from_training_by_patient(published, official):
    assert {section: len(rows) for section, rows in official.sections.items()} == {"training": 7129, "testing": 5271}
    assert not official.shared_groups()

    cut = read_source(published, val=0.15)
    assert len(cut.section("training")) + len(cut.section("validation")) == 7129
    assert len(cut.section("validation")) == pytest.approx(0.15 * 7129, rel=0.06)
    assert cut.section("testing") == official.section("testing")
    assert not cut.shared_groups()


def test_the_three_brain_planes_are_a_task_of_their_own(published):
    datalist = load_datalist(published, BRAIN_PLANES, task="brain_planes")
    assert list(total(datalist).values()) == [1638, 714, 597]
    assert list(datalist.provenance["left_out"].values()) == [12400 - 1638 - 714 - 597]
    assert not datalist.shared_groups()


def test_the_licence_and_the_article_go_with_the_frames(official):
    about = official.about
    assert about["licence"] == "CC BY 4.0"
    assert "10.1038/s41598-020-67076-5" in about["reference"]


def test_a_download_that_is_not_complete_is_refused_or_read_in_part(shared_dir):
    folder = shared_dir / "data" / "fetal_planes_db"
    present = sum(1 for _ in (folder / "Images").iterdir())
    with pytest.raises(FileNotFoundError, match=f"{12400 - present} of the 12400 frames"):
        read_source(folder)
    assert sum(total(read_source(folder, missing="skip")).values()) == present


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Image_name;Plane\na;Other\n", {}, "line 2: this is not a row of the published FETAL_PLANES_DB"),
        ("Image_name;Patient_num;Plane\na;x;Other\n", {}, "line 2: this is not a row"),
        ("Image_name;Label\n", {}, "no column Plane"),
        ("Image_name;Plane\n", {"task": "heart"}, "no task 'heart': its tasks are planes, brain_planes"),
    ],
)
def test_what_is_not_the_published_table_is_refused(tmp_path, text, options, message):
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path, **options)
