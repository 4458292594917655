from __future__ import annotations

import errno
import os
import stat

import pytest
import torch

from monai_fetalkd.utils.files import prepare_file, written_whole


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "model.pt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
    return path


def write_half(path, error):
    with written_whole(path) as temporary:
        temporary.write_text("half of the sec")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_the_former_file_and_no_temporary(path, error):
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_text() == "first"
    assert names(path.parent) == ["model.pt"]


def test_a_disk_that_is_full_only_when_it_is_synced_leaves_the_former_file(path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), written_whole(path) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first"
    assert names(path.parent) == ["model.pt"]


def test_writers_at_the_same_time_do_not_mix(path):
    with written_whole(path) as one, written_whole(path) as other:
        assert one != other
        assert {one.parent, other.parent} == {path.parent}
        one.write_text("one")
        other.write_text("the other")
    assert path.read_text() == "one"  # the last to finish
    assert names(path.parent) == ["model.pt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_permissions_are_those_of_any_new_file(path):
    ordinary = path.with_name("ordinary")
    ordinary.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_the_file_and_then_its_folder_are_synced_through_handles_that_allow_it(path, monkeypatch):
    synced = []

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not is_folder:
            os.write(descriptor, b"S")  # fails unless the handle is open for writing, as Windows demands
        synced.append("folder" if is_folder else "file")

    monkeypatch.setattr(os, "fsync", fsync)
    with written_whole(path) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "Second"
    assert synced == (["file"] if os.name == "nt" else ["file", "folder"])


def test_a_folder_that_cannot_be_synced_is_no_error(path, monkeypatch):
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with written_whole(path) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "second"


def test_equal_checkpoints_are_equal_files(tmp_path):
    for name in ("one", "other"):
        with written_whole(tmp_path / name / "model.pt") as temporary:
            torch.save({"weight": torch.arange(3)}, temporary)
    assert (tmp_path / "one" / "model.pt").read_bytes() == (tmp_path / "other" / "model.pt").read_bytes()


def test_a_file_that_can_be_written_is_prepared_and_an_older_one_removed(tmp_path):
    path = tmp_path / "new" / "loop.png"
    prepare_file(path)
    path.write_text("of an earlier patient")
    prepare_file(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["folder", "file/loop.png", "new/\0"])
def test_a_file_that_cannot_be_written_is_told_before(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises((OSError, ValueError)):
        prepare_file(tmp_path / name)


def test_a_disk_without_room_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match=r"loop\.png' cannot be written: No space left") as caught:
        prepare_file(tmp_path / "loop.png")
    assert caught.value.errno == 28
