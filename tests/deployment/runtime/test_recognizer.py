from __future__ import annotations

import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from PIL import Image
from scipy.special import softmax

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.ultrasound.frames import FrameError, read_frame

from ...ultrasound.frames.make import anatomy, dataset, region
from .model import CLASSES, write_model
from .torch_free import run_without_torch

BACKENDS = ["onnxruntime", "openvino"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def halves(left: int, right: int, size=(20, 30)) -> np.ndarray:
    """A frame with two grey levels side by side."""
    pixels = np.full(size, right, np.uint8)
    pixels[:, : size[1] // 2] = left
    return pixels


def logits_of(image: np.ndarray) -> np.ndarray:
    """What the tiny network computes, in numpy."""
    height, width = image.shape
    means = (image[:, : width // 2].mean(), image[:, width // 2 :].mean(), image[: height // 2].mean())
    return 10 * np.array(means)


def test_a_frame_gets_the_probabilities_of_its_network(model, backend):
    recognizer = Recognizer(model, backend)
    assert recognizer.backend == backend
    assert recognizer.class_names == CLASSES
    assert recognizer.metadata["precision"] == "float32"
    pixels = halves(200, 90)
    probabilities = recognizer(pixels)
    assert probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    expected = softmax(logits_of(recognizer.preprocessing(pixels)[0]))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert CLASSES[probabilities.argmax()] == "left"
    assert CLASSES[recognizer(halves(90, 200)).argmax()] == "right"


def test_a_batch_is_its_frames_one_by_one(model, backend):
    recognizer = Recognizer(model, backend)
    inputs = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    logits = recognizer.batch(inputs)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [logits_of(image) for image in inputs[:, 0]], atol=1e-4)
    for number in range(5):
        np.testing.assert_allclose(recognizer.batch(inputs[number : number + 1])[0], logits[number], atol=1e-5)
    assert recognizer.batch(inputs[:0]).shape == (0, 3)


def test_answers_stay_when_the_next_one_is_given(model, backend):
    recognizer = Recognizer(model, backend)
    first = recognizer.batch(np.ones((1, 1, 8, 8), np.float32))
    kept = first.copy()
    recognizer.batch(np.zeros((1, 1, 8, 8), np.float32))
    assert np.array_equal(first, kept)


def test_threads_may_share_a_recognizer(model, backend):
    recognizer = Recognizer(model, backend)
    frames = [halves(level, 255 - level) for level in range(0, 250, 5)]
    alone = [recognizer(pixels) for pixels in frames]
    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(list(pool.map(recognizer, frames)), alone)


def test_logits_are_divided_by_the_temperature(tmp_path):
    warm = Recognizer(write_model(tmp_path / "warm.onnx", temperature="2.5", threshold="0.6"))
    assert warm.threshold == 0.6
    logits = np.array([[1.0, 2.0, 4.0], [1000.0, 0.0, -1000.0]], np.float32)
    np.testing.assert_allclose(warm.probabilities(logits), softmax(logits.astype(np.float64) / 2.5, axis=1), atol=1e-15)


def test_a_network_with_attention_tells_where_it_looks(tmp_path, model, backend):
    recognizer = Recognizer(write_model(tmp_path / "seeing.onnx", attention=True), backend)
    inputs = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    assert recognizer.attention
    assert np.array_equal(recognizer.explain(inputs), inputs[:, 0])
    assert recognizer.batch(inputs).shape == (2, 3)
    blind = Recognizer(model, backend)
    assert not blind.attention
    with pytest.raises(ValueError, match="no output 'attention'"):
        blind.explain(inputs)


@pytest.mark.parametrize(("largest", "is_known"), [(0.3, False), (0.9, True)])
def test_a_frame_unlike_those_of_training_tells_next_to_nothing(tmp_path, model, backend, largest, is_known):
    path = write_model(tmp_path / "distant.onnx", distance=True, largest_distance=str(largest))
    frame = halves(255, 0)
    found, alone = Recognizer(path, backend)(frame), Recognizer(model, backend)(frame)
    assert found.argmax() == alone.argmax()
    assert (np.ptp(found) < 0.1) is not is_known
    if is_known:
        np.testing.assert_allclose(found, alone, atol=1e-6)


def test_a_file_is_read_as_the_package_reads_frames(tmp_path):
    recognizer = Recognizer(write_model(tmp_path / "student.onnx", crop=True))
    Image.fromarray(halves(250, 60, (90, 120))).save(tmp_path / "frame.png")
    assert np.array_equal(recognizer.file(tmp_path / "frame.png"), recognizer(halves(250, 60, (90, 120))))
    with pytest.raises(FileNotFoundError):
        recognizer.file(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(FrameError, match="text.png"):
        recognizer.file(tmp_path / "text.png")


def test_a_frame_of_a_cine_is_recognised_within_its_region(tmp_path):
    recognizer = Recognizer(write_model(tmp_path / "student.onnx", crop=True))
    frames = np.stack([np.kron(anatomy(seed), np.ones((5, 5), np.uint8)) for seed in range(2)])
    cine = dataset(frames, SequenceOfUltrasoundRegions=[region(60, 20, 260, 180)])
    cine.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    frame = read_frame(tmp_path / "cine.dcm", 1)
    assert frame.region is not None
    probabilities = recognizer.file(tmp_path / "cine.dcm", 1)
    assert np.array_equal(probabilities, recognizer(frames[1], frame.region))
    assert not np.allclose(probabilities, recognizer(frames[1]))


def test_runtimes_agree(model):
    recognizers = [Recognizer(model, name) for name in BACKENDS if pytest.importorskip(name)]
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70))
    one, other = (recognizer(pixels) for recognizer in recognizers)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no exported network '.*none.onnx'"):
        Recognizer(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"this is no network"])
def test_what_is_no_network_is_refused(tmp_path, backend, content):
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot load '.*broken.onnx'"):
        Recognizer(tmp_path / "broken.onnx", backend)


@pytest.mark.parametrize("key", ["class_names", "preprocessing", "temperature", "threshold", "outputs"])
def test_a_network_that_was_not_exported_here_is_refused(tmp_path, backend, key):
    path = write_model(tmp_path / "foreign.onnx", **{key: None})
    with pytest.raises(ValueError, match=rf"foreign.onnx' does not tell its '{key}'.*`python -m monai_fetalkd export`"):
        Recognizer(path, backend)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"temperature": "1e-320"}, "metadata of .* damaged.*temperature"),
        ({"class_names": "["}, "metadata of .* damaged"),
        ({"class_names": "[" * 100_000}, "metadata of .* damaged"),
        ({"class_names": "3"}, "metadata of .* damaged"),
        ({"class_names": '"abc"'}, "metadata of .* damaged.*abc"),
        ({"class_names": '["a", "a", "b"]'}, "metadata of .* damaged.*once"),
        ({"class_names": "[1, 2, 3]"}, "metadata of .* damaged.*names"),
        ({"class_names": '["a"]'}, "metadata of .* damaged.*two or more"),
        ({"temperature": "warm"}, "metadata of .* damaged.*warm"),
        *[({"temperature": value}, "metadata of .* damaged.*above 0") for value in ("0", "nan", "-1", "inf")],
        *[({"threshold": value}, "metadata of .* damaged.*0 to 1") for value in ('"0.5"', "2", "-1", "NaN", "true")],
        *[({"outputs": value}, "metadata of .* damaged.*logits") for value in ("3", '"logits"', '["attention"]')],
        ({"preprocessing": "3"}, "metadata of .* damaged"),
        ({"preprocessing": '{"size": [8, 8]}'}, "metadata of .* damaged.*'crop'"),
        ({"class_names": '["left", "right"]'}, r"logits \(3,\).*\(2,\)"),
    ],
)
def test_damaged_metadata_are_refused(tmp_path, entries, said):
    with pytest.raises(ValueError, match=said):
        Recognizer(write_model(tmp_path / "damaged.onnx", **entries))


