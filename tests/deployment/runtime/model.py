"""A tiny exported network whose answers are known by construction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("left", "right", "top")


def write_model(
    path: Path,
    size: tuple[int, int] = (8, 8),
    crop: bool = False,
    attention: bool = False,
    distance: bool = False,
    **metadata: str | None,
) -> Path:
    """Write a network whose logits are ten times the mean of the left half, the right half and the upper half.

    Its attention is the input itself, its distance the mean of that. ``metadata`` replaces an entry, or leaves it out
    where it is None.
    """
    height, width = size
    weights = np.zeros((height, width, len(CLASSES)), np.float32)
    weights[:, : width // 2, 0] = 1
    weights[:, width // 2 :, 1] = 1
    weights[: height // 2, :, 2] = 1
    weights = 10 * weights.reshape(-1, len(CLASSES)) / weights.sum(axis=(0, 1))
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(CLASSES)])]
    constants = [numpy_helper.from_array(weights, "w")]
    if attention:
        nodes.append(helper.make_node("Squeeze", ["image", "axes"], ["attention"]))
        outputs.append(helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N", height, width]))
        constants.append(numpy_helper.from_array(np.array([1]), "axes"))
    if distance:
        nodes.append(helper.make_node("ReduceMean", ["flat", "last"], ["distance"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["N"]))
        constants.append(numpy_helper.from_array(np.array([1]), "last"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, height, width])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entries = {
        "class_names": json.dumps(CLASSES),
        "preprocessing": json.dumps({"size": size, "crop": crop}),
        "temperature": "1.0",
        "threshold": "null",
        "input": "image",
        "outputs": json.dumps([output.name for output in outputs]),
        "precision": "float32",
        **metadata,
    }
    helper.set_model_props(model, {key: value for key, value in entries.items() if value is not None})
    onnx.save(model, path)
    return path
