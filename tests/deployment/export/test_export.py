from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.transforms import Compose, Flipd
from torch import nn

from monai_fetalkd.deployment.export import NetworkWithAttention, trace, write_int8, write_onnx
from monai_fetalkd.deployment.export.formats import attention_layer
from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.evaluation.scores import Predictions, with_temperature
from monai_fetalkd.losses.attention import attention_map
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.utils.checkpoints import save_weights

FILES = {"student.onnx", "student.int8.onnx", "student.pt2", "export.json"}


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_every_file_is_there_and_nothing_else(exported):
    folder, content = exported
    assert names(folder) == FILES
    assert json.loads((folder / "export.json").read_text(encoding="utf-8")) == content


@pytest.mark.parametrize("count", [1, 2, 5])
def test_float32_files_are_the_network_for_any_number_of_frames(exported, trained, frames, count):
    folder, _ = exported
    images = frames("testing")[0][:count]
    with FeatureTaps(trained, ["layer2"]) as taps:  # layer3 has 4 x 4 positions, too few to be shown
        logits = trained(images)
    attention = attention_map(taps.pop()["layer2"])
    expected = [logits, attention / attention.amax(dim=(1, 2), keepdim=True)]
    session = onnxruntime.InferenceSession(folder / "student.onnx")
    found = session.run(["logits", "attention", "distance"], {"image": images.numpy()})
    program = torch.export.load(folder / "student.pt2").module()(images)
    np.testing.assert_allclose(found.pop(), program[2], rtol=1e-3)
    for values, onnx_values, program_values in zip(expected, found, program[:2], strict=True):
        np.testing.assert_allclose(onnx_values, values, atol=1e-5)
        np.testing.assert_allclose(program_values, values, atol=1e-5)


def test_the_onnx_files_are_plain_small_and_tell_nothing_of_this_machine(exported):
    folder, _ = exported
    float32, int8 = (onnx.load(folder / name) for name in ("student.onnx", "student.int8.onnx"))
    assert "BatchNormalization" not in {node.op_type for node in float32.graph.node}
    assert {node.op_type for node in int8.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    weights = [tensor for tensor in int8.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    convolutions = [tensor for tensor in weights if len(tensor.dims) == 4]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in int8.graph.node)
    for path in folder.glob("student.*"):
        assert str(folder.anchor + "home").encode() not in path.read_bytes()
        assert __file__.encode() not in path.read_bytes()
        assert torch.__file__.encode() not in path.read_bytes()


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_have_the_bits_that_the_processor_can_add_up(exported, frames, tmp_path, bits, largest):
    path = tmp_path / "student.int8.onnx"
    write_int8(exported[0] / "student.onnx", frames("training")[0][:4].numpy(), path, {}, bits)
    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props}["weight_bits"] == str(bits)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert max(np.abs(values.astype(int)).max() for values in weights) == largest


def test_the_onnx_files_say_what_they_are(exported, ckpt, datalist):
    folder, content = exported
    for name, precision in (("student.onnx", "float32"), ("student.int8.onnx", "int8")):
        recognizer = Recognizer(folder / name, backend="onnxruntime")
        assert recognizer.class_names == tuple(datalist.class_names)
        assert recognizer.preprocessing.to_dict() == {"size": [64, 64], "crop": True}
        assert recognizer.temperature == content["temperature"]
        assert recognizer.threshold == content["threshold"]["value"]
        assert recognizer.attention
        metadata = recognizer.metadata
        assert metadata["precision"] == precision
        assert metadata["checkpoint_sha256"] == hashlib.sha256(ckpt.read_bytes()).hexdigest()
        assert metadata["licence"] == "Apache-2.0"
        assert metadata["torch"] == version("torch")
        assert metadata["created"] == content["created"]
        assert metadata["version"] == "3.2"
        assert metadata["attention_layer"] == content["attention"]["layer"] == "layer2"
        assert list(recognizer.attention_grid) == content["attention"]["grid"] == [8, 8]


@pytest.mark.parametrize(
    ("layers", "side", "expected"),
    [
        (("layer1", "layer4"), 224, ("layer4", (7, 7))),
        (("layer1", "layer2", "layer3", "layer4"), 128, ("layer3", (8, 8))),
        (("layer3", "layer4"), 64, ("layer3", (4, 4))),
    ],
)
def test_the_attention_is_that_of_the_last_layer_that_can_be_shown(layers, side, expected):
    assert attention_layer(student_resnet(width=2).eval(), layers, (1, side, side)) == expected


def test_layers_of_tokens_have_no_attention_to_export():
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 8))
    with pytest.raises(ValueError, match="rows and columns"):
        attention_layer(network, ("0", "1"), (1, 8, 8))


