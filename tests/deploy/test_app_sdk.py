"""The operator inside the MONAI Deploy App SDK, in its own environment: see docs/deploy.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def sdk(project_dir):
    """The modules of ``deploy/`` beside the SDK."""
    pytest.importorskip("holoscan")
    sys.path.insert(0, str(project_dir / "deploy"))
    import bundle_classifier_operator
    from monai.deploy import core

    yield bundle_classifier_operator, core
    sys.path.remove(str(project_dir / "deploy"))


@pytest.fixture(scope="module")
def bundle(project_dir, tmp_path_factory) -> Path:
    """The bundle with random weights."""
    from monai.bundle import ConfigParser

    folder = tmp_path_factory.mktemp("bundles") / "fetal_ultrasound_plane_classification"
    shutil.copytree(project_dir / "bundle" / "configs", folder / "configs")
    (folder / "models").mkdir()
    torch.manual_seed(3)
    torch.save(network(folder, ConfigParser).state_dict(), folder / "models" / "model.pt")
    return folder


def network(folder: Path, parser_class) -> torch.nn.Module:
    parser = parser_class()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    return parser.get_parsed_content("network_def").eval()


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Frames that are higher than wide, with a corner that tells a transposed one."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("frames")
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 60, (90, 60), np.uint8)
        pixels[: 20 + 10 * index, :30] += 150
        pixels[80:] = 0  # below the sector
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def expected(bundle, frames) -> dict[str, np.ndarray]:
    """What ``inference.json`` says of the frames, with MONAI alone."""
    return said(bundle, frames, ["inference"])


def said(bundle, frames, config_names) -> dict[str, np.ndarray]:
    import csv

    from monai.bundle import ConfigWorkflow

    flow = ConfigWorkflow(
        [str(bundle / "configs" / f"{name}.json") for name in config_names],
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(frames),
        device="cpu",
    )
    flow.initialize()
    flow.run()
    with (bundle / "eval" / "predictions.csv").open() as file:
        return {Path(row[0]).name: np.array(row[1:], np.float32) for row in csv.reader(file)}


def classified(sdk, bundle, pixels, **kwargs):
    """Run an application of a source, the operator and a sink over one frame."""
    module, core = sdk
    received = []

    class Source(core.Operator):
        def setup(self, spec):
            spec.output("image")

        def compute(self, op_input, op_output, context):
            op_output.emit(core.Image(pixels), "image")

    class Sink(core.Operator):
        def setup(self, spec):
            spec.input("pred")

        def compute(self, op_input, op_output, context):
            received.append(op_input.receive("pred"))

    class App(core.Application):
        def compose(self):
            from holoscan.conditions import CountCondition

            source = Source(self, CountCondition(self, 1), name="source")
            operator = module.BundleClassifierOperator(
                self, app_context=core.AppContext({}), bundle_path=bundle, name="classifier", **kwargs
            )
            sink = Sink(self, name="sink")
            self.add_flow(source, operator, {("image", "image")})
            self.add_flow(operator, sink, {("pred", "pred")})

    App([sys.executable]).run()
    return received[0]


@pytest.mark.parametrize("extra_axes", [0, 1])
def test_names_and_probabilities_are_those_of_the_bundle(sdk, bundle, frames, expected, extra_axes):
    from PIL import Image

    names = list(channel_def(bundle).values())
    for file, probabilities in expected.items():
        pixels = np.asarray(Image.open(frames / file))
        pred = classified(sdk, bundle, pixels[(None,) * extra_axes])
        assert pred["probabilities"] == pytest.approx(probabilities, abs=1e-5)
        assert pred["class_names"] == names
        assert pred["result"] == [names[int(probabilities.argmax())]]


def channel_def(bundle) -> dict[str, str]:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    return metadata["network_data_format"]["outputs"]["pred"]["channel_def"]


def test_a_colour_frame_is_made_grey_as_the_bundle_does(sdk, bundle, frames, expected):
    from PIL import Image

    pixels = np.asarray(Image.open(frames / "2.png").convert("RGB"))
    assert classified(sdk, bundle, pixels)["probabilities"] == pytest.approx(expected["2.png"], abs=1e-5)


def test_frames_are_cropped_where_the_bundle_crops_them(sdk, bundle, frames, expected):
    pytest.importorskip("scipy")  # that is, monai-fetalkd is installed too
    from PIL import Image

    names = ["inference", "ultrasound"]
    cropped = said(bundle, frames, names)["3.png"]
    assert cropped != pytest.approx(expected["3.png"], abs=1e-5)
    pixels = np.asarray(Image.open(frames / "3.png"))
    assert classified(sdk, bundle, pixels, config_names=names)["probabilities"] == pytest.approx(cropped, abs=1e-5)


def test_the_sdks_own_operator_still_names_class_0_over_and_over():
    """The reason for ours; when this fails, ours may go."""
    import inspect

    from monai.deploy.operators.monai_bundle_inference_operator import MonaiBundleInferenceOperator

    source = inspect.getsource(MonaiBundleInferenceOperator._send_output)
    assert 'out_conf["channel_def"][str(int(v))] for v in value.flatten()' in source


def test_the_app_names_the_plane_of_a_dicom_series(bundle, frames, expected, project_dir, tmp_path):
    dicom(frames / "1.png", tmp_path / "in" / "frame.dcm")
    done = app(project_dir, tmp_path, bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "out" / "planes.json").read_text())
    assert list(said["probabilities"].values()) == pytest.approx(expected["1.png"].tolist(), abs=1e-5)
    assert said["plane"] == list(channel_def(bundle).values())[int(expected["1.png"].argmax())]


def app(project_dir, tmp_path, bundle):
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(bundle)]
    return subprocess.run(
        [sys.executable, str(project_dir / "deploy" / "app.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def dicom(picture: Path, path: Path) -> None:
    import pydicom
    from PIL import Image
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    pixels = np.asarray(Image.open(picture))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.Modality, file.PatientID, file.SeriesNumber, file.InstanceNumber = "US", "phantom", 1, 1
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True)
    pydicom.dcmwrite(path, file, enforce_file_format=True)


def test_a_wrong_bundle_path_is_named(sdk, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' is no folder of a bundle"):
        classified(sdk, tmp_path / "nowhere", np.zeros((8, 8), np.uint8))


def test_missing_weights_are_named(sdk, bundle, tmp_path):
    shutil.copytree(bundle / "configs", tmp_path / "bundle" / "configs")
    with pytest.raises(FileNotFoundError, match="has no weights"):
        classified(sdk, tmp_path / "bundle", np.zeros((8, 8), np.uint8))


def test_weights_of_another_network_are_refused(sdk, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    with pytest.raises(RuntimeError, match="Missing key"):
        classified(sdk, tmp_path / "bundle", np.zeros((8, 8), np.uint8))


def test_a_wrong_class_table_is_refused(sdk, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    from monai.bundle import ConfigParser

    # exported with six classes, the table cut to five afterwards
    module = torch.jit.script(network(bundle, ConfigParser))
    torch.jit.save(module, tmp_path / "bundle" / "models" / "model.ts")
    path = tmp_path / "bundle" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["5"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="The network gives 6 classes, but channel_def of 'pred' .* has 5"):
        classified(sdk, tmp_path / "bundle", np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), "One frame is classified at a time"),
        (np.full((8, 8), 1000, np.uint16), "levels from 0 to 255"),
    ],
)
def test_what_is_no_frame_is_refused(sdk, bundle, pixels, message):
    with pytest.raises(ValueError, match=message):
        classified(sdk, bundle, pixels)


def test_a_mistake_ends_the_app_with_an_error_and_writes_nothing(project_dir, frames, tmp_path):
    dicom(frames / "1.png", tmp_path / "in" / "frame.dcm")
    done = app(project_dir, tmp_path, tmp_path / "nowhere")
    assert done.returncode != 0
    assert "No such file/folder" in done.stderr
    assert list((tmp_path / "out").glob("*")) == []  # the folder itself is made by the SDK
