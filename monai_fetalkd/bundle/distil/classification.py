"""What the starter, which segments, has in its configs where it classifies whole images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

__all__ = ["INFERENCE", "METADATA", "TRAINING", "with_items"]

_PAIR = "$monai.handlers.from_engine(['pred', 'label'])"

#: items of ``inference.json`` by id: images of one size, and a table of probabilities
INFERENCE: Mapping[str, Any] = {
    "preprocessing#transforms": [
        {"_target_": "LoadImaged", "keys": "@keys"},
        {"_target_": "EnsureChannelFirstd", "keys": "@keys"},
        {"_target_": "Orientationd", "keys": "@keys", "axcodes": "RAS"},
        {"_target_": "Resized", "keys": "@keys", "spatial_size": "@patch_size"},
        {"_target_": "ScaleIntensityd", "keys": "@keys"},
    ],
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing#transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    "+handlers": [
        {
            "_target_": "ClassificationSaver",
            "output_dir": "@output_dir",
            "filename": "predictions.csv",
            "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
            "output_transform": "$monai.handlers.from_engine('pred')",
        }
    ],
}

#: items of ``train.json`` by id: labels are numbers, and only images are transformed
TRAINING: Mapping[str, Any] = {
    "keys": ["image"],
    "batch_size": 16,
    "label_loss": {"_target_": "torch.nn.CrossEntropyLoss"},
    "kd_weight": 1.0,
    "train#random_transforms": [
        {"_target_": "RandFlipd", "keys": "@keys", "prob": 0.5, "spatial_axis": 0},
        {
            "_target_": "RandAffined",
            "keys": "@keys",
            "prob": 0.8,
            "rotate_range": 0.2,
            "scale_range": 0.15,
            "padding_mode": "zeros",
        },
    ],
    "train#dataset#transform": (
        "$kd.unlabelled.with_optional_label(@train#preprocessing, kd.unlabelled.FillLabeld('label')) "
        "if @unlabelled_share else @train#preprocessing"
    ),
    "validate#postprocessing": "$kd.bundle.workflow.config_item(@inference_config, 'postprocessing')",
    "validate#key_metric": {"accuracy": {"_target_": "ignite.metrics.Accuracy", "output_transform": _PAIR}},
    "test#evaluator#additional_metrics": {
        "balanced_accuracy": {"_target_": "ignite.metrics.Recall", "output_transform": _PAIR, "average": "macro"},
        "recall_by_class": {"_target_": "ignite.metrics.Recall", "output_transform": _PAIR},
    },
}

#: items of ``metadata.json`` by id
METADATA: Mapping[str, Any] = {
    "image_classes": "whole image, intensities scaled to [0, 1]",
    "label_classes": "class number, see channel_def",
    "pred_classes": "probabilities of the classes, see channel_def",
    "network_data_format#inputs#image#is_patch_data": False,
    "network_data_format#outputs#pred#type": "probabilities",
    "network_data_format#outputs#pred#format": "classes",
    "network_data_format#outputs#pred#is_patch_data": False,
}


def with_items(config: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Any]:
    """A config with other items, as MONAI reads one config file over another.

    Args:
        config: the config.
        items: items by id; one that begins with ``+`` extends a list.

    Returns:
        The new config.

    Example:
        >>> with_items({"net": {"channels": [4, 8]}, "steps": [1]}, {"net#channels": [2, 4], "+steps": [2]})
        {'net': {'channels': [2, 4]}, 'steps': [1, 2]}
    """
    parser = ConfigParser(copy.deepcopy(dict(config)))
    for id, item in items.items():
        merge_kv(parser, id, copy.deepcopy(item))
    return {key: value for key, value in parser.get().items() if key != parser.meta_key}