def test_another_size_than_the_network_takes_is_refused_at_once(tmp_path, backend):
    path = write_model(tmp_path / "other.onnx", preprocessing=json.dumps({"size": [16, 16], "crop": False}))
    with pytest.raises(ValueError, match=r"prepares frames as \(1, 16, 16\), but takes \(1, 8, 8\)"):
        Recognizer(path, backend)


@pytest.mark.parametrize(
    "inputs",
    [np.zeros((1, 8, 8), np.float32), np.zeros((1, 1, 8, 9), np.float32), np.zeros((1, 1, 8, 8))],
    ids=["no batch", "size", "type"],
)
def test_other_inputs_are_refused(model, inputs):
    with pytest.raises(ValueError, match=rf"float32 inputs \[N, 1, 8, 8\], not {inputs.dtype} \({inputs.shape[0]},"):
        Recognizer(model).batch(inputs)


def test_arguments_that_are_no_choice_are_refused(model):
    with pytest.raises(ValueError, match="tensorrt.*auto, onnxruntime, openvino"):
        Recognizer(model, "tensorrt")
    for threads in (0, 100_000):
        with pytest.raises(ValueError, match=f"thread.* not on {threads}"):
            Recognizer(model, threads=threads)


@pytest.mark.parametrize(
    ("backend", "package"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("auto", "onnxruntime")]
)
def test_a_runtime_that_is_not_installed_is_named_with_what_to_install(model, monkeypatch, backend, package):
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"`pip install {package}`"):
        Recognizer(model, backend)


@pytest.mark.parametrize(
    ("bits", "exact", "warned"), [("8", False, 1), ("7", False, 0), ("8", True, 0), ("8", None, 0)]
)
def test_a_file_that_this_processor_would_overflow_on_is_told(tmp_path, monkeypatch, bits, exact, warned):
    monkeypatch.setattr("monai_fetalkd.deployment.runtime.recognizer.adds_exactly", lambda: exact)
    path = write_model(tmp_path / "int8.onnx", weight_bits=bits)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Recognizer(path, "onnxruntime")
    assert ["weight_bits=7" in str(warning.message) for warning in told] == [True] * warned


def test_neither_torch_nor_monai_is_needed(model, tmp_path):
    Image.fromarray(halves(200, 90)).save(tmp_path / "frame.png")
    code = f"""
from monai_fetalkd.deployment.runtime import Recognizer
recognizer = Recognizer({str(model)!r}, "onnxruntime")
print(repr(recognizer.file({str(tmp_path / "frame.png")!r}).tolist()))
import sys
assert not {{"torch", "monai", "pydicom", "nibabel", "openvino"}} & sys.modules.keys()
"""
    process = run_without_torch(code)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == Recognizer(model, "onnxruntime")(halves(200, 90)).tolist()


def test_without_torch_means_without_torch():
    process = run_without_torch("import torch")
    assert process.returncode == 1
    assert "ModuleNotFoundError: No module named 'torch'" in process.stderr
    assert run_without_torch("import monai.transforms").returncode == 1
    assert "usage: python -m monai_fetalkd" in run_without_torch(["--help"]).stdout


def test_a_network_of_a_fixed_batch_is_refused(tmp_path):
    path = write_model(tmp_path / "four.onnx")
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"four\.onnx.*any number"):
        Recognizer(path, backend="onnxruntime")
