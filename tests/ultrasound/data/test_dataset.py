from __future__ import annotations

import csv
import errno
import os
import re
from functools import partial

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    RandFlipd,
    ScaleIntensityRanged,
    Transform,
)
from PIL import Image

from monai_fetalkd.ultrasound.data import BadFrames, FrameDataset, FrameStream, PersistentFrameDataset, frame_dataset


@pytest.fixture
def rows(tmp_path):
    """Eight frames; the third is cut in two, the sixth is a text file."""
    generator = np.random.default_rng(0)
    frames = []
    for index in range(8):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(1, 255, (24, 32), np.uint8)).save(path)
        frames.append({"image": str(path), "label": index % 3})
    bad = tmp_path / "2.png"
    bad.write_bytes(bad.read_bytes()[:200])
    (tmp_path / "5.png").write_text("not an image")
    return frames


@pytest.fixture
def good(rows):
    return [row for index, row in enumerate(rows) if index not in (2, 5)]


def transforms(scale=255.0):
    return Compose(
        [
            LoadImaged("image", reader="PILReader", reverse_indexing=False),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            ScaleIntensityRanged("image", 0, scale, 0, 1),
            EnsureTyped("image", track_meta=False),
            RandFlipd("image", prob=0.5, spatial_axis=1),
            EnsureTyped("image", track_meta=False),
        ]
    )


class Failing(Transform):
    """A transform that the machine lets down."""

    def __init__(self, error):
        self.error = error

    def __call__(self, item):
        raise self.error


def cached_in(folder, **arguments):
    return partial(PersistentFrameDataset, cache_dir=folder, progress=False, **arguments)


@pytest.fixture(params=["memory", "disk", "stream"])
def kind(request, tmp_path):
    return {
        "memory": partial(FrameDataset, progress=False),
        "disk": cached_in(tmp_path / "cache"),
        "stream": FrameStream,
    }[request.param]


def items(dataset):
    return list(dataset) if isinstance(dataset, FrameStream) else [dataset[index] for index in range(len(dataset))]


def test_memory_disk_and_disk_again_give_equal_frames(good, tmp_path):
    def frames(cache_dir):
        dataset = frame_dataset(good, transforms(), cache_dir, progress=False)
        dataset.transform.set_random_state(seed=3)
        return items(dataset)

    expected = frames(None)
    for _ in range(2):
        for item, other in zip(frames(tmp_path / "cache"), expected, strict=True):
            assert item["label"] == other["label"]
            torch.testing.assert_close(item["image"], other["image"], rtol=0, atol=0)
    assert len(list((tmp_path / "cache").glob("*.pt"))) == len(good)


def test_a_bad_frame_is_an_error_that_names_it(kind, rows):
    with pytest.raises(ValueError, match=r"2\.png' cannot be read") as caught:
        items(kind(rows, transforms()))
    assert "\n" not in str(caught.value)


def test_bad_frames_are_left_out_listed_and_counted(kind, rows, good, tmp_path, caplog):
    listed = tmp_path / "out" / "skipped.csv"
    dataset = kind(rows, transforms(), bad_frames=BadFrames("skip", limit=0.25, path=listed))
    assert [item["label"] for item in items(dataset)] == [row["label"] for row in good]
    with listed.open(newline="") as file:
        skipped = list(csv.DictReader(file))
    assert [os.path.basename(row["image"]) for row in skipped] == ["2.png", "5.png"]
    assert all("cannot be read: " in row["reason"] for row in skipped)
    assert re.search(rf"2 of 8 frames .*{re.escape(str(listed))}", caplog.text)


class TestStreamInWorkers:
    @pytest.mark.parametrize("workers", [0, 1, 2, 3])
    def test_each_frame_comes_once_and_in_order(self, good, workers):
        loader = DataLoader(FrameStream(good, transforms()), batch_size=1, num_workers=workers)
        images = [batch["image"] for batch in loader]
        expected = [item["image"][None] for item in FrameStream(good, transforms())]
        assert len(images) == len(expected)
        for image, other in zip(images, expected, strict=True):
            torch.testing.assert_close(image.sum(), other.sum())  # whichever way it was flipped

    def test_larger_batches_and_more_workers_than_frames_lose_none(self, good):
        for batch_size, workers in ((2, 3), (4, 7)):
            stream = FrameStream(good, lambda row: row["image"])
            loader = DataLoader(stream, batch_size=batch_size, num_workers=workers)
            assert sorted(name for batch in loader for name in batch) == [row["image"] for row in good]

    def test_bad_frames_of_all_workers_are_listed_once_and_counted_together(self, rows, good, tmp_path):
        listed = tmp_path / "skipped.csv"
        # 2 of 8 are a quarter, but both are among the frames of one of three workers
        stream = FrameStream(rows, transforms(), BadFrames("skip", limit=0.25, path=listed))
        for _ in range(2):
            batches = list(DataLoader(stream, batch_size=1, num_workers=3))
            assert sorted(int(batch["label"]) for batch in batches) == sorted(row["label"] for row in good)
            with listed.open(newline="") as file:
                assert sorted(os.path.basename(row["image"]) for row in csv.DictReader(file)) == ["2.png", "5.png"]

    def test_too_many_bad_frames_of_all_workers_together_end_the_run(self, rows, tmp_path):
        stream = FrameStream(rows, transforms(), BadFrames("skip", limit=0.2))
        with pytest.raises(ValueError, match="2 of 8 frames .*20%"):
            list(DataLoader(stream, batch_size=1, num_workers=2))

    def test_a_bad_frame_is_an_error_that_names_it(self, rows):
        with pytest.raises(ValueError, match=r"2\.png' cannot be read"):
            list(DataLoader(FrameStream(rows, transforms()), batch_size=1, num_workers=2))


