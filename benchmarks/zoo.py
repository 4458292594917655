"""Every bundle of MONAI's Model Zoo that trains with ``SupervisedTrainer``, distilled with one command.

    git clone https://github.com/Project-MONAI/model-zoo
    python benchmarks/zoo.py model-zoo --output_dir runs/zoo

For each bundle it writes generated data of the right form and random teacher weights, runs ``init --teacher``, trains
the student alone and in both stages for one epoch of a few small patches, runs inference with the student bundle and
verifies it with MONAI. The table says what ran, and why not what did not. The figures of merit mean nothing: teachers
have learned nothing, and data are noise.

Patches, batches and numbers of samples are reduced (``--size``), ``num_workers`` is 0, and colour jitter, which needs
torchvision, is left out. Each bundle runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

Items = list[dict[str, Any]]

SIZES = ("spatial_size", "roi_size", "k_divisible", "patch_size")


@dataclass(frozen=True)
class Case:
    """How a bundle is tried.

    Attributes:
        items: makes the data: called with a folder and a size, returns the items of training and validation.
        size: positions along each axis of a patch.
        data: ids of the lists of items in the training config.
        inference: id of that list in the inference config, and the keys that it keeps.
        fit: further overrides of the training config.
        student: a definition in place of ``--reduce 2``.
        files: makes further files in the teacher bundle.
        verified: network id for ``verify_net_in_out``.
    """

    items: Callable[[Path, int], Items]
    size: int = 32
    data: tuple[str, str] = ("train#dataset#data", "validate#dataset#data")
    inference: str = "dataset#data"
    keys: tuple[str, ...] = ("image",)
    fit: Mapping[str, Any] = field(default_factory=dict)
    student: Mapping[str, Any] | None = None
    files: Callable[[Path], None] | None = None
    inferred: Mapping[str, Any] = field(default_factory=dict)


def volumes(
    labels: int, spacing: float = 1.0, channels: int = 1, values: tuple[int, ...] | None = None
) -> Callable[[Path, int], Items]:
    """Volumes as NIfTI files of some spacing in mm, a file for each channel, with a segmentation of slabs."""

    def make(folder: Path, size: int) -> Items:
        items = []
        for index in range(3):
            image, label = _blocks((size + 8,) * 3, values or tuple(range(labels)), index)
            names = [f"{index}-{channel}.nii.gz" for channel in range(channels)]
            files = [_nifti(folder / name, image * 200 - 50, spacing) for name in names]
            items.append({"image": files if channels > 1 else files[0]})
            items[-1]["label"] = _nifti(folder / f"{index}-seg.nii.gz", label, spacing)
        return items

    return make


def phases(folder: Path, size: int) -> Items:
    """Three contrast phases and a segmentation."""
    items = []
    for index in range(3):
        image, label = _blocks((size + 8,) * 3, tuple(range(7)), index)
        names = {"artery": "12", "vein": "22-", "excret": "32-"}
        items.append(
            {key: _nifti(folder / f"{index}/{name}.nii.gz", image * 2000 - 1000, 0.8) for key, name in names.items()}
        )
        items[-1]["label"] = _nifti(folder / f"{index}/merged.nii.gz", label, 0.8)
    return items


def frames(folder: Path, size: int) -> Items:
    """Colour frames of two classes, and the lists of them in the bundle."""
    items = [{"image": _picture(folder / f"{index}.jpg", size), "label": index % 2} for index in range(4)]
    lists = folder.parent / folder.parent.name / "label"
    lists.mkdir()
    for name, listed in {"train": items[:-1], "val": items[-1:], "test": items[:1]}.items():
        (lists / f"{name}_samples.json").write_text(json.dumps(listed))
    return items


def grey_frames(folder: Path, size: int) -> Items:
    """Grey frames of four classes."""
    return [{"image": _picture(folder / f"{index}.png", size, grey=True), "label": index % 4} for index in range(4)]


def tools(folder: Path, size: int) -> Items:
    """Colour frames and a segmentation of 0 and 255."""
    items = []
    for index in range(3):
        items.append({"image": _picture(folder / f"{index}.jpg", size)})
        items[-1]["label"] = _mask(folder / f"{index}_seg.jpg", size, 255)
    return items


def nuclei(folder: Path, size: int) -> Items:
    """Patches around a nucleus, whose class is its label; others have 255."""
    items = []
    for index in range(4):
        items.append({"image": _picture(folder / f"{index}.png", size)})
        items[-1]["label"] = _mask(folder / f"{index}-mask.png", size, 1 + index % 4, others=255)
    return items


def slices(folder: Path, size: int) -> Items:
    """Arrays of grey slices with labels, as one file."""
    generator = np.random.default_rng(0)
    images = generator.random((10, size, size), dtype=np.float32)
    np.savez(folder / "allimages3label.npz", images=images, segs=generator.integers(0, 4, images.shape))
    return [{"image": _nifti(folder / "infer" / "0.nii.gz", images[:3].transpose(1, 2, 0))}]


def architecture(bundle: Path) -> None:
    """A searched architecture of the form that DiNTS' search writes, with every path on."""
    import torch
    from monai.networks.nets import TopologyInstance

    space = TopologyInstance(num_blocks=12, num_depths=4, use_downsample=True)
    torch.save(
        {
            "arch_code_a": np.ones((space.num_blocks, space.arch_code_a.shape[1])),
            "arch_code_c": np.ones((space.num_blocks, space.arch_code_a.shape[1])),
            "node_a": np.ones((space.num_blocks + 1, space.num_depths)),
        },
        bundle / "models" / "search_code_18590.pt",
    )


UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 4,
    "channels": [16, 32, 64],
    "strides": [2, 2],
}

CASES: dict[str, Case] = {
    "brats_mri_segmentation": Case(volumes(4, channels=4, values=(0, 1, 2, 4))),
    "classification_template": Case(
        grey_frames, size=64, data=("train_sub", "val_sub"), inference="test_dict", keys=("image", "label")
    ),
    "endoscopic_inbody_classification": Case(frames, size=64, inference="test_dict"),
    "endoscopic_tool_segmentation": Case(tools, size=96),
    "mednist_reg": Case(grey_frames),
    "multi_organ_segmentation": Case(volumes(8), files=architecture),
    "pancreas_ct_dints_segmentation": Case(volumes(3), files=architecture),
    "pathology_nuclei_classification": Case(
        nuclei, size=64, data=("train_datalist", "val_datalist"), inference="input_data", keys=("image", "label")
    ),
    "pathology_nuclei_segmentation_classification": Case(frames),
    "pathology_nuclick_annotation": Case(
        nuclei, size=64, data=("train_datalist", "val_datalist"), inference="dataset#data"
    ),
    "pathology_tumor_detection": Case(frames),
    "pediatric_abdominal_ct_segmentation": Case(
        volumes(4, spacing=2.0), size=64, data=("train_datalist", "val_datalist"), inference="datalist"
    ),
    "prostate_mri_anatomy": Case(volumes(3, spacing=0.5), size=64),
    "renalStructures_CECT_segmentation": Case(phases, keys=("artery", "vein", "excret", "label")),
    "renalStructures_UNEST_segmentation": Case(volumes(4), size=96, student=UNET),
    "segmentation_template": Case(volumes(4), size=24, data=("train_sub", "val_sub"), inference="data_dicts"),
    "spleen_ct_segmentation": Case(volumes(2, spacing=2.0)),
    "spleen_deepedit_annotation": Case(volumes(2)),
    "swin_unetr_btcv_segmentation": Case(volumes(14, spacing=2.0), size=64),
    "valve_landmarks": Case(frames),
    "ventricular_short_axis_3label": Case(slices, size=64, fit={"num_iters": 2, "batch_size": 2, "num_substeps": 1}),
    "wholeBody_ct_segmentation": Case(volumes(105, spacing=1.5)),
    "wholeBrainSeg_Large_UNEST_segmentation": Case(volumes(133), size=96),
}


