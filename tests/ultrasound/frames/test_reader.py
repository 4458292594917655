from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest

from monai_fetalkd.ultrasound.frames import BlankFrameError, FrameError, find_frames, iterate_frames, read_frame

from .make import anatomy, dataset


def test_the_frames_of_a_folder_are_found_in_order(write, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".cache").mkdir()
    write(anatomy(), "z.png")
    write(dataset(anatomy()[None].repeat(2, 0)), "cine.dcm")
    write(dataset(anatomy()), "b/IM_0001")
    write(b"half a picture", "b/damaged.JPG")
    write(b"image,label\n", "planes.csv")
    write(b"words", "b/README")
    write(b"", "b/nothing")
    write(dataset(anatomy()), "DICOMDIR")
    write(anatomy(), ".hidden.png")
    write(anatomy(), ".cache/a.png")
    assert find_frames(tmp_path) == [
        {"image": str(tmp_path / "b" / "IM_0001")},
        {"image": str(tmp_path / "b" / "damaged.JPG")},
        {"image": str(tmp_path / "cine.dcm"), "frame": 0},
        {"image": str(tmp_path / "cine.dcm"), "frame": 1},
        {"image": str(tmp_path / "z.png")},
    ]


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder '.*none'"):
        find_frames(tmp_path / "none")


@pytest.mark.parametrize(
    ("library", "content", "name"),
    [("pydicom", dataset(anatomy()), "a.dcm"), ("nibabel", b"\0" * 344 + b"n+1\0" + b"\0" * 9, "a.nii")],
)
def test_pictures_are_read_without_the_optional_libraries_and_the_others_tell_what_to_install(
    write, monkeypatch, library, content, name
):
    path = write(content, name)
    picture = write(anatomy(), "a.png")
    for module in [m for m in sys.modules if "frames.dicom" in m or m.endswith("frames.nifti")]:
        monkeypatch.delitem(sys.modules, module)
    found = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] == library:
            raise ModuleNotFoundError(module, name=module)
        return found(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FrameError, match=f"run `pip install {library}`"):
        read_frame(path)
    assert read_frame(picture).pixels.shape == (40, 56)


def test_pictures_are_found_by_their_content_where_it_is_plain(write, tmp_path):
    write(anatomy(), "a.png")
    (tmp_path / "a.png").rename(tmp_path / "picture")
    write(b"BMI,age\n", "table")
    write(b"\x1f\x8b, as any gzip file begins", "archive.gz")
    assert find_frames(tmp_path) == [{"image": str(tmp_path / "picture")}]


@pytest.mark.parametrize("blank", [[0, 2], [1], [4], [0, 1, 2, 3]])
def test_frames_of_one_grey_level_do_not_end_a_cine(write, blank):
    cine = np.stack([anatomy(number) for number in range(5)])
    cine[blank] = 7
    path = write(dataset(cine), "cine.dcm")
    kept = [number for number in range(5) if number not in blank]
    assert [frame.number for frame in iterate_frames(path)] == kept
    with pytest.raises(BlankFrameError, match="one grey level"):
        read_frame(path, blank[0])


def test_a_file_of_nothing_but_one_grey_level_is_refused(write):
    with pytest.raises(BlankFrameError):
        list(iterate_frames(write(dataset(np.zeros((3, 40, 56), np.uint8)), "cine.dcm")))