def test_the_figures_of_the_report_are_those_of_the_files(exported, trained, frames, datalist):
    folder, content = exported
    images, labels = frames("testing")
    float32, int8 = (Recognizer(folder / name, backend="onnxruntime") for name in ("student.onnx", "student.int8.onnx"))
    logits = {"student.onnx": float32.batch(images.numpy()), "student.int8.onnx": int8.batch(images.numpy())}
    reference = {"student.onnx": trained(images).numpy(), "student.int8.onnx": logits["student.onnx"]}
    for name, values in logits.items():
        figures, classes = content[name], values.argmax(axis=1)
        assert figures["bytes"] == (folder / name).stat().st_size
        assert figures["agreement"] == pytest.approx((classes == reference[name].argmax(axis=1)).mean())
        assert figures["accuracy"] == pytest.approx((classes == labels.numpy()).mean())
        assert figures["max_difference"] == pytest.approx(np.abs(values - reference[name]).max(), abs=1e-5)
        brain = labels.numpy() == list(datalist.class_names).index("Fetal brain")
        assert figures["by_class"]["Fetal brain"]["frames"] == brain.sum()
        assert figures["by_class"]["Fetal brain"]["accuracy"] == pytest.approx(
            (classes == labels.numpy())[brain].mean()
        )
    assert content["student.onnx"]["max_difference"] <= 1e-4
    assert content["student.pt2"]["agreement"] == 1
    assert content["student.int8.onnx"]["written"] is True


def test_the_report_tells_what_the_threshold_does(exported, frames, datalist):
    folder, content = exported
    recognizer = Recognizer(folder / "student.onnx", backend="onnxruntime")
    for section, told in (("validation", "validation"), ("testing", "float32")):
        images, labels = frames(section)
        rows = datalist.section(section)
        raw = torch.softmax(torch.from_numpy(recognizer.batch(images.numpy())).double(), dim=1).numpy()
        tempered = with_temperature(Predictions.from_rows(datalist.class_names, rows, raw), content["temperature"])
        sure = tempered.probabilities.max(axis=1) >= content["threshold"]["value"] - 1e-6
        assert content["threshold"][told]["coverage"] == pytest.approx(sure.mean())
        right = tempered.classes[sure] == labels.numpy()[sure]
        assert content["threshold"][told]["accuracy"] == pytest.approx(right.mean())
    assert content["threshold"]["validation"]["accuracy"] >= content["threshold"]["target"]


def test_an_int8_file_that_decides_otherwise_is_refused_and_the_others_stay(export_into, tmp_path):
    older = tmp_path / "student.int8.onnx"
    older.write_text("of another network")
    with pytest.raises(ValueError, match=r"INT8 decides as float32 does on .* less than 110\.00%"):
        export_into(tmp_path, agreement=1.1, overwrite=True)
    assert names(tmp_path) == FILES - {"student.int8.onnx"}
    content = json.loads((tmp_path / "export.json").read_text())
    assert content["student.int8.onnx"]["written"] is False
    assert content["student.onnx"]["agreement"] == 1


def test_a_file_that_is_another_network_leaves_nothing(export_into, tmp_path, trained):
    class OtherOnceExported(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student_resnet(width=4, layers=(1, 1, 1, 1))
            self.layer4 = self.inner.layer4

        def forward(self, image):
            return self.inner(image) + (0.01 if torch.compiler.is_exporting() else 0)

    network = OtherOnceExported()
    save_weights(network, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"'student\.pt2' is not the same network: its logits differ .* up to 0\.01"):
        export_into(tmp_path / "exported", network=network, ckpt=tmp_path / "model.pt", layers=("layer4",))
    assert names(tmp_path / "exported") == set()


def test_frames_that_the_terminal_would_prepare_otherwise_are_refused(export_into, tmp_path, dataset, datalist):
    flipped = dataset(datalist.section("training")[:6])
    flipped._cache = [Flipd("image", 1)(item) for item in flipped._cache]
    with pytest.raises(ValueError, match=r"The frame '.*' would reach the network otherwise on the terminal"):
        export_into(tmp_path / "exported", calibration=flipped)
    assert names(tmp_path / "exported") == set()


def test_a_reading_that_does_not_crop_is_told_to_the_terminal(export_into, tmp_path, reading):
    whole = Compose([step for step in reading.transforms if type(step).__name__ != "CropSectord"])
    with pytest.raises(ValueError, match="would reach the network otherwise"):  # for these frames were cropped
        export_into(tmp_path / "exported", reading=whole)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"The checkpoint '.*model\.pt' does not exist"),
        (lambda path: path.write_bytes(b"PK\x03\x04 torn"), "cannot be read as a checkpoint"),
        (lambda path: save_weights(student_resnet(width=2), path), "belongs to another network"),
    ],
)
def test_a_checkpoint_that_does_not_fit_leaves_nothing(export_into, tmp_path, write, message):
    write(tmp_path / "model.pt")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export_into(tmp_path / "exported", ckpt=tmp_path / "model.pt")
    assert names(tmp_path / "exported") == set()


def test_an_older_export_is_kept_unless_told_otherwise(exported, export_into):
    folder, _ = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"\(student\.onnx, student\.int8\.onnx"):
        export_into(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_ends_the_export(export_into, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        export_into(tmp_path / "file" / "exported")
    assert names(tmp_path) == {"file"}


@pytest.mark.slow
def test_the_slim_student_takes_less_than_a_megabyte_in_int8(tmp_path):
    traced = trace(NetworkWithAttention(student_resnet(width=16), "layer4"), (1, 224, 224))
    write_onnx(traced, ["logits", "attention"], tmp_path / "a.onnx", {})
    write_int8(
        tmp_path / "a.onnx", [np.random.default_rng(0).random((1, 224, 224), np.float32)], tmp_path / "b.onnx", {}
    )
    assert (tmp_path / "b.onnx").stat().st_size < 1_000_000