def main() -> int:
    """Try all bundles, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("zoo", type=Path, help="checkout of the Model Zoo")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="BUNDLE")
    parser.add_argument("--schema", type=Path, help="meta_schema_20240725.json, where it is not to be downloaded")
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return attempt(arguments.zoo, arguments.output_dir, arguments.one, arguments.schema)
    for name in arguments.only:
        folder = arguments.output_dir / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        schema = ["--schema", str(arguments.schema)] if arguments.schema else []
        command = [
            sys.executable,
            __file__,
            str(arguments.zoo),
            "--output_dir",
            str(arguments.output_dir),
            "--one",
            name,
        ]
        with (folder / "log.txt").open("w") as log:
            subprocess.run([*command, *schema], stdout=log, stderr=subprocess.STDOUT, check=False)
        print(
            name, json.loads(path.read_text()) if (path := folder / "result.json").is_file() else "crashed", flush=True
        )
    print_table(arguments.output_dir)
    return 0


def print_table(folder: Path) -> None:
    """The table of all results in a folder."""
    from monai_fetalkd.utils.markdown import markdown_table

    rows = [["bundle", "teacher", "student", "parameters", "pairs", "result"]]
    for name in CASES:
        path = folder / name / "result.json"
        if path.is_file():
            result = json.loads(path.read_text())
            sizes = " to ".join(f"{size / 1e6:.2f} M" for size in result.get("parameters", ()))
            rows.append([name, *(str(result.get(key, "")) for key in ("teacher", "student"))])
            rows[-1] += [sizes, str(result.get("pairs", "")), result["result"]]
    print(markdown_table(rows))


def attempt(zoo: Path, output_dir: Path, name: str, schema: Path | None) -> int:
    """Try one bundle, and write what came of it to ``result.json``."""
    from monai_fetalkd.utils.machine import root_error

    folder = (output_dir / name).resolve()
    case, step = CASES[name], "preparation"
    result: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        teacher = folder / name
        shutil.copytree(zoo / "models" / name, teacher)
        (folder / "data").mkdir()
        (teacher / "models").mkdir(exist_ok=True)
        sys.path.insert(0, str(teacher))
        items = case.items(folder / "data", case.size)
        if case.files is not None:
            case.files(teacher)
        refused = random_weights(teacher)
        step = "init"
        student = folder / "student"
        refused = refused or initialise(student, teacher, case, folder)
        if refused:
            result["result"] = f"refused: {refused}"
            return 0
        result |= described(student, teacher)
        step = "training"
        train(teacher, student, case, items, folder)
        step = "inference"
        infer(student, case, items, folder)
        step = "verification"
        verify(student, schema)
        result["result"] = "runs"
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        cause = root_error(error)
        result["result"] = f"{step} fails: {type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
    finally:
        result["seconds"] = round(time.perf_counter() - start)
        (folder / "result.json").write_text(json.dumps(result, indent=1))
    return 0


def random_weights(teacher: Path) -> str | None:
    """Write random weights where inference looks for them; why not, where the network cannot be made."""
    import torch

    from monai_fetalkd.bundle.distil.reading import build_network, checkpoint_path, network_definition, read_configs

    train, inference = read_configs(teacher)
    try:
        torch.manual_seed(0)
        network = build_network(train, network_definition(train, inference))
    except (ValueError, ImportError) as error:
        return str(error)
    path = checkpoint_path(teacher, inference)
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)
    return None


def initialise(student: Path, teacher: Path, case: Case, folder: Path) -> str | None:
    """Run ``init``; what it says where it refuses."""
    from monai_fetalkd.__main__ import main as command

    how = ["--reduce", "2"]
    if case.student is not None:
        (folder / "student.json").write_text(json.dumps(case.student))
        how = ["--student", str(folder / "student.json")]
    errors, shown = StringIO(), StringIO()
    with redirect_stderr(errors), redirect_stdout(shown):
        code = command(["init", str(student), "--teacher", str(teacher), *how])
    print(shown.getvalue(), errors.getvalue())
    told = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
    return told[0].removeprefix("error: ") if code else None


def described(student: Path, teacher: Path) -> dict[str, Any]:
    """Networks, sizes and pairs, from what was written."""
    from monai_fetalkd.bundle.distil.reading import build_network, network_definition, read_configs

    train, inference = read_configs(teacher)
    large = build_network(train, network_definition(train, inference))
    config = type(inference)(student / "configs" / "inference.json", student)
    small = build_network(config, network_definition(config, config))
    return {
        "teacher": type(large).__name__,
        "student": type(small).__name__,
        "parameters": [sum(value.numel() for value in network.parameters()) for network in (large, small)],
        "pairs": len(json.loads((student / "configs" / "distill.json").read_text())["distil"]["student_layers"]),
    }


def train(teacher: Path, student: Path, case: Case, items: Items, folder: Path) -> None:
    """All stages for one epoch, and the table."""
    import monai

    path = next((teacher / "configs").glob("train.*"))
    overrides: dict[str, Any] = dict(reduced(path, case))
    overrides |= {"dataset_dir": str(folder / "data"), "device": "$torch.device('cpu')"}
    overrides |= dict(zip(case.data, (items[:-1], items[-1:]), strict=True)) if case.items is not slices else {}
    overrides |= {"distil#distillation#epochs": 1, "distil#timings": 1}
    overrides |= {f"distil#image_shape#{axis}": case.size for axis in range(1, dims(student) + 1)}
    overrides |= case.fit
    monai.bundle.run(
        config_file=[str(path), str(student / "configs" / "distill.json")], bundle_root=str(student), **overrides
    )


def infer(student: Path, case: Case, items: Items, folder: Path) -> None:
    """Inference of the student bundle with stock MONAI."""
    import monai

    path = student / "configs" / "inference.json"
    raw = json.loads(path.read_text())
    run_id = next(key for key, value in raw.items() if isinstance(value, list) and "$@evaluator.run()" in value)
    overrides = dict(reduced(path, case)) | {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "eval")}
    if case.items is slices:
        overrides["dataset_dir"] = str(folder / "data" / "infer")
    else:
        overrides[case.inference] = [{key: items[0][key] for key in case.keys}]
    overrides["device"] = "$torch.device('cpu')"
    monai.bundle.run(config_file=str(path), bundle_root=str(student), run_id=run_id, **overrides, **case.inferred)


def verify(student: Path, schema: Path | None) -> None:
    """What the zoo's CI asks of metadata and network."""
    import monai

    metadata, config = (str(student / "configs" / name) for name in ("metadata.json", "inference.json"))
    monai.bundle.verify_metadata(meta_file=metadata, filepath=str(schema or student.parent / "schema.json"))
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=metadata,
        config_file=config,
        device="cpu",
        n=4,
        p=4,
        any=64,
        bundle_root=str(student),
    )


