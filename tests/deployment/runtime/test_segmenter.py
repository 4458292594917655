"""Masks of an exported network whose answers are known: what is brighter than half is head."""

import json
import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from monai_fetalkd.deployment.runtime import Recognizer, Segmenter
from monai_fetalkd.ultrasound.biometry import head_circumference

from .model import write_model
from .torch_free import run_without_torch

SIZE = (96, 96)


def write_segmenter(path, **changes):
    """A network whose logits are 0.5 - x and x - 0.5 of a pixel x."""
    weights = numpy_helper.from_array(np.array([-1, 1], np.float32).reshape(2, 1, 1, 1), "w")
    bias = numpy_helper.from_array(np.array([0.5, -0.5], np.float32), "b")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, *SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2, *SIZE])
    node = helper.make_node("Conv", ["image", "w", "b"], ["logits"])
    graph = helper.make_graph([node], "bright", [image], [logits], [weights, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {
        "task": "segmentation",
        "class_names": json.dumps(["background", "head"]),
        "preprocessing": json.dumps({"size": SIZE, "crop": False}),
        **changes,
    }
    helper.set_model_props(model, {key: value for key, value in entries.items() if value is not None})
    onnx.save(model, path)
    return path


def disc(shape, center, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2) * 255.0


@pytest.fixture
def segmenter(tmp_path):
    return Segmenter(write_segmenter(tmp_path / "student.onnx"), backend="onnxruntime")


@pytest.mark.parametrize("shape", [(540, 800), (600, 400), (50, 70), (96, 96)])
def test_mask_lies_on_its_frame(segmenter, shape):
    radius = min(shape) / 4
    pixels = disc(shape, (shape[0] * 0.4, shape[1] * 0.6), radius)
    mask = segmenter(pixels)
    assert (mask.shape, mask.dtype) == (shape, np.uint8)
    missed = np.mean(mask != (pixels > 0))
    assert missed < 0.02 * math.pi * radius**2 / pixels.size + 0.005
    assert head_circumference(mask) == pytest.approx(2 * math.pi * radius, rel=0.02)


def test_no_head_is_an_empty_mask(segmenter):
    assert not segmenter(np.zeros((100, 120))).any()


@pytest.mark.parametrize("pixels", [np.zeros((2, 8, 8)), np.full((8, 8), np.nan)], ids=["3-D", "nan"])
def test_what_is_no_frame(segmenter, pixels):
    with pytest.raises(ValueError, match="frame"):
        segmenter(pixels)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": None}, "segmentation"),
        ({"class_names": None}, "class_names"),
        ({"preprocessing": None}, "preprocessing"),
        ({"preprocessing": "{"}, "damaged"),
        ({"class_names": '"head"'}, "damaged.*'head'"),
        ({"class_names": '["head", "head"]'}, "damaged.*'head'"),
        ({"class_names": json.dumps(["background", "head", "other"])}, "3"),
        ({"preprocessing": json.dumps({"size": SIZE, "crop": True})}, "crop"),
    ],
)
def test_files_that_are_no_segmenter(tmp_path, changes, named):
    path = write_segmenter(tmp_path / "student.onnx", **changes)
    with pytest.raises(ValueError, match=named):
        Segmenter(path, backend="onnxruntime")


def test_a_classifier_is_no_segmenter_nor_the_other_way_round(tmp_path):
    with pytest.raises(ValueError, match="segmentation"):
        Segmenter(write_model(tmp_path / "a.onnx"), backend="onnxruntime")
    with pytest.raises(ValueError, match=r"b\.onnx.*segmentation"):
        Recognizer(write_segmenter(tmp_path / "b.onnx"), backend="onnxruntime")
    with pytest.raises(FileNotFoundError, match=r"c\.onnx"):
        Segmenter(tmp_path / "c.onnx")


def test_it_needs_no_torch(tmp_path):
    path = write_segmenter(tmp_path / "student.onnx")
    code = f"""
import numpy as np
from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.ultrasound.biometry import head_circumference
pixels = np.zeros((100, 120)); pixels[20:80, 30:90] = 255
print(head_circumference(Segmenter({str(path)!r}, backend="onnxruntime")(pixels), 0.5) > 0)
"""
    result = run_without_torch(code)
    assert result.stdout.strip() == "True", result.stderr
