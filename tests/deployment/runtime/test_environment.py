"""The wheel where only what the runtime needs is installed."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.ultrasound.data import phantom_frame

from ...ultrasound.frames.make import anatomy, dataset
from .model import write_model

_CODE = """
import json, sys
from monai_fetalkd.deployment.runtime import Recognizer
recognizer = Recognizer(sys.argv[1])
print(json.dumps([recognizer.backend, *(recognizer.file(path).tolist() for path in sys.argv[2:])]))
"""


@pytest.mark.slow
def test_frames_get_the_same_probabilities_without_torch_and_monai(torch_free, tmp_path):
    model = write_model(tmp_path / "student.onnx", size=(64, 64), crop=True)
    paths = [tmp_path / "frame.png", tmp_path / "frame.dcm"]
    Image.fromarray(phantom_frame(0, np.random.default_rng(0), 200)).save(paths[0])
    dataset(np.kron(anatomy(), np.ones((5, 5), np.uint8))).save_as(paths[1], enforce_file_format=True)

    for package in ("torch", "monai"):
        assert subprocess.run([torch_free, "-c", f"import {package}"], capture_output=True, cwd=tmp_path).returncode
    process = subprocess.run([torch_free, "-c", _CODE, model, *paths], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    backend, *probabilities = json.loads(process.stdout)
    assert backend == "onnxruntime"
    here = Recognizer(model, "onnxruntime")
    np.testing.assert_allclose(probabilities, [here.file(path) for path in paths], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_wheel_brings_a_student_of_its_own(torch_free, tmp_path):
    Image.fromarray(phantom_frame(0, np.random.default_rng(0), 200)).save(tmp_path / "frame.png")
    command = [torch_free, "-m", "monai_fetalkd", "stream", "frame.png"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    answer, _ = map(json.loads, process.stdout.splitlines())
    expected = Recognizer(backend="onnxruntime").file(tmp_path / "frame.png")
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, rtol=0, atol=1e-5)
