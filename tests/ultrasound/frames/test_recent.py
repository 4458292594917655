from __future__ import annotations

import os
import threading

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.frames import read_frame, volumes

from .make import anatomy

CINE = np.stack([anatomy(number) for number in range(5)])


@pytest.fixture
def reads(monkeypatch):
    """The paths whose voxels were read."""
    found = []

    def counting(path, *arguments):
        found.append(path)
        return read_voxels(path, *arguments)

    read_voxels = volumes.read_voxels
    for module in ("nifti", "metaimage"):
        monkeypatch.setattr(f"monai_fetalkd.ultrasound.frames.{module}.read_voxels", counting)
    return found


def settle(path):
    """Let a file look as if it had been written an hour ago."""
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 3600 * 10**9))


def volume(path, cine=CINE):
    nibabel.save(nibabel.Nifti1Image(cine.T, np.diag([-1, -1, 1, 1])), path)
    settle(path)
    return path


def test_a_volume_is_decompressed_once_for_all_of_its_frames(tmp_path, reads):
    path = volume(tmp_path / "a.nii.gz")
    for number in (3, 0, 4, 1):
        np.testing.assert_array_equal(read_frame(path, number).pixels, CINE[number])
    assert len(reads) == 1


def test_a_file_that_was_changed_is_read_anew(tmp_path, reads):
    path = volume(tmp_path / "a.nii.gz")
    read_frame(path, 0)
    volume(path, CINE[::-1])
    os.utime(path)
    np.testing.assert_array_equal(read_frame(path, 0).pixels, CINE[4])
    volume(path, CINE)
    np.testing.assert_array_equal(read_frame(path, 0).pixels, CINE[0])


def test_files_that_together_are_too_large_are_not_all_kept(tmp_path, reads, monkeypatch):
    monkeypatch.setattr("monai_fetalkd.ultrasound.frames.recent.MAX_BYTES", int(1.5 * CINE.nbytes))
    paths = [volume(tmp_path / f"{name}.nii.gz") for name in "ab"]
    for path in [paths[0], paths[0], paths[1], paths[1], paths[0]]:
        read_frame(path, 2)
    assert reads == [str(paths[0]), str(paths[1]), str(paths[0])]


def test_threads_share_what_is_kept(tmp_path, reads):
    path = volume(tmp_path / "a.nii.gz")
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, read_frame(path, n % 5).pixels)) for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(10):
        np.testing.assert_array_equal(found[number], CINE[number % 5])
    assert len(reads) == 1


def test_the_frames_of_a_gif_are_decoded_once(tmp_path, monkeypatch):
    pages = [Image.fromarray(frame) for frame in CINE]
    path = tmp_path / "a.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[100, 40, 40, 40, 40])
    settle(path)
    np.testing.assert_array_equal(read_frame(path, 4).pixels, CINE[4])
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.seek", None)
    for number in range(5):
        np.testing.assert_array_equal(read_frame(path, number).pixels, CINE[number])
    assert [read_frame(path, number).time for number in range(5)] == [0, 100, 140, 180, 220]
