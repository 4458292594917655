"""What is shown of single frames: attention maps, Grad-CAM, and the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_fetalkd.evaluation.scores.predictions import Predictions
from monai_fetalkd.ultrasound.maps import is_fine

from .maps import attention_maps, grad_cam, loaded_copy, similarity
from .pictures import frame_picture, heat_picture

__all__ = ["Exhibits", "ShownNetwork"]

_COMPARED = 8  # frames of each class over which the similarity of attention maps is averaged
_MISTAKES = 6  # worst mistakes shown of each network

#: A network, its checkpoint, and the names of its layers.
ShownNetwork = tuple[nn.Module, str | PathLike[str], Sequence[str]]


class Exhibits:
    """Pictures of frames of a split and of what networks make of them.

    The frames shown are the first of each class. They are known by their row in the files of predictions, counted from
    1, and by nothing else.

    Args:
        dataset: the frames, ``dataset[i]["image"]`` is ``[1, H, W]`` from 0 to 1; without one there are no pictures.
        predictions: predictions on these frames, in the same order, for their labels and sources.
    """

    def __init__(self, dataset: Any | None, predictions: Predictions) -> None:
        self.dataset = dataset
        self.class_names = predictions.class_names
        self.labels = predictions.labels
        self.sources = predictions.sources

    def attention(self, columns: Mapping[str, ShownNetwork]) -> dict[str, Any]:
        """Attention maps of several networks side by side, layer by layer.

        Args:
            columns: the networks by the title of their column; the first is the one that the others are compared with.
                Columns without a checkpoint are left out, and nothing is shown if the first has none.

        Returns:
            ``missing`` titles; ``titles``; ``frames`` with the maps of at least 7 x 7 positions; and ``means``, for
            each layer its grid and the similarity to the first column by title, averaged over ``compared`` frames.
        """
        found, missing = _with_checkpoint(columns)
        if self.dataset is None or not found or next(iter(found)) != next(iter(columns)):
            return {"missing": missing, "frames": []}
        by_class = self._first_of_each_class(_COMPARED)
        positions = [position for members in by_class for position in members]
        images = self._images(positions)
        maps = {
            title: attention_maps(loaded_copy(network, path), layers, images)
            for title, (network, path, layers) in found.items()
        }
        reference, *others = maps
        alike = {
            title: [similarity(own, aim) for own, aim in zip(maps[title], maps[reference], strict=True)]
            for title in others
        }
        layers = [" / ".join(dict.fromkeys(names)) for names in zip(*(look[2] for look in found.values()), strict=True)]

        def cell(title: str, row: int, index: int) -> dict[str, Any]:
            picture = heat_picture(images[index], maps[title][row][index])
            return {"title": title, "picture": picture, "alike": alike[title][row][index] if title in alike else None}

        return {
            "missing": missing,
            "titles": list(maps),
            "compared": len(positions),
            "means": [
                (
                    layer,
                    _grids(maps, row),
                    {title: float(np.mean(alike[title][row])) for title in others},
                )
                for row, layer in enumerate(layers)
            ],
            "frames": [
                {
                    **self._frame(first),
                    "rows": [
                        (layer, _grids(maps, row), [cell(title, row, positions.index(first)) for title in maps])
                        for row, layer in enumerate(layers)
                        if all(is_fine(maps[title][row].shape[1:]) for title in maps)
                    ],
                }
                for first, *_ in by_class
            ],
        }

    def grad_cam(self, networks: Mapping[str, ShownNetwork]) -> dict[str, Any]:
        """Grad-CAM of several networks, each for the class that it decides for.

        It is taken at the last of the layers that has at least 7 x 7 positions.

        Args:
            networks: the networks by name; those without a checkpoint are left out.

        Returns:
            ``missing`` names; ``coarse`` names, whose layers are all smaller; ``layers`` and their ``grids`` by name;
            ``frames``, each with a cell for every network.
        """
        if self.dataset is None:
            return {"missing": [], "coarse": [], "frames": []}
        found, missing = _with_checkpoint(networks)
        positions = [first for first, *_ in self._first_of_each_class(1)]
        images = self._images(positions)
        cells: list[list[dict[str, Any]]] = [[] for _ in positions]
        layers, grids = {}, {}
        for name, (given, path, names) in found.items():
            network = loaded_copy(given, path)
            maps = dict(zip(names, attention_maps(network, names, images[:1]), strict=True))
            fine = [layer for layer, sample in maps.items() if is_fine(sample.shape[1:])]
            if not fine:
                continue
            layers[name] = fine[-1]
            heats, probabilities = grad_cam(network, fine[-1], images)
            grids[name] = _grid(heats)
            for index, (heat, probability) in enumerate(zip(heats, probabilities, strict=True)):
                picture = heat_picture(images[index], heat)
                cells[index].append(
                    {"network": name, "picture": picture, **self._answer(positions[index], probability)}
                )
        frames = [{**self._frame(at), "cells": row} for at, row in zip(positions, cells, strict=True)] if layers else []
        coarse = [name for name in found if name not in layers]
        return {"missing": missing, "coarse": coarse, "layers": layers, "grids": grids, "frames": frames}

    def mistakes(self, predictions: Predictions) -> list[dict[str, Any]]:
        """The wrong answers that a network was most sure of.

        Args:
            predictions: its predictions, on the frames of the dataset and in their order.

        Returns:
            The frames with the network's answers, the worst first.
        """
        wrong = np.flatnonzero(predictions.classes != predictions.labels)
        worst = wrong[np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")][:_MISTAKES]
        return [{**self._frame(at), **self._answer(at, predictions.probabilities[at])} for at in worst.tolist()]

    def _first_of_each_class(self, count: int) -> list[list[int]]:
        members = [np.flatnonzero(self.labels == label)[:count].tolist() for label in range(len(self.class_names))]
        return [positions for positions in members if positions]

    def _images(self, positions: Sequence[int]) -> Tensor:
        return torch.stack([self._image(position) for position in positions])

    def _image(self, position: int) -> Tensor:
        assert self.dataset is not None
        return convert_to_tensor(self.dataset[position]["image"], track_meta=False, dtype=torch.float32, device="cpu")

    def _frame(self, position: int) -> dict[str, Any]:
        return {
            "row": position + 1,
            "truth": self.class_names[self.labels[position]],
            "source": self.sources[position],
            "picture": None if self.dataset is None else frame_picture(self._image(position)),
        }

    def _answer(self, position: int, probabilities: NDArray[np.floating] | Tensor) -> dict[str, Any]:
        answer = int(probabilities.argmax())
        return {
            "answer": self.class_names[answer],
            "probability": float(probabilities[answer]),
            "right": answer == self.labels[position],
        }


def _with_checkpoint(looks: Mapping[str, ShownNetwork]) -> tuple[dict[str, ShownNetwork], list[str]]:
    found = {title: look for title, look in looks.items() if Path(look[1]).is_file()}
    return found, [title for title in looks if title not in found]


def _grid(maps: Tensor) -> str:
    """The positions of maps ``[N, h, w]``, in words."""
    return f"{maps.shape[1]} \N{MULTIPLICATION SIGN} {maps.shape[2]}"


def _grids(maps: Mapping[str, Sequence[Tensor]], row: int) -> str:
    """The grids of a layer in all networks, each once."""
    return " / ".join(dict.fromkeys(_grid(layers[row]) for layers in maps.values()))
