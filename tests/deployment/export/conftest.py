from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, EnsureTyped, ScaleIntensityRanged

from monai_fetalkd.deployment.export import Export, balanced_rows
from monai_fetalkd.networks import student_resnet
from monai_fetalkd.ultrasound.data import frame_dataset, load_datalist, make_phantom
from monai_fetalkd.ultrasound.transforms import CropSectord, Letterboxd, LoadFramed
from monai_fetalkd.utils.checkpoints import save_weights

SIZE = (64, 64)


def tiny_network():
    return student_resnet(width=4, layers=(1, 1, 1, 1))


@pytest.fixture(scope="session")
def new_network():
    return tiny_network


@pytest.fixture(scope="session")
def datalist(tmp_path_factory):
    folder = make_phantom(tmp_path_factory.mktemp("phantom"), train=180, val=30, test=60, size=SIZE[0])
    class_names = json.loads((Path(folder) / "datalist.json").read_text())["labels"].values()
    return load_datalist(folder, list(class_names))


@pytest.fixture(scope="session")
def reading():
    return Compose([LoadFramed("image"), CropSectord("image"), Letterboxd("image", SIZE)])


@pytest.fixture(scope="session")
def dataset(reading):
    """Datasets of some rows, as ``ultrasound.json`` prepares them."""
    scale = ScaleIntensityRanged("image", 0, 255, 0, 1)
    preparation = Compose([*reading.transforms, scale, EnsureTyped("image", track_meta=False)])
    return lambda rows: frame_dataset(rows, preparation, progress=False)


@pytest.fixture(scope="session")
def frames(dataset, datalist):
    """Images and labels of a section."""

    def stacked(section):
        items = list(dataset(datalist.section(section)))
        return torch.stack([item["image"] for item in items]), torch.tensor([item["label"] for item in items])

    return stacked


@pytest.fixture(scope="session")
def trained(frames):
    """A network that has learnt the phantom a little, so that its logits mean something."""
    torch.manual_seed(0)
    network = tiny_network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    images, labels = frames("training")
    for _ in range(100):
        chosen = torch.randperm(len(labels))[:30]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def ckpt(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    save_weights(trained, path)
    return path


@pytest.fixture(scope="session")
def export_into(datalist, dataset, reading, ckpt):
    """Exports the trained network into a folder, with other arguments where given."""

    def export(folder, **changes):
        arguments = {
            "network": tiny_network(),
            "ckpt": ckpt,
            "reading": reading,
            "calibration": dataset(balanced_rows(datalist.section("training"), datalist.class_names, per_class=6)),
            "validation": DataLoader(dataset(datalist.section("validation")), batch_size=7),
            "loader": DataLoader(dataset(datalist.section("testing")), batch_size=7),
            "class_names": datalist.class_names,
            "image_shape": (1, *SIZE),
            "output_dir": folder,
            "agreement": 0.9,
            "version": "3.2",
            "target": 0.4,  # a network this small does not get far
            **changes,
        }
        return Export(**arguments)()

    return export


@pytest.fixture(scope="session")
def exported(export_into, tmp_path_factory):
    """The folder of an export that went well, and what it returned."""
    folder = tmp_path_factory.mktemp("exported")
    return folder, export_into(folder)


@pytest.fixture(scope="session")
def relative_rms():
    def measure(values, reference):
        values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
        return np.linalg.norm(values - reference) / np.linalg.norm(reference)

    return measure
