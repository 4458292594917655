"""Small bundles of the shapes that the Model Zoo's have, with generated data and random weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_fetalkd.__main__ import main

__all__ = ["TRAIN", "UNET", "bundle", "init"]

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": "$len(@names)",
    "channels": [8, 16, 32],
    "strides": [2, 2],
}
NAMES = ["background", "organ", "lesion"]

# ids and references as in spleen_ct_segmentation: train#trainer, validate#evaluator, a macro, images by a datalist
TRAIN: dict[str, Any] = {
    "imports": ["$import json", "$import pathlib"],
    "bundle_root": ".",
    "ckpt_dir": "$@bundle_root + '/models'",
    "names": NAMES,
    "device": "cpu",
    "datalist": "$json.loads(pathlib.Path(@bundle_root + '/configs/datalist.json').read_text())",
    "network_def": UNET,
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    "optimizer": {"_target_": "Novograd", "params": "$@network.parameters()", "lr": 0.002, "weight_decay": 0.1},
    "train": {
        "transforms": [
            {"_target_": "Lambdad", "keys": "image", "func": "$lambda seed: torch.rand(1, 32, 32) + seed"},
            {"_target_": "Lambdad", "keys": "label", "func": "$lambda _: torch.randint(0, len(@names), (1, 32, 32))"},
            {"_target_": "EnsureTyped", "keys": ["image", "label"], "track_meta": False},
        ],
        "preprocessing": {"_target_": "Compose", "transforms": "@train#transforms"},
        "dataset": {
            "_target_": "PersistentDataset",
            "data": "@datalist",
            "transform": "@train#preprocessing",
            "cache_dir": "$@bundle_root + '/cache'",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": "$len(@names)"},
                {"_target_": "AsDiscreted", "keys": "label", "to_onehot": "$len(@names)"},
            ],
        },
        "handlers": [
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1},
            {"_target_": "StatsHandler", "output_transform": "$monai.handlers.from_engine(['loss'], first=True)"},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 8,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "inferer": "@train#inferer",
            "train_handlers": "@train#handlers",
        },
    },
    "validate": {
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "%train#preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset"},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32]},
        "handlers": [
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_final": True,
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "%train#postprocessing",
            "key_val_metric": {
                "mean_dice": {
                    "_target_": "MeanDice",
                    "include_background": False,
                    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
                }
            },
            "val_handlers": "@validate#handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=123)"],
    "run": ["$@train#trainer.run()"],
}

INFERENCE: dict[str, Any] = {
    "bundle_root": ".",
    "names": NAMES,
    "device": "cpu",
    "network_def": UNET,
    "network": "$@network_def.to(@device)",
    "data": [{"image": 1}],
    "dataset": {
        "_target_": "Dataset",
        "data": "@data",
        "transform": {"_target_": "Lambdad", "keys": "image", "func": "$lambda _: torch.rand(1, 32, 32)"},
    },
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": {"_target_": "DataLoader", "dataset": "@dataset"},
        "network": "@network",
        "val_handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
    },
    "run": ["$@evaluator.run()"],
}

METADATA: dict[str, Any] = {
    "version": "0.4.1",
    "monai_version": "1.4.0",
    "optional_packages_version": {"nibabel": "5.2.1"},
    "name": "Organ segmentation",
    "task": "Segmentation of generated squares",
    "description": "A network with random weights",
    "authors": "Nobody",
    "copyright": "Nobody",
    "eval_metrics": {"mean_dice": 0.96},
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "num_channels": 1,
                "spatial_shape": ["8*n", 32],
                "dtype": "float32",
                "value_range": [0, 1],
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 3,
                "spatial_shape": ["8*n", 32],
                "dtype": "float32",
                "value_range": [0, 1],
            }
        },
    },
}


def bundle(
    root: Path,
    train: dict[str, Any] | None = None,
    inference: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    weights: bool = True,
) -> Path:
    """Write a teacher bundle.

    Args:
        root: its folder.
        train: items of the training config to replace, by id; an id of None is taken out.
        inference: the same for the inference config.
        metadata: the same for the metadata.
        weights: whether it has any.

    Returns:
        The folder.
    """
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    files = {"train": (TRAIN, train), "inference": (INFERENCE, inference), "metadata": (METADATA, metadata)}
    for name, (content, changes) in files.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps(_changed(content, changes or {})))
    (root / "configs" / "datalist.json").write_text(json.dumps([{"image": seed, "label": seed} for seed in range(4)]))
    (root / "LICENSE").write_text("none")
    if weights:
        parser = ConfigParser()
        parser.read_config(str(root / "configs" / "train.json"))
        torch.manual_seed(0)
        network = parser.get_parsed_content("network_def")
        torch.save({"model": network.state_dict()}, root / "models" / "model.pt")
    return root


def _changed(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    parser = ConfigParser(copy.deepcopy(content))
    for id, item in changes.items():
        if item is None:
            parent, _, key = id.rpartition("#")
            del (parser[parent] if parent else parser.get())[key]
        else:
            parser[id] = copy.deepcopy(item)
    result = parser.get()
    result.pop("_meta_", None)
    return result


def init(folder: Path, teacher: Path, *more: str) -> int:
    """Run ``init --teacher`` with a bundle, and give its exit status."""
    return main(["init", str(folder), "--teacher", str(teacher), *more])
