"""The bundle that the app serves: class table, preprocessing and networks, and what these say of frames."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fastapi import HTTPException
from monai.bundle import ConfigParser
from torch import nn

from monai_fetalkd.bundle.workflow import config_item
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.ultrasound.descriptions import check_weights
from monai_fetalkd.ultrasound.frames import count_frames
from monai_fetalkd.utils.checkpoints import load_weights

_BATCH = 32
_FEATURE_LAYER = "layer4"


class Look(NamedTuple):
    """What a network makes of frames: probabilities ``[N, C]`` and features ``[N, D]``."""

    probabilities: np.ndarray
    features: np.ndarray


class Planes:
    """A bundle, and the weights that training leaves.

    Args:
        bundle: folder of the bundle.
        configs: configs to lay over ``train.json``: names in the bundle, or paths.
        output: where training writes; weights are in its folder ``models``.
        class_names: the classes; by default those that the student there was trained on, else those of the bundle's
            metadata.

    Raises:
        FileNotFoundError: when the bundle or a config is not there.
    """

    def __init__(
        self, bundle: Path, configs: Sequence[str], output: Path, class_names: Sequence[str] | None = None
    ) -> None:
        self.bundle = Path(os.path.abspath(bundle))
        self.output = Path(os.path.abspath(output))
        folder = self.bundle / "configs"
        if not (folder / "train.json").is_file():
            raise FileNotFoundError(f"There is no bundle in '{self.bundle}': give its folder as --conf bundle.")
        self.metadata = str(folder / "metadata.json")
        self.configs = [str(folder / "train.json"), *(str(_found(name, folder)) for name in configs)]
        self._parser = ConfigParser()
        self._parser.read_config(self.configs)
        self._parser.update({"bundle_root": str(self.bundle), "output_dir": str(self.output)})
        inference, student = folder / "inference.json", str(self.weights("model.pt"))
        self.class_names = list(class_names or config_item(inference, "class_names", ckpt=student))
        self._parser["class_names"] = self.class_names
        self._preprocessing: Any = None
        self._networks: dict[str, tuple[tuple[int, int], nn.Module]] = {}
        self._looks: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}

    def weights(self, file: str) -> Path:
        """Path of the weights of a network: those of the bundle until training has left its own."""
        own, shipped = (folder / "models" / file for folder in (self.output, self.bundle))
        return shipped if not own.is_file() and shipped.is_file() and self._fits(shipped) else own

    def rows(self, path: str) -> list[dict[str, Any]]:
        """A row for each frame of a file, as transforms read them."""
        count = count_frames(path)
        return [{"image": path}] if count == 1 else [{"image": path, "frame": number} for number in range(count)]

    def look(self, file: str, rows: Sequence[dict[str, Any]]) -> Look:
        """Show frames to a network; what it made of a frame before is remembered while weights and file stay.

        Args:
            file: its weights, such as ``"model.pt"``.
            rows: frames, at least one.

        Returns:
            What it makes of them.

        Raises:
            HTTPException: 409 when it has no weights yet, or they are of another network.
            monai_fetalkd.ultrasound.frames.FrameError: when a frame cannot be read.
        """
        version, network = self._network(file)
        keys = [(file, version, row["image"], row.get("frame"), os.stat(row["image"]).st_mtime_ns) for row in rows]
        missing = [index for index, key in enumerate(keys) if key not in self._looks]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            seen = _seen(network, torch.stack([self._frame(rows[index]) for index in batch]))
            self._looks.update(zip((keys[index] for index in batch), zip(*seen, strict=True), strict=True))
        looks = [self._looks[key] for key in keys]
        return Look(np.stack([look[0] for look in looks]), np.stack([look[1] for look in looks]))

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        """One row of probabilities as the answer to a client: the class, and the score of each in order."""
        scores = [
            {"idx": index, "label": name, "score": float(score)}
            for index, (name, score) in enumerate(zip(self.class_names, probabilities, strict=True))
        ]
        return {"label": self.class_names[int(probabilities.argmax())], "prediction": scores}

    def _fits(self, weights: Path) -> bool:
        """Whether weights are for the frames that the configs read."""
        names = ("image_size", "class_names", "reading")
        try:
            check_weights(weights, **{name: self._parser.get_parsed_content(name) for name in names})
        except ValueError:
            return False
        return True

    def _frame(self, row: dict[str, Any]) -> torch.Tensor:
        if self._preprocessing is None:
            self._preprocessing = self._parser.get_parsed_content("validate#preprocessing")
            # MONAI wraps an error in pages of advice; ours says in a sentence what is wrong with the file
            self._preprocessing = self._preprocessing.flatten().transforms
        data: Any = dict(row)
        for transform in self._preprocessing:
            data = transform(data)
        return data["image"]

    def _network(self, file: str) -> tuple[tuple[int, int], nn.Module]:
        path = self.weights(file)
        try:
            status = os.stat(path)
        except OSError:
            raise HTTPException(409, f"There are no weights '{file}' yet: label frames and train first.") from None
        version = status.st_mtime_ns, status.st_size
        if file not in self._networks or self._networks[file][0] != version:
            self._parser.parse(reset=True)  # another network, not the one that was filled before
            definition = "teacher#network_def" if file == "teacher.pt" else "network_def"
            network: nn.Module = self._parser.get_parsed_content(definition).eval()
            try:
                load_weights(network, path)
            except ValueError as error:
                raise HTTPException(409, str(error)) from error
            self._looks = {key: look for key, look in self._looks.items() if key[0] != file}
            self._networks[file] = version, network
        return self._networks[file]


@torch.inference_mode()
def _seen(network: nn.Module, frames: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    taps = FeatureTaps(network, [_FEATURE_LAYER])
    with taps:
        probabilities = network(frames).double().softmax(1)
    return probabilities.numpy(), taps.pop()[_FEATURE_LAYER].flatten(2).mean(2).numpy()


def _found(name: str, folder: Path) -> Path:
    for path in (folder / name, Path(name)):
        if path.is_file():
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"The config '{path}' is no valid JSON: {error}.") from error
            return path.absolute()
    raise FileNotFoundError(f"There is no config '{name}' in '{folder}' and no such file: see --conf configs.")