def dims(student: Path) -> int:
    """Spatial dimensions of the network's input."""
    distil = json.loads((student / "configs" / "distill.json").read_text())["distil"]
    return len(distil["image_shape"]) - 1


def reduced(path: Path, case: Case) -> Iterator[tuple[str, Any]]:
    """Overrides that make patches small, batches short and loaders plain, wherever a config says them."""
    from monai_fetalkd.bundle.distil.config import read_file

    def walk(id: str, key: str, item: Any) -> Iterator[tuple[str, Any]]:
        if key in SIZES and isinstance(item, list) and all(isinstance(size, int) for size in item):
            yield id, [min(size, case.size) for size in item]
        elif key in ("num_workers", "cache_rate") and isinstance(item, (int, float)):
            yield id, 0
        elif key in ("num_samples", "sw_batch_size") and isinstance(item, int):
            yield id, 1
        elif key == "batch_size" and isinstance(item, int):
            yield id, min(item, 2)
        elif isinstance(item, list) and any(_needs_torchvision(one) for one in item):
            yield id, [one for one in item if not _needs_torchvision(one)]
        elif isinstance(item, (dict, list)):
            for name, value in item.items() if isinstance(item, dict) else enumerate(item):
                yield from walk(f"{id}#{name}" if id else str(name), str(name), value)

    yield from walk("", "", read_file(path))


def _needs_torchvision(item: Any) -> bool:
    return isinstance(item, dict) and "TorchVision" in str(item.get("_target_"))


def _blocks(shape: tuple[int, ...], values: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels: noise around a level of each class, in slabs along the first axis."""
    label = np.zeros(shape, np.uint8)
    for index, value in enumerate(values):
        label[index * shape[0] // len(values) : (index + 1) * shape[0] // len(values)] = value
    noise = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return 0.5 + noise / 4 + label / max(values) / 4, label


def _nifti(path: Path, array: np.ndarray, spacing: float = 1.0) -> str:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1])), path)
    return str(path)


def _picture(path: Path, size: int, grey: bool = False) -> str:
    from PIL import Image

    shape = (size, size) if grey else (size, size, 3)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


def _mask(path: Path, size: int, value: int, others: int = 0) -> str:
    from PIL import Image

    mask = np.zeros((size, size), np.uint8)
    mask[: size // 4] = others
    mask[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = value
    Image.fromarray(mask).save(path)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
