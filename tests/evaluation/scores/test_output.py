from __future__ import annotations

import json

import numpy as np
import pytest

from monai_fetalkd.evaluation.scores.output import check_output, write_evaluation
from monai_fetalkd.evaluation.scores.predictions import Predictions, read_predictions
from monai_fetalkd.evaluation.scores.result import evaluate

from .conftest import CLASSES, network


def test_the_result_is_written_and_read_again(networks, content, tmp_path):
    write_evaluation(content, networks, tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text(encoding="utf-8")) == content
    for name, predictions in networks.items():
        again = read_predictions(tmp_path / "eval" / content["networks"][name]["predictions"])
        assert np.array_equal(again.probabilities, predictions.probabilities)
        assert again.files == predictions.files


def test_names_that_no_file_can_have_or_that_collide_get_files_of_their_own(tmp_path):
    names = ["stage 1/2", "stage_1_2", "Stage 1_2", "../..", "Lehrer ß"]
    networks = {name: network(2) for name in names}
    content = evaluate(networks, repeats=1)
    write_evaluation(content, networks, tmp_path)
    paths = [content["networks"][name]["predictions"] for name in names]
    assert len({path.lower() for path in paths}) == len(names)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv")} == set(paths)


def test_an_older_result_is_replaced_on_request_only(networks, content, tmp_path):
    write_evaluation(content, networks, tmp_path)
    newer = {**content, "split": "validation"}
    with pytest.raises(FileExistsError, match=r"metrics\.json' is an older result"):
        write_evaluation(newer, networks, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["split"] == "testing"
    write_evaluation(newer, networks, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "metrics.json").read_text())["split"] == "validation"


def test_predictions_of_an_older_result_are_not_replaced_either(networks, content, tmp_path):
    older = tmp_path / content["networks"]["Student"]["predictions"]
    older.parent.mkdir()
    older.write_text("older")
    with pytest.raises(FileExistsError, match="is an older result"):
        write_evaluation(content, networks, tmp_path)
    assert older.read_text() == "older"
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("folder", ["data/images", "data/images/eval", "data/other/../images"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_where_the_frames_are(folder, overwrite, tmp_path):
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "cine.dcm").touch()
    rows = [{"image": str(images / "cine.dcm"), "frame": n, "label": n, "group": f"p{n}"} for n in range(3)]
    networks = {"student": Predictions.from_rows(CLASSES, rows, np.eye(3))}
    content = evaluate(networks, repeats=1)
    with pytest.raises(ValueError, match="holds frames evaluated: write the result elsewhere"):
        write_evaluation(content, networks, tmp_path / folder, overwrite)
    assert [path.name for path in images.iterdir()] == ["cine.dcm"]
    check_output(networks, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()
