"""MONAI Label's own app `monaibundle` serves and trains the bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from monai_fetalkd.ultrasound.data import PLANE_NAMES

pytestmark = pytest.mark.label

MODEL = "planes_classification"
CONF = {"models": MODEL, "zoo_source": "local", "sam2": "false"}
QUICK = {"teacher": 8, "attention": 2}


@pytest.fixture(scope="module")
def stock(project_dir):
    spec = importlib.util.spec_from_file_location("stock", project_dir / "label" / "stock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_app(stock, project_dir, tmp_path_factory):
    """The stock app with the bundle and the small networks of the phantom, and few epochs for the teacher."""

    def make(weights: Path | None = None) -> Path:
        app = tmp_path_factory.mktemp("stock") / "app"
        shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", app)
        folder = app / "model" / MODEL
        stock.make_stock_bundle(project_dir / "bundle", folder, ["phantom.json"], weights)
        config = json.loads((folder / "configs" / "train.json").read_text())
        for stage, epochs in QUICK.items():
            config[stage]["epochs"] = epochs
        config["teacher"]["network_def"]["width"] = 8
        config.update({"num_workers": 0, "batch_size": 4})
        (folder / "configs" / "train.json").write_text(json.dumps(config, indent=4))
        return app

    return make


@pytest.fixture(scope="module")
def studies(tmp_path_factory, write_frames):
    folder = tmp_path_factory.mktemp("studies")
    write_frames(folder, 6)
    return folder


@pytest.fixture(scope="module")
def trained(make_app, studies, start_server):
    """The app after a server of it was given labels and trained on them."""
    app = make_app()
    with start_server(app, studies, CONF) as server:
        for number in range(5):
            for label, name in enumerate(PLANE_NAMES):
                answer = server.label(f"c{label}_{number}", {"label": name})
                assert answer.status_code == 200, answer.text
        status = server.train(MODEL, run_id="run_label", max_epochs=12, val_split=0.2)
        assert status["status"] == "DONE", "\n".join(status["details"])
        server.post("/reload")  # so that the server finds the weights that were not there when it started
        yield app, server


def test_a_model_trained_over_http_answers_with_class_names_and_scores_in_order(trained):
    _, server = trained
    right = 0
    for label in range(len(PLANE_NAMES)):
        answer = server.infer(MODEL, f"c{label}_5")
        assert answer.status_code == 200, answer.text
        prediction = answer.json()["prediction"]
        assert [row["label"] for row in prediction] == [name.lower() for name in PLANE_NAMES]
        assert sum(row["score"] for row in prediction) == pytest.approx(1, abs=1e-4)
        right += max(prediction, key=lambda row: row["score"])["idx"] == label
    assert right >= 4


@pytest.mark.parametrize("kind", ["nii", "nii_flat", "dcm"])
def test_nifti_and_dicom_give_the_scores_of_the_picture(trained, draw, tmp_path, kind):
    pixels = draw(2, 5)
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    scores = {}
    for file in (tmp_path / "frame.png", write(tmp_path, pixels, kind)):
        _, server = trained
        with file.open("rb") as stream:
            answer = server.post(
                f"/infer/{MODEL}",
                params={"output": "json"},
                data={"params": json.dumps({"device": "cpu"})},
                files={"file": (file.name, stream)},
            )
        assert answer.status_code == 200, answer.text
        scores[file.suffix] = [row["score"] for row in answer.json()["prediction"]]
    first, second = scores.values()
    assert first == pytest.approx(second, abs=1e-5)


def write(folder: Path, pixels: np.ndarray, kind: str) -> Path:
    if kind == "dcm":
        from pydicom import uid
        from pydicom.dataset import Dataset, FileMetaDataset

        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        file.file_meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        file.SOPClassUID, file.SOPInstanceUID = uid.UltrasoundImageStorage, file.file_meta.MediaStorageSOPInstanceUID
        file.Modality = "US"
        file.Rows, file.Columns = pixels.shape
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
        file.PixelData = pixels.tobytes()
        file.save_as(folder / "frame.dcm", enforce_file_format=True)
        return folder / "frame.dcm"
    voxels = pixels.T if kind == "nii_flat" else pixels.T[:, :, None]
    path = folder / "frame.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


def test_weights_of_another_network_are_refused_not_half_loaded(make_app, studies, start_server, tmp_path):
    torch.save({"fc.weight": torch.zeros(6, 64), "stranger": torch.zeros(1)}, tmp_path / "wrong.pt")
    with start_server(make_app(tmp_path / "wrong.pt"), studies, CONF) as server:
        before = sorted(studies.rglob("*"))
        for _ in range(2):
            assert server.infer(MODEL, "c0_0").status_code == 500
        assert "Missing key(s) in state_dict" in server.log.read_text()
        assert server.get("/info/").status_code == 200
        assert sorted(studies.rglob("*")) == before


@pytest.mark.parametrize("image", ["no_such_frame", "broken"])
def test_a_frame_that_is_not_there_or_damaged_leaves_the_server_serving(trained, studies, image):
    _, server = trained
    if image == "broken":
        (studies / "broken.png").write_bytes(b"no picture")
    answer = server.infer(MODEL, image)
    assert answer.status_code >= 400
    assert server.infer(MODEL, "c0_5").status_code == 200