def test_too_many_bad_frames_end_the_run(kind, rows, tmp_path):
    listed = tmp_path / "skipped.csv"
    with pytest.raises(ValueError, match="2 of 8 frames .*20%"):
        items(kind(rows, transforms(), bad_frames=BadFrames("skip", limit=0.2, path=listed)))
    assert len(listed.read_text().splitlines()) == 3


def test_the_option_that_the_message_names_is_large_enough(kind, rows):
    with pytest.raises(ValueError, match="--max_skipped") as caught:
        items(kind(rows, transforms(), bad_frames=BadFrames("skip", limit=0.2)))
    limit = float(str(caught.value).partition("--max_skipped ")[2].split()[0])
    assert len(items(kind(rows, transforms(), bad_frames=BadFrames("skip", limit=limit)))) == 6


def test_a_frame_that_is_gone_is_told_as_such(kind, good):
    os.remove(good[1]["image"])
    bad_frames = BadFrames("skip", limit=0.5)
    assert len(items(kind(good, transforms(), bad_frames=bad_frames))) == 5
    (left_out,) = bad_frames.rows
    assert left_out["image"] == good[1]["image"]
    assert "does not exist" in left_out["reason"]


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_an_error_of_the_machine_is_none_of_a_frame(kind, good, error):
    with pytest.raises(type(error)):
        items(kind(good, Compose([Failing(error)]), bad_frames=BadFrames("skip", limit=1.0)))


def test_a_full_disk_of_the_cache_is_told_as_such(good, tmp_path, monkeypatch):
    def move(source, target, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("monai.data.dataset.shutil.move", move)
    with pytest.raises(OSError, match="No space left") as caught:
        cached_in(tmp_path / "cache")(good, transforms(), bad_frames=BadFrames("skip", limit=1.0))
    assert caught.value.filename == str(tmp_path / "cache")


def test_a_cache_that_torch_cannot_write_is_told_as_such(good, tmp_path, monkeypatch):
    def save(*arguments, **keywords):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    monkeypatch.setattr("monai.data.dataset.torch.save", save)
    with pytest.raises(OSError, match="cannot be written") as caught:
        cached_in(tmp_path / "cache")(good, transforms(), bad_frames=BadFrames("skip", limit=1.0))
    assert str(tmp_path / "cache") in str(caught.value)


def test_datasets_share_one_list_and_a_new_run_begins_a_new_one(rows, good, tmp_path):
    listed = tmp_path / "skipped.csv"
    bad_frames = BadFrames("skip", limit=0.5, path=listed)
    for part in (rows[:4], rows[4:]):
        FrameDataset(part, transforms(), bad_frames, progress=False)
    assert len(listed.read_text().splitlines()) == 3
    FrameDataset(good, transforms(), BadFrames("skip", path=listed), progress=False)
    assert listed.read_text().splitlines() == ["image,frame,reason"]


@pytest.mark.parametrize(
    ("arguments", "message"), [(("ignore",), "'raise' or 'skip'"), (("skip", 1.5), "between 0 and 1")]
)
def test_a_rule_for_bad_frames_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BadFrames(*arguments)


class TestCacheOnDisk:
    @pytest.fixture
    def folder(self, tmp_path):
        return tmp_path / "cache"

    def test_it_does_not_read_a_frame_twice(self, good, folder, monkeypatch):
        cached_in(folder)(good, transforms())
        monkeypatch.setattr(LoadImaged, "__call__", lambda *_: pytest.fail("the frame is read again"))
        assert len(items(cached_in(folder)(good, transforms()))) == len(good)

    def test_a_changed_transform_is_computed_anew(self, good, folder):
        before = cached_in(folder)(good, transforms())[0]["image"]
        after = cached_in(folder)(good, transforms(scale=510.0))[0]["image"]
        torch.testing.assert_close(after.max() * 2, before.max())

    def test_a_changed_file_is_read_anew(self, good, folder):
        cached_in(folder)(good, transforms())
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(good[0]["image"])
        assert cached_in(folder)(good, transforms())[0]["image"].min() == 1

    def test_a_relative_path_is_that_of_the_same_file_and_of_no_other(self, good, folder, tmp_path, monkeypatch):
        cached_in(folder)(good[:1], transforms())
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "0.png"
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(other)
        for path in (other, tmp_path / "0.png"):
            os.truncate(path, 1000)
            os.utime(path, ns=(1, 1))
        monkeypatch.chdir(tmp_path)
        first = cached_in(folder)([{"image": "0.png"}], transforms())[0]["image"]
        monkeypatch.chdir(tmp_path / "other")
        assert cached_in(folder)([{"image": "0.png"}], transforms())[0]["image"].min() == 1 > first.min()

    def test_a_changed_label_counts_at_once(self, good, folder):
        cached_in(folder)(good, transforms())
        assert cached_in(folder)([{**good[0], "label": 9, "group": "p1"}], transforms())[0]["label"] == 9

    @pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"nothing"])
    def test_a_half_written_file_is_computed_anew(self, good, folder, damage):
        whole = cached_in(folder)(good[:1], transforms())
        whole.transform.set_random_state(seed=0)
        expected = whole[0]["image"]
        (file,) = folder.glob("*.pt")
        file.write_bytes(damage(file.read_bytes()))
        again = cached_in(folder)(good[:1], transforms())
        again.transform.set_random_state(seed=0)
        torch.testing.assert_close(again[0]["image"], expected, rtol=0, atol=0)

    def test_a_transform_without_a_name_is_refused(self, good, folder):
        load = LoadImaged("image", reader="PILReader", converter=lambda image: image.convert("L"))
        with pytest.raises(ValueError, match="cannot be pickled"):
            cached_in(folder)(good, Compose([load]))
