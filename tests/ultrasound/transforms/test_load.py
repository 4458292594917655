from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, EnsureTyped
from PIL import Image

from monai_fetalkd.ultrasound.frames import FrameError
from monai_fetalkd.ultrasound.transforms.load import LoadFramed
from monai_fetalkd.utils.traits import path_keys

from ..frames.make import anatomy, dataset, region


@pytest.fixture
def rows(tmp_path: Path) -> list[dict]:
    """A picture, a DICOM file with a region, and a frame of a cine."""
    Image.fromarray(anatomy()).save(tmp_path / "a.png")
    dataset(anatomy(), SequenceOfUltrasoundRegions=[region(4, 2, 43, 33)]).save_as(
        tmp_path / "a.dcm", enforce_file_format=True
    )
    cine = dataset(np.stack([anatomy(1), anatomy()]), FrameTime=40)
    cine.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    names = [{"image": "a.png"}, {"image": "a.dcm"}, {"image": "cine.dcm", "frame": 1}]
    return [{**row, "image": str(tmp_path / row["image"]), "label": 3} for row in names]


def test_every_kind_of_file_becomes_the_same_tensor(rows):
    for row in rows:
        loaded = LoadFramed("image")(row)
        assert isinstance(loaded["image"], MetaTensor)
        assert loaded["image"].dtype == torch.float32
        np.testing.assert_array_equal(loaded["image"].numpy(), anatomy()[None])
        assert loaded["label"] == 3
        assert isinstance(row["image"], str)


def test_the_meta_data_tells_what_is_known_of_the_frame(rows):
    metas = [LoadFramed("image")(row)["image"].meta for row in rows]
    assert [meta["filename_or_obj"] for meta in metas] == [
        rows[0]["image"],
        rows[1]["image"],
        f"{rows[2]['image']}#frame=1",
    ]
    assert [meta["frame"] for meta in metas] == [0, 0, 1]
    assert [meta.get("frame_time") for meta in metas] == [None, None, 40.0]
    assert [meta.get("region") for meta in metas] == [None, (2, 4, 34, 44), None]


@pytest.mark.parametrize("track_meta", [True, False])
def test_frames_of_different_kinds_make_a_batch(rows, track_meta):
    transform = Compose([LoadFramed("image"), EnsureTyped("image", track_meta=track_meta)])
    batch = list_data_collate([transform(row) for row in [rows[0], rows[1]]])
    assert batch["image"].shape == (2, 1, 40, 56)
    assert batch["label"].tolist() == [3, 3]


def test_it_works_in_worker_processes(rows):
    transform = pickle.loads(pickle.dumps(LoadFramed("image")))
    assert transform(rows[0])["image"].shape == (1, 40, 56)


def test_the_key_of_the_frame_number_can_be_chosen(rows):
    row = {"image": rows[2]["image"], "index": 0}
    np.testing.assert_array_equal(LoadFramed("image", frame_key="index")(row)["image"].numpy(), anatomy(1)[None])


def test_what_is_no_path_and_what_cannot_be_read_is_told(rows):
    with pytest.raises(TypeError, match="'image'.*Tensor"):
        LoadFramed("image")({"image": torch.zeros(1, 40, 56)})
    with pytest.raises(FrameError, match="it holds 2 frames"):
        LoadFramed("image")({"image": rows[2]["image"]})
    with pytest.raises(KeyError, match="image"):
        LoadFramed("image")({"label": 0})
    assert LoadFramed("image", allow_missing_keys=True)({"label": 0}) == {"label": 0}


def test_what_is_made_of_its_output_counts_the_files_it_reads():
    assert path_keys(Compose([LoadFramed(["image", "label"]), EnsureTyped("group")])) == {"image", "label"}
