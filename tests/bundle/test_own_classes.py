"""A task with classes of its own needs no change in the configs."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data.datalist import BRAIN_PLANES

CLASSES = ["right", "left", "top"]  # not in alphabetical order


@pytest.fixture
def planes(tmp_path):
    """A datalist of three classes."""
    folder = tmp_path / "frames"
    folder.mkdir()
    generator = np.random.default_rng(0)
    content = {"labels": dict(enumerate(CLASSES))}
    for split, count in (("training", 4), ("validation", 2), ("testing", 2)):
        content[split] = []
        for index in range(count * len(CLASSES)):
            file = f"{split}_{index}.png"
            Image.fromarray(generator.integers(0, 256, (40, 48), np.uint8)).save(folder / file)
            content[split].append({"image": file, "label": index % 3, "group": f"{split} {index}"})
    path = folder / "planes.json"
    path.write_text(json.dumps(content))
    return path


def test_the_classes_go_from_the_datalist_to_training_evaluation_and_inference(run, planes, tmp_path, tiny):
    classes = {"num_classes": "$len(@class_names)"}
    networks = {name: tiny[name] | classes for name in ("network_def", "teacher#network_def")}
    run("train.json", run_id="run_teacher", dataset_dir=str(planes), **networks)
    folder = tmp_path / "out"
    assert json.loads((folder / "models" / "teacher.json").read_text())["class_names"] == CLASSES

    rows = ["image,label,patient_id,split", "testing_0.png,top,1,test", "testing_1.png,left,2,test"]
    rows += ["testing_2.png,top,3,val", "testing_3.png,left,4,val"]  # of two classes alone
    planes.with_name("test.csv").write_text("\n".join(rows))
    student = {"network_def": tiny["teacher#network_def"] | classes}
    weights = str(folder / "models" / "teacher.pt")
    run("train.json", "evaluate.json", dataset_dir=str(planes.with_name("test.csv")), ckpt=weights, **student)
    result = json.loads((folder / "eval" / "evaluation" / "metrics.json").read_text())
    assert result["class_names"] == CLASSES

    flow = run("inference.json", kind="infer", dataset_dir=str(planes.parent), ckpt=weights, device="cpu", **student)
    assert flow.parser.get_parsed_content("image_size") == tiny["image_size"]
    with (folder / "predictions.csv").open() as file:
        assert {len(row) for row in csv.reader(file)} == {1 + len(CLASSES)}


def test_a_task_of_the_public_data_is_chosen_by_its_name(workflow, tmp_path):
    rows = ["Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "]
    names = [("Fetal brain", plane) for plane in BRAIN_PLANES] + [("Other", "Not A Brain")]
    for number, (plane, brain_plane) in enumerate(names):
        rows.append(f"{number};{number};{plane};{brain_plane};Op. 1;Aloka;1")
    (tmp_path / "FETAL_PLANES_DB_data.csv").write_text("\n".join(rows))
    for task, expected in (("brain_planes", list(BRAIN_PLANES)), (None, 6)):
        flow = workflow("train.json", dataset_dir=str(tmp_path), **{"datalist#task": task})
        found = flow.parser.get_parsed_content("class_names")
        assert found == expected or len(found) == expected


def test_labels_that_are_numbers_need_names(workflow, tmp_path):
    (tmp_path / "planes.csv").write_text("image,label,patient_id\na.png,0,1\nb.png,1,2\n")
    flow = workflow("train.json", dataset_dir=str(tmp_path / "planes.csv"))
    with pytest.raises(RuntimeError) as caught:
        flow.parser.get_parsed_content("class_names")
    assert "class_names" in str(caught.value.__cause__)
