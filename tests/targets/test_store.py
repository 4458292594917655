from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest

from monai_fetalkd.targets import TargetStore

ROW = np.dtype([("crc32", "<u4"), ("values", "u1", (40,))])
COUNT = 50


def make(folder, row=ROW, count=COUNT):
    return TargetStore(folder, row, count, {"teacher": "one"})


def rows_of(indices):
    """Rows by which one sees where they belong."""
    return np.stack([np.full(40, index, np.uint8) for index in indices])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "store"


def test_rows_are_absent_until_they_are_written(folder):
    store = make(folder)
    store.write(np.array([3, 7]), rows_of([3, 7]))
    for reader in (store, make(folder)):
        rows, whole = reader.read(np.array([7, 0, 3, 49]))
        assert whole.tolist() == [True, False, True, False]
        assert (rows[whole] == rows_of([7, 3])).all()


def test_the_files_can_be_read_without_the_package(folder):
    make(folder).write(np.array([1]), rows_of([1]))
    assert json.loads((folder / "manifest.json").read_text()) == {"teacher": "one"}
    assert (np.load(folder / "rows.npy", mmap_mode="r")["values"][1] == 1).all()


@pytest.mark.parametrize("position", [0, 3, 4, 43])
def test_a_torn_row_is_absent_and_can_be_written_again(folder, position):
    store = make(folder)
    indices = np.array([4, 5, 6])
    store.write(indices, rows_of(indices))
    with (folder / "rows.npy").open("r+b") as file:
        start = file.seek(-COUNT * ROW.itemsize, os.SEEK_END)
        file.seek(start + 5 * ROW.itemsize + position)
        file.write(b"\xaa")
    assert store.read(indices)[1].tolist() == [True, False, True]
    store.write(indices[1:2], rows_of([5]))
    assert store.read(indices)[1].all()


def test_space_is_taken_only_by_what_is_written(folder):
    make(folder, np.dtype([("crc32", "<u4"), ("values", "u1", (1_000_000,))]), 100)
    assert (folder / "rows.npy").stat().st_size > 1e8
    assert (folder / "rows.npy").stat().st_blocks * 512 < 1e6


def test_a_store_that_does_not_fit_is_not_made(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 2_100_000))
    with pytest.raises(OSError, match=r"2\.2 MB.*cache'.*2\.1 MB"):
        make(folder, count=COUNT * 1000)
    assert not folder.exists()
    assert not list(folder.parent.iterdir())


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 30)])
def test_a_damaged_store_is_named(folder, damage):
    make(folder)
    damage(folder / "rows.npy")
    with pytest.raises(ValueError, match="'.*store'.*damaged"):
        make(folder)


def test_a_store_of_other_rows_is_refused(folder):
    make(folder)
    with pytest.raises(ValueError, match="holds a store of other rows than asked for"):
        make(folder, count=COUNT + 1)


def _make_and_write(folder, barrier, first):
    barrier.wait()
    store = make(folder)
    for index in range(first, COUNT):
        store.write(np.array([index]), rows_of([index]))


def test_processes_make_and_write_one_store_at_the_same_time(folder, processes):
    barrier = processes.Barrier(4)
    writers = [processes.Process(target=_make_and_write, args=(folder, barrier, first)) for first in (0, 0, 0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    rows, whole = make(folder).read(np.arange(COUNT))
    assert whole.all()
    assert (rows == rows_of(range(COUNT))).all()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


LARGE_ROW = np.dtype([("crc32", "<u4"), ("values", "u1", (400_000,))])


def _write_forever(folder, ready):
    store = TargetStore(folder, LARGE_ROW, 8, {})
    ready.set()
    for value in itertools.cycle(range(256)):
        store.write(np.arange(8), np.full((8, 400_000), value, np.uint8))


def test_after_a_kill_every_row_is_whole_or_absent(folder, processes):
    ready = processes.Event()
    writer = processes.Process(target=_write_forever, args=(folder, ready))
    writer.start()
    assert ready.wait(60)
    writer.kill()
    writer.join()
    store = TargetStore(folder, LARGE_ROW, 8, {})
    rows, whole = store.read(np.arange(8))
    assert all(len(set(values.tolist())) == 1 for values in rows[whole])
    store.write(np.arange(8), rows)
    assert store.read(np.arange(8))[1].all()
