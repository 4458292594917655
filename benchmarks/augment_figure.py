"""Draw docs/images/augmentation.png: each augmentation alone, at strong settings, then all of them as in training.

python benchmarks/augment_figure.py
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.transforms import Compose, RandFlipd
from PIL import Image

from monai_fetalkd.ultrasound.data.phantom.frames import phantom_scene
from monai_fetalkd.ultrasound.data.phantom.imaging import compress, receive, scan_convert
from monai_fetalkd.ultrasound.transforms import RandSectorAffined, RandShadowd, RandSpeckled, RandTimeGaind

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "augmentation.png"
SIZE = 192
SEED = 3
PLANES = {"brain": 1, "abdomen": 0}
STRONG = {
    "rotation": RandSectorAffined("image", prob=1.0, rotate=20.0, zoom=(1.0, 1.0), shift=0.0),
    "zoom": RandSectorAffined("image", prob=1.0, rotate=0.0, zoom=(1.3, 1.3), shift=0.0),
    "time gain": RandTimeGaind("image", prob=1.0, gain_db=6.0, slider_db=10.0),
    "speckle": RandSpeckled("image", prob=1.0, std_db=6.0),
    "shadow": RandShadowd("image", prob=1.0, loss_db=(20.0, 24.0), width=(0.25, 0.3), depth=(0.2, 0.4)),
}
TRAINING = Compose(
    [
        RandSectorAffined("image"),
        RandTimeGaind("image"),
        RandSpeckled("image"),
        RandShadowd("image"),
        RandFlipd("image", prob=0.5, spatial_axis=1),
    ]
)


def frame(plane: int) -> dict[Hashable, Any]:
    """A phantom frame, and its sector from the geometry of its scanner."""
    rng = np.random.default_rng(3)
    scene, scanner = phantom_scene(plane, rng, SIZE)
    levels = compress(receive(scene, scanner, rng), scanner)
    image, sector = (scan_convert(beams, scanner, SIZE)[None] for beams in (levels, np.ones_like(levels)))
    return {"image": torch.from_numpy(image) / 255, "sector": torch.from_numpy(sector > 0).float()}


def draw() -> plt.Figure:
    """Draw four rows: for each plane the strong settings, then draws of all together."""
    figure, grid = plt.subplots(2 * len(PLANES), 1 + len(STRONG), figsize=(9.6, 6.9), facecolor="white")
    for transform in STRONG.values():
        transform.set_random_state(SEED)
    TRAINING.set_random_state(SEED)
    for row, (name, plane) in enumerate(PLANES.items()):
        item = frame(plane)
        tiles = {f"{name}, as it is": item} | {title: transform(item) for title, transform in STRONG.items()}
        tiles |= {f"all, draw {draw}": TRAINING(item) for draw in range(1, 2 + len(STRONG))}
        for axes, (title, tile) in zip(grid[2 * row : 2 * row + 2].flat, tiles.items(), strict=True):
            axes.imshow(tile["image"][0], "gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=8, pad=2)
            axes.axis("off")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.97, wspace=0.02, hspace=0.1)
    return figure


def main() -> None:
    """Save the figure with 32 grey levels: speckle compresses badly."""
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(FIGURE, dpi=120)
    Image.open(FIGURE).convert("L").quantize(32).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
