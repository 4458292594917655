"""The overlay for real input: DICOM and all other files of frames, the picture without its chrome, nobody's name."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from monai_fetalkd.ultrasound.data import PLANE_NAMES, phantom_frame

NAME, NUMBER = "Doeringer^Janeska", "MRN-08154711"  # too long to come about by chance in the pictures of a report


def picture(plane: int, seed: int) -> np.ndarray:
    return phantom_frame(plane, np.random.default_rng(seed), 64)


def write_dicom(path, frames: np.ndarray, patient: int) -> None:
    """An ultrasound file, of one frame or a cine, full of what identifies a person."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = uid.generate_uid()
    file.PatientName, file.PatientID = NAME, f"{NUMBER}-{patient}"
    file.ReferringPhysicianName = file.OperatorsName = file.InstitutionName = NAME
    file.Modality, file.FrameTime = "US", 40
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    *count, file.Rows, file.Columns = frames.shape
    if count:
        file.NumberOfFrames = count[0]
    file.PixelData = frames.tobytes()
    file.save_as(path, enforce_file_format=True)


@pytest.fixture
def study(tmp_path):
    """A folder per class: one DICOM file a patient, every third a cine of two frames; three files are damaged."""
    for plane, name in enumerate(PLANE_NAMES):
        folder = tmp_path / "study" / name.replace(" ", "_").lower()
        folder.mkdir(parents=True)
        for patient in range(6):
            frames = np.stack([picture(plane, 10 * patient + number) for number in range(2)])
            write_dicom(folder / f"IM_{patient:04d}", frames if patient % 3 == 0 else frames[0], 100 * plane + patient)
    for name in ("fetal_brain", "fetal_femur"):
        damaged = tmp_path / "study" / name / "IM_0001"
        damaged.write_bytes(damaged.read_bytes()[:-2000])
    header = tmp_path / "study" / "other" / "IM_0001"
    header.write_bytes(header.read_bytes().replace(b"US", b"\xff\xff"))
    return tmp_path / "study"


def test_a_folder_of_dicom_trains_and_no_name_of_it_is_told_anywhere(run, study, tmp_path, capsys, caplog):
    caplog.set_level("INFO", "monai_fetalkd")
    run("train.json", "ultrasound.json", dataset_dir=str(study), on_error="skip", max_skipped=0.5)
    with (tmp_path / "out" / "eval" / "skipped.csv").open(newline="") as file:
        skipped = [row["image"].split("/")[-2:] for row in csv.DictReader(file)]
    assert sorted(skipped) == [[name, "IM_0001"] for name in ("fetal_brain", "fetal_femur", "other")]
    assert "skipped.csv" in caplog.text
    assert sum(message.startswith("data:") for message in caplog.messages) == 1  # and is read once
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"model.pt", "metrics.json", "log.txt", "skipped.csv"} <= {path.name for path in written}
    told = [*(path.read_bytes() for path in written), *("".join(capsys.readouterr()).encode(), caplog.text.encode())]
    for secret in (b"Doeringer", b"Janeska", b"08154711"):
        assert not [text for text in told if secret in text]


def test_a_damaged_file_ends_the_run_in_a_sentence_unless_it_is_to_be_left_out(run, study):
    with pytest.raises(RuntimeError) as caught:
        run("train.json", "ultrasound.json", dataset_dir=str(study))
    causes = []
    error = caught.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any("IM_0001' cannot be read: " in cause for cause in causes)
    assert not any(secret in cause for cause in causes for secret in (NAME, NUMBER))


@pytest.fixture
def student(trained_once, tiny):
    """A trained student, and how to ask for it."""
    return {
        "image_size": tiny["image_size"],
        "network_def": tiny["network_def"],
        "device": "cpu",
        "ckpt": str(trained_once / "models" / "model.pt"),
    }


