"""Is an exported network the network that it was made of, and are its frames prepared as they were?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils.enums import CommonKeys
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fetalkd.deployment.runtime import Preprocessing
from monai_fetalkd.ultrasound.frames import read_frame

__all__ = ["check_preprocessing", "check_same_network", "compare_logits", "logits_of"]

_LOGIT_TOLERANCE = 1e-4
_INPUT_TOLERANCE = 1e-4  # of inputs from 0 to 1: a fortieth of a grey level


@torch.no_grad()
def logits_of(loader: DataLoader, networks: Mapping[str, Callable[[Tensor], Any]]) -> dict[str, NDArray[np.float32]]:
    """Run networks over the frames of a loader, which reads each frame once.

    Args:
        loader: loader of batches with ``image`` ``[N, C, h, w]``.
        networks: function from a batch of frames to logits, by name.

    Returns:
        Logits ``[frames, classes]`` by the same names.
    """
    logits: dict[str, list[NDArray[np.float32]]] = {name: [] for name in networks}
    for batch in loader:
        for name, network in networks.items():
            logits[name].append(np.asarray(network(batch[CommonKeys.IMAGE])))
    return {name: np.concatenate(parts) for name, parts in logits.items()}


def compare_logits(
    logits: NDArray[np.floating], reference: NDArray[np.floating], labels: ArrayLike, class_names: Sequence[str]
) -> dict[str, Any]:
    r"""Compare the logits :math:`z` of a network with those of its reference, :math:`r`, on the same frames.

    - ``max_difference``: :math:`\max |z - r|`,
    - ``relative_rms``: :math:`\sqrt{\sum (z - r)^2 / \sum r^2}`,
    - ``agreement``: share of frames on which both decide for the same class,
    - ``accuracy``: share of frames on which the network is right,
    - ``by_class``: ``frames``, ``agreement`` and ``accuracy`` of each class that has any.

    Args:
        logits: of the network, ``[N, C]``.
        reference: of its reference, ``[N, C]``.
        labels: class of each frame, integers ``[N]``.
        class_names: the class table.

    Returns:
        These figures by name.

    Example:
        >>> reference = np.array([[3.0, 0.0], [0.0, 4.0]])
        >>> figures = compare_logits(np.array([[3.0, 0.0], [0.5, 0.0]]), reference, [0, 1], ["brain", "other"])
        >>> figures["max_difference"], figures["agreement"], figures["by_class"]["brain"]
        (4.0, 0.5, {'frames': 1, 'agreement': 1.0, 'accuracy': 1.0})
    """
    truth, exact = np.asarray(labels), reference.astype(np.float64)
    difference = logits - exact
    classes = logits.argmax(axis=1)
    agree, right = classes == exact.argmax(axis=1), classes == truth
    return {
        "max_difference": float(np.abs(difference).max()),
        "relative_rms": float(np.sqrt(np.square(difference).sum() / np.square(exact).sum())),
        "agreement": float(agree.mean()),
        "accuracy": float(right.mean()),
        "by_class": {
            name: {
                "frames": int((truth == label).sum()),
                "agreement": float(agree[truth == label].mean()),
                "accuracy": float(right[truth == label].mean()),
            }
            for label, name in enumerate(class_names)
            if (truth == label).any()
        },
    }


def check_same_network(name: str, figures: Mapping[str, Any], least_agreement: float = 1.0) -> None:
    """Check that an exported float32 network gives the logits and classes of PyTorch.

    Args:
        name: what the message calls it.
        figures: ``max_difference`` and ``agreement``, as of :func:`compare_logits`.
        least_agreement: least share of frames, or pixels, that must get the same class.

    Raises:
        ValueError: when a logit differs by more than 1e-4, or too many classes differ.
    """
    # not(... <=): a NaN is no agreement either
    if not figures["max_difference"] <= _LOGIT_TOLERANCE or figures["agreement"] < least_agreement:
        raise ValueError(
            f"The exported '{name}' is not the same network: its logits differ from PyTorch's by up to "
            f"{figures['max_difference']:.2g} (at most {_LOGIT_TOLERANCE:g}), and the same class comes out in "
            f"{figures['agreement']:.2%}. No file is left."
        )


def check_preprocessing(
    preprocessing: Preprocessing, rows: Sequence[Mapping[str, Any]], inputs: Sequence[NDArray[np.float32]]
) -> float:
    """Check that frames reach the network on the terminal as they did in MONAI.

    Args:
        preprocessing: what the terminal does to a frame.
        rows: rows of a datalist: ``image`` and, for one of several, ``frame``.
        inputs: what MONAI's transforms make of each of them, ``[1, h, w]``.

    Returns:
        The largest difference of inputs, whose range is 0 to 1.

    Raises:
        ValueError: when one differs by more than 1e-4, or has another shape.
    """
    largest = 0.0
    for row, expected in zip(rows, inputs, strict=True):
        frame = read_frame(row[CommonKeys.IMAGE], row.get("frame"))
        found = preprocessing(frame.pixels, frame.region)
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= _INPUT_TOLERANCE:  # a NaN is a difference too
            raise ValueError(
                f"The frame '{row[CommonKeys.IMAGE]}' would reach the network otherwise on the terminal (inputs from 0 "
                f"to 1 differ by up to {difference:.2g}): only what inference.json and ultrasound.json do to a frame "
                "can be exported, so leave their 'reading' and 'preprocessing' as they are."
            )
        largest = max(largest, difference)
    return largest
