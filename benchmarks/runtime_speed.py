"""How fast an exported student answers, beside its teacher and beside PyTorch.

    python benchmarks/runtime_speed.py --data ../shared/data
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/runtime_speed.py

Four questions, on one thread, batch 1: the network alone on every runtime that is installed, and how near it comes to
the floor, its multiply-accumulates over the measured peak of the core; a decoded frame of 960 x 660 to its
probabilities, with crop and resize; a DICOM cine to its probabilities; and a new process to its first answer. Weights
are random: arithmetic takes as long as with others. Whoever is compared takes turns in random order in one process.
Milliseconds are by the clock, so that the machine should have nothing else to do; those of the processor's own time
stand beside them and tell when it had. The error of every row's logits is printed: nobody is fast by leaving something
out.

The second line caps PyTorch and OpenVINO at AVX2; ONNX Runtime has no such switch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from read_speed import draw_frame, find_frames
from torch import nn

from monai_fetalkd.deployment.export import NetworkWithAttention, write_int8, write_onnx
from monai_fetalkd.deployment.export.formats import trace
from monai_fetalkd.deployment.runtime import Preprocessing, Recognizer
from monai_fetalkd.deployment.runtime.sessions import BACKENDS, open_sessions
from monai_fetalkd.evaluation.cost import multiply_accumulates
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.ultrasound.data import PLANE_NAMES
from monai_fetalkd.ultrasound.frames import iterate_frames, read_frame

SIDE = 224
TEACHER, STUDENT = "teacher, ResNet-50", "student, width 16"
EAGER = "PyTorch float32"
INSTALLED = [name for name in BACKENDS if name != "auto" and find_spec(name)]
FIRST_ANSWER = """
import sys
from monai_fetalkd.deployment.runtime import Recognizer
Recognizer(sys.argv[1], sys.argv[2]).file(sys.argv[3])
"""

Network = Callable[[np.ndarray], np.ndarray]
Times = Mapping[str, Sequence[tuple[float, float]]]  # (by the clock, of the processor) in seconds


def take_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Time each call once a round, in random order, after three rounds that warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(-3, rounds):
        random.shuffle(order)
        for name in order:
            start, busy = time.perf_counter(), time.process_time()
            calls[name]()
            seconds = time.perf_counter() - start, time.process_time() - busy
            if turn >= 0:
                times[name].append(seconds)
    return times


def describe(times: Sequence[tuple[float, float]]) -> str:
    """Median and 95th percentile by the clock, median of the processor, and how many a second."""
    clock = [1000 * seconds for seconds, _ in times]
    busy = statistics.median(1000 * seconds for _, seconds in times)
    median, late = statistics.median(clock), statistics.quantiles(clock, n=20)[-1]
    return f"| {median:.2f} | {late:.2f} | {busy:.2f} | {1000 / median:.0f} |"


def times_as_fast(other: Sequence[tuple[float, float]], one: Sequence[tuple[float, float]]) -> float:
    """Median over the rounds of the ratio of the processor's times, which other programs disturb least."""
    return statistics.median(theirs / ours for (_, theirs), (_, ours) in zip(other, one, strict=True))


def export(network: nn.Module, name: str, frames: Sequence[np.ndarray], folder: Path) -> dict[str, Path]:
    """The files of a network by their precision, as ``python -m monai_fetalkd export`` writes them."""
    files = {precision: folder / f"{name}.{precision}.onnx" for precision in ("float32", "INT8")}
    metadata = {
        "class_names": json.dumps(PLANE_NAMES),
        "preprocessing": json.dumps(Preprocessing((SIDE, SIDE), crop=True).to_dict()),
        "temperature": "1.0",
        "threshold": "null",
        "outputs": json.dumps(["logits", "attention"]),
    }
    program = trace(NetworkWithAttention(network, "layer4"), (1, SIDE, SIDE))
    write_onnx(program, ["logits", "attention"], files["float32"], metadata)
    write_int8(files["float32"], frames, files["INT8"], metadata)
    return files


def in_pytorch(network: nn.Module, layout: torch.memory_format = torch.contiguous_format) -> Network:
    """The network as it is trained."""

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(inputs).to(memory_format=layout)).numpy()

    return run


