from __future__ import annotations

import pytest
from PIL import Image

from monai_fetalkd.ultrasound.data.datalist import read_source


def picture(path, grey=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 24), grey).save(path)


@pytest.fixture
def dicom(tmp_path):
    """Write a DICOM file of this patient, a cine where it has more than one frame."""
    pydicom = pytest.importorskip("pydicom")

    def write(path, patient, frames=1):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        dataset.PatientName, dataset.PatientID, dataset.ManufacturerModelName = "Doe^Jane", patient, "Voluson E6"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 24, 32, frames
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PixelData = bytes(range(256)) * 3 * frames
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)

    return write


def rows_of(datalist):
    return sorted((row for rows in datalist.sections.values() for row in rows), key=lambda row: row["image"])


def test_the_folder_is_the_class_and_the_folder_in_it_the_patient(tmp_path):
    for patient in range(10):
        for label in ("fetal_brain", "Other"):
            for view in range(2):
                picture(tmp_path / label / f"p{patient}" / f"{view}.png")
    datalist = read_source(tmp_path, ["Fetal brain", "Other"], plain_groups=True)
    assert set(datalist.sections) == {"training", "validation", "testing"}
    assert not datalist.shared_groups()
    rows = rows_of(datalist)
    assert len(rows) == 40
    assert {row["group"] for row in rows} == {f"p{patient}" for patient in range(10)}
    assert rows[0] | {"image": None} == {"image": None, "label": 1, "group": "p0", "source": tmp_path.name}


def test_outer_folders_are_sections(tmp_path):
    for outer, count in (("train", 3), ("Valid", 2), ("test", 1)):
        for number in range(count):
            picture(tmp_path / outer / "brain" / f"{outer}{number}.png")
    counts = read_source(tmp_path, ["brain"]).counts()
    assert counts == {"training": {"brain": 3}, "validation": {"brain": 2}, "testing": {"brain": 1}}


def test_a_pattern_finds_the_patient_in_the_path(tmp_path):
    for name in ("Patient00012_1.png", "Patient00012_2.png", "Patient00013_1.png"):
        picture(tmp_path / "brain" / name)
    rows = rows_of(read_source(tmp_path, ["brain"], group_pattern="(Patient[0-9]+)", val=0, test=0, plain_groups=True))
    assert [row["group"] for row in rows] == ["Patient00012", "Patient00012", "Patient00013"]


def test_without_any_sign_of_the_patient_each_file_is_a_group_and_that_is_said(tmp_path, caplog):
    picture(tmp_path / "brain" / "a.png")
    picture(tmp_path / "femur" / "a.png")
    rows = rows_of(read_source(tmp_path, val=0, test=0))
    assert rows[0]["group"] != rows[1]["group"]
    assert "2 file(s)" in caplog.text


def test_dicom_is_grouped_by_patient_and_a_cine_has_a_row_for_each_frame_taken(tmp_path, dicom):
    dicom(tmp_path / "brain" / "IM_0001", "MRN1")
    dicom(tmp_path / "brain" / "sweep.dcm", "MRN2", frames=5)
    dicom(tmp_path / "femur" / "series" / "a.dcm", "MRN1")
    rows = rows_of(read_source(tmp_path, cine_step=2, val=0, test=0))
    assert [row.get("frame") for row in rows] == [None, 0, 2, 4, None]
    groups = [row["group"] for row in rows]
    assert groups[0] == groups[4] != groups[1] == groups[2] == groups[3]
    assert not any("MRN" in group for group in groups)
    assert {row["machine"] for row in rows} == {"Voluson E6"}


def test_dicom_without_a_patient_id_is_grouped_as_pictures_are(tmp_path, dicom):
    dicom(tmp_path / "brain" / "case7" / "a.dcm", "")
    (row,) = rows_of(read_source(tmp_path, ["brain"], val=0, test=0, plain_groups=True))
    assert row["group"] == "case7"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_pattern": "("}, "is no regular expression"),
        ({"group_pattern": "Patient"}, "must have one capture group"),
        ({"group_pattern": "(Patient[0-9]+)"}, "finds nothing in 'a.png'"),
        ({"cine_step": 0}, "cine_step must be 1 or more, got 0"),
        ({"class_names": ["heart"]}, "label 'brain' of '.*a.png' is outside the class table"),
    ],
)
def test_what_cannot_be_done_with_class_folders_is_said(tmp_path, options, message):
    picture(tmp_path / "brain" / "a.png")
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path, **options)
