"""The bundles of MONAI's Model Zoo that train with ``SupervisedTrainer``, and generated data of the form of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CASES", "Case", "Items", "slices"]

Items = list[dict[str, Any]]


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
        inferred: further overrides of the inference config.
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
    labels: int,
    spacing: float = 1.0,
    channels: int = 1,
    values: tuple[int, ...] | None = None,
    count: int = 3,
    margin: int = 8,
) -> Callable[[Path, int], Items]:
    """Volumes as NIfTI files of some spacing in mm, a file for each channel, with a segmentation of slabs.

    They are larger than a patch by a margin; without one, a sliding window has one position.
    """

    def make(folder: Path, size: int) -> Items:
        items = []
        for index in range(count):
            image, label = _blocks((size + margin,) * 3, values or tuple(range(labels)), index)
            names = [f"{index}-{channel}.nii.gz" for channel in range(channels)]
            files = [_nifti(folder / name, image * 200 - 50, spacing) for name in names]
            items.append({"image": files if channels > 1 else files[0]})
            items[-1]["label"] = _nifti(folder / f"{index}-seg.nii.gz", label, spacing)
        return items

    return make


def phases(folder: Path, size: int) -> Items:
    """Three contrast phases and a segmentation."""
    items = []
    for index in range(2):
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


def clicks(folder: Path, size: int) -> Items:
    """The same, with a click on the nucleus for inference."""
    return [item | {"foreground": [[size // 2, size // 2]]} for item in nuclei(folder, size)]


def slices(folder: Path, size: int) -> Items:
    """Arrays of grey slices with labels, as one file."""
    generator = np.random.default_rng(0)
    images = generator.random((10, size, size), dtype=np.float32)
    np.savez(folder / "allimages3label.npz", images=images, segs=generator.integers(0, 4, images.shape))
    return [{"image": _nifti(folder / "infer" / "0.nii.gz", images[:3].transpose(1, 2, 0))}]


def architecture(bundle: Path) -> None:
    """A searched architecture as the search of the bundle writes it before its first step.

    The file holds numpy arrays, for which torch 2.6 and later need ``weights_only=False``, and the configs need a GPU:
    the copied configs are changed in both.
    """
    import torch
    from monai.networks.nets import TopologySearch

    torch.manual_seed(0)
    keys = ("node_a", "arch_code_a", "arch_code_c", "arch_code_a_max")
    space = TopologySearch(num_blocks=12, num_depths=4, use_downsample=True)
    torch.save(dict(zip(keys, space.decode(), strict=True)), bundle / "models" / "search_code_18590.pt")
    for path in (bundle / "configs" / f"{kind}.yaml" for kind in ("train", "inference")):
        text = path.read_text().replace("torch.device('cuda'))", "torch.device('cpu'), weights_only=False)")
        path.write_text(text.replace("\"$torch.device('cuda')\"", "\"$torch.device('cpu')\""))


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
        clicks, size=128, data=("train_datalist", "val_datalist"), keys=("image", "foreground")
    ),
    "pathology_tumor_detection": Case(frames),
    "pediatric_abdominal_ct_segmentation": Case(
        volumes(4, spacing=2.0, count=2), size=64, data=("train_datalist", "val_datalist"), inference="datalist"
    ),
    "prostate_mri_anatomy": Case(volumes(3, spacing=0.5), size=64),
    "renalStructures_CECT_segmentation": Case(phases, keys=("artery", "vein", "excret", "label")),
    "renalStructures_UNEST_segmentation": Case(volumes(4, count=2, margin=0), size=96, student=UNET),
    "segmentation_template": Case(volumes(4), size=24, data=("train_sub", "val_sub"), inference="data_dicts"),
    "spleen_ct_segmentation": Case(volumes(2, spacing=2.0)),
    "spleen_deepedit_annotation": Case(volumes(2)),
    "swin_unetr_btcv_segmentation": Case(volumes(14, spacing=2.0, count=2), size=64),
    "valve_landmarks": Case(frames),
    "ventricular_short_axis_3label": Case(slices, size=64, fit={"num_iters": 2, "batch_size": 2, "num_substeps": 1}),
    "wholeBody_ct_segmentation": Case(volumes(105, spacing=1.5, count=2)),
    "wholeBrainSeg_Large_UNEST_segmentation": Case(volumes(133, count=2, margin=0), size=96),
}


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