@pytest.fixture
def pictures(tmp_path):
    """The same frames as PNG: a folder per class, a folder per patient."""
    for plane, name in enumerate(PLANE_NAMES):
        for patient in range(6):
            folder = tmp_path / "frames" / name / f"p{plane}{patient}"
            folder.mkdir(parents=True)
            Image.fromarray(picture(plane, 10 * patient)).save(folder / "0.png")
    return tmp_path / "frames"


def test_inference_takes_every_kind_of_file_and_lists_what_it_cannot_read(run, student, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    frames = np.stack([picture(plane, 7) for plane in range(3)])
    write_dicom(mixed / "cine.dcm", frames, 1)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).convert("RGBA").save(mixed / f"frame{index}.png")
    (mixed / "broken.png").write_bytes((mixed / "frame0.png").read_bytes()[:300])
    out = tmp_path / "predictions"
    run(
        "inference.json",
        "ultrasound.json",
        dataset_dir=str(mixed),
        output_dir=str(out),
        max_skipped=0.2,
        **student,
    )
    with (out / "predictions.csv").open() as file:
        rows = {row[0].removeprefix(f"{mixed}/"): [float(value) for value in row[1:]] for row in csv.reader(file)}
    assert rows.keys() == {*(f"cine.dcm#frame={n}" for n in range(3)), *(f"frame{n}.png" for n in range(3))}
    for number in range(3):  # the same anatomy gives the same answer from PNG and from DICOM
        assert rows[f"cine.dcm#frame={number}"] == pytest.approx(rows[f"frame{number}.png"], abs=1e-6)
    with (out / "skipped.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(mixed / "broken.png")]


def test_training_and_inference_prepare_frames_alike(workflow, pictures):
    path = str(pictures / "Fetal brain" / "p10" / "0.png")
    train = workflow("train.json", "ultrasound.json", dataset_dir=str(pictures), image_size=[48, 48])
    inference = workflow(
        "inference.json", "ultrasound.json", dataset_dir=str(pictures), image_size=[48, 48], ckpt=__file__
    )
    frames = []
    for flow, item in ((train, "validate#preprocessing"), (inference, "preprocessing")):
        flow.initialize()
        frames.append(torch.as_tensor(flow.parser.get_parsed_content(item)({"image": path})["image"]))
    assert torch.equal(*frames)
    assert frames[0].shape == (1, 48, 48)
    assert 0.5 < frames[0].max() <= 1


@pytest.mark.parametrize("cached", [False, True])
def test_any_source_goes_straight_into_the_configs(run, measured, pictures, tmp_path, cached):
    overrides = {"cache_dir": str(tmp_path / "cache")} if cached else {}
    run("train.json", "ultrasound.json", dataset_dir=str(pictures), **measured, **overrides)
    summary = json.loads((tmp_path / "out" / "eval" / "metrics.json").read_text())
    assert len(summary["networks"]) == 3
    assert (len(list((tmp_path / "cache").glob("*.pt"))) == 36) == cached


def test_the_options_of_a_source_are_items_of_the_config(workflow, pictures, tmp_path):
    rows = ["file,plane,mrn"]
    for path in sorted(pictures.rglob("*.png")):
        plane, patient = path.parts[-3:-1]
        rows.append(f"{path},{plane},{NUMBER}-{patient}")
    table = tmp_path / "frames.csv"
    table.write_text("\n".join(rows))
    columns = {"image": "file", "label": "plane", "group": "mrn"}
    options = {"datalist#columns": columns, "datalist#folds": 3, "datalist#fold": 1, "datalist#test": 0.3}
    flow = workflow("train.json", "ultrasound.json", dataset_dir=str(table), **options)
    flow.initialize()
    datalist = flow.parser.get_parsed_content("datalist")
    sizes = [len(datalist.section(name)) for name in ("training", "validation", "testing")]
    assert sum(sizes) == 36
    assert sizes[0] == pytest.approx(2 * sizes[1], abs=2)
    assert not [row for name in datalist.sections for row in datalist.sections[name] if NUMBER in row["group"]]