def in_bfloat16(path: Path) -> Network:
    """OpenVINO left to itself, on a processor that has bfloat16; a recognizer never does that."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    request = core.compile_model(
        core.read_model(path), "CPU", {**settings, "INFERENCE_PRECISION_HINT": "bf16"}
    ).create_infer_request()
    return lambda inputs: request.infer({"image": inputs})["logits"]


def in_session(path: Path, backend: str) -> Network:
    """The file as a recognizer runs it."""
    (session,) = open_sessions(str(path), backend)
    return lambda inputs: session(inputs, "logits")


def compile_all(network: nn.Module, files: Mapping[str, Path]) -> dict[str, Network]:
    """One network on everything there is, eager PyTorch first."""
    rows: dict[str, Network] = {EAGER: in_pytorch(network)}
    rows["PyTorch float32, channels last"] = in_pytorch(network, torch.channels_last)
    for backend in INSTALLED:
        for precision, path in files.items():
            rows[f"{backend} {precision}"] = in_session(path, backend)
    if "openvino" in INSTALLED and os.environ.get("ONEDNN_MAX_CPU_ISA") is None:  # AVX2 has no bfloat16
        rows["openvino bfloat16 (not verified, not used)"] = in_bfloat16(files["float32"])
    return rows


def matrix_product(precision: str, side: int = 768) -> tuple[Callable[[], object], int]:
    """A product of square matrices on ONNX Runtime, whose speed is the peak, and its multiply-accumulates."""
    integers = precision == "INT8"
    left, right, result = (
        (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32) if integers else (TensorProto.FLOAT,) * 3
    )
    values = [
        helper.make_tensor_value_info(name, kind, [side, side])
        for name, kind in (("a", left), ("b", right), ("c", result))
    ]
    node = helper.make_node("MatMulInteger" if integers else "MatMul", ["a", "b"], ["c"])
    model = helper.make_model(
        helper.make_graph([node], "product", values[:2], values[2:]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = (np.uint8, np.int8) if integers else (np.float32, np.float32)
    matrices = {name: np.ones((side, side), kind) for name, kind in zip("ab", kinds, strict=True)}
    return partial(session.run, ["c"], matrices), side**3


def measure_floor(networks: Mapping[str, nn.Module], rounds: int) -> None:
    """Arithmetic of the networks over the peak of the core."""
    products = {precision: matrix_product(precision) for precision in ("float32", "INT8")}
    times = take_turns({precision: run for precision, (run, _) in products.items()}, rounds)
    print("\nThe floor: multiply-accumulates over the peak, that of a large matrix product on ONNX Runtime\n")
    print("| precision | peak, 10^9 a second |", *(f"{name}, ms |" for name in networks))
    print("| --- " * (2 + len(networks)) + "|")
    macs = [multiply_accumulates(network, (1, SIDE, SIDE)) for network in networks.values()]
    for precision, (_, products_macs) in products.items():
        peak = products_macs / min(busy for _, busy in times[precision])
        floors = " | ".join(f"{1000 * count / peak:.3f}" for count in macs)
        print(f"| {precision} | {peak / 1e9:.0f} | {floors} |")
    counts = ", ".join(f"{name} {count / 1e9:.3f}" for name, count in zip(networks, macs, strict=True))
    print(f"\n10^9 multiply-accumulates: {counts}")


def measure_networks(
    networks: Mapping[str, nn.Module], files: Mapping[str, Mapping[str, Path]], inputs: np.ndarray, rounds: int
) -> None:
    """The network alone."""
    rows = {name: compile_all(network, files[name]) for name, network in networks.items()}
    calls = {f"{name}/{row}": partial(run, inputs) for name in rows for row, run in rows[name].items()}
    times = take_turns(calls, rounds)
    eager = times[f"{TEACHER}/{EAGER}"]
    print(f"\nThe network alone, 1 x {SIDE} x {SIDE}, {rounds} rounds\n")
    print("| network | runtime | ms, median | 95th percentile | processor | a second |", end="")
    print(" to the teacher in PyTorch | to the teacher here | error of the logits (RMS, relative) |")
    print("| --- " * 9 + "|")
    for name in rows:
        truth = rows[name][EAGER](inputs)
        for row, run in rows[name].items():
            own = times[f"{name}/{row}"]
            error = np.sqrt(np.mean((run(inputs) - truth) ** 2) / np.mean(truth**2))
            ratios = f"{times_as_fast(eager, own):.1f} | {times_as_fast(times[f'{TEACHER}/{row}'], own):.1f}"
            print(f"| {name} | {row} {describe(own)} {ratios} | {error:.1e} |")
    print()
    for name, paths in files.items():
        sizes = ", ".join(f"{precision} {path.stat().st_size / 1e6:.2f} MB" for precision, path in paths.items())
        print(f"Files of the {name}: {sizes}")


def measure_frames(recognizers: Mapping[str, Recognizer], frames: Sequence[np.ndarray], rounds: int) -> None:
    """Decoded frames to probabilities, and the share of the preprocessing."""
    height, width = frames[0].shape
    steps: dict[str, Callable[[np.ndarray], np.ndarray]] = {**recognizers}
    steps["crop and resize alone"] = next(iter(recognizers.values())).preprocessing
    calls = {name: partial(lambda step, turns: step(next(turns)), step, cycle(frames)) for name, step in steps.items()}
    print(f"\nA decoded frame of {width} x {height} to its answer; {len(frames)} frames, {rounds} rounds\n")
    print("| student on | ms, median | 95th percentile | processor | a second |\n" + "| --- " * 5 + "|")
    for name, seconds in take_turns(calls, rounds).items():
        print(f"| {name} {describe(seconds)}")


def measure_cines(recognizers: Mapping[str, Recognizer], cines: Mapping[str, Path], length: int, rounds: int) -> None:
    """Whole DICOM files to probabilities."""

    def answer(recognizer: Recognizer, path: Path) -> int:
        return len([recognizer(frame.pixels, frame.region) for frame in iterate_frames(path)])

    calls = {
        f"{kind} | {name}": partial(answer, recognizer, path)
        for kind, path in cines.items()
        for name, recognizer in recognizers.items()
    }
    print(f"\nA DICOM cine of {length} frames to its answers, milliseconds a frame, {rounds} rounds\n")
    print("| cine | student on | ms, median | 95th percentile | processor | a second |\n" + "| --- " * 6 + "|")
    for name, seconds in take_turns(calls, rounds).items():
        print(f"| {name} {describe([(clock / length, busy / length) for clock, busy in seconds])}")


def measure_start(files: Mapping[str, Path], frame: Path, rounds: int) -> None:
    """New processes to their first answer, without torch."""
    print(f"\nStart of a process to its first answer, {rounds} rounds\n")
    print("| student on | seconds, median | most | processor |\n" + "| --- " * 4 + "|")
    for precision, path in files.items():
        for backend in (*INSTALLED, "auto"):
            clock, busy = [], []
            for _ in range(rounds):
                start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([sys.executable, "-c", FIRST_ANSWER, path, backend, frame], check=True)
                clock.append(time.perf_counter() - start)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                busy.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            shown = f"{statistics.median(clock):.2f} | {max(clock):.2f} | {statistics.median(busy):.2f}"
            print(f"| {backend} {precision} | {shown} |")


def write_cine(path: Path, frames: Sequence[np.ndarray], jpeg: bool) -> None:
    """A grey ultrasound cine, as it stands or with every frame as a JPEG."""
    file: Any = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit if jpeg else uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = uid.generate_uid()
    file.Modality, file.FrameTime, file.NumberOfFrames = "US", 40, len(frames)
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.Rows, file.Columns = frames[0].shape
    if not jpeg:
        file.PixelData = b"".join(frame.tobytes() for frame in frames)
        file.PixelData += b"\0" * (len(file.PixelData) % 2)
    else:
        encoded = []
        for number, frame in enumerate(frames):
            picture = path.with_suffix(f".{number}.jpg")
            Image.fromarray(frame).save(picture, quality=90)
            encoded.append(picture.read_bytes())
        file.PixelData = encapsulate(encoded)
        file["PixelData"].is_undefined_length = True
    file["PixelData"].VR = "OB"
    file.save_as(path, enforce_file_format=True)


def frame_paths(data: Path | None, folder: Path) -> list[Path]:
    """Frames of 959 x 661: up to 64 of those in a folder, or one that is drawn."""
    if data is None:
        return [draw_frame(folder)]
    if not (paths := find_frames(data)[:64]):
        raise SystemExit(f"There is no frame of 959 x 661 in '{data}'.")
    return paths


def decoded(path: Path) -> np.ndarray:
    """A frame as a stream decodes it: bytes, one column more and one row less."""
    return np.pad(read_frame(path).pixels[:660], ((0, 0), (0, 1))).round().astype(np.uint8)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with frames of 959 x 661; without it, one is drawn")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    packages = ("torch", "onnxruntime", "openvino", "numpy", "scipy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages if find_spec(name))
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "none")
    print(f"{versions}; load {os.getloadavg()[0]:.1f}; cap of instruction sets: {cap}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = frame_paths(arguments.data, folder)
        frames = [decoded(path) for path in paths]
        calibration = [Preprocessing((SIDE, SIDE), crop=True)(frame) for frame in frames[:8]]
        networks = {TEACHER: teacher_resnet(50).eval(), STUDENT: student_resnet(16).eval()}
        files = {key: export(network, key[:7], calibration, folder) for key, network in networks.items()}
        measure_networks(networks, files, calibration[0][None], rounds)
        measure_floor(networks, max(5, rounds // 5))

        recognizers = {
            f"{backend} {precision}": Recognizer(path, backend)
            for backend in INSTALLED
            for precision, path in files[STUDENT].items()
        }
        measure_frames(recognizers, frames, rounds)
        cine = (frames * 32)[:32]
        cines = {"uncompressed": folder / "plain.dcm", "JPEG": folder / "jpeg.dcm"}
        for kind, path in cines.items():
            write_cine(path, cine, jpeg=kind == "JPEG")
        measure_cines(recognizers, cines, len(cine), max(2, rounds // 20))
        measure_start(files[STUDENT], paths[0], max(2, rounds // 20))


if __name__ == "__main__":
    main()
