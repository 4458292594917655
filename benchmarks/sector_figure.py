"""Draw docs/images/sectors.png: real frames before and after the crop to the scan sector.

    python benchmarks/sector_figure.py --data ../shared/data --output docs/images/sectors.png

Shown are 24 frames, four of each class, in even steps through those of the table in the order of their paths.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from monai.transforms import Compose
from PIL import Image

from monai_fetalkd.ultrasound.frames import find_sector
from monai_fetalkd.ultrasound.transforms import CropSectord, LoadFramed

FRAMES_OF_A_CLASS = 4
ATTRIBUTION = (
    "FETAL_PLANES_DB (Burgos-Artizzu et al. 2020) and African maternal fetal planes (Sendra-Balcells et al. 2023), "
    "CC BY 4.0; cropped and scaled"
)


def choose(data: Path) -> dict[str, list[Path]]:
    """The same frames of each class at every run."""
    with (data / "planes.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["image"])
    classes: dict[str, list[Path]] = {}
    for row in rows:
        classes.setdefault(row["label"], []).append(data / row["image"])
    return {
        name: [paths[int((index + 0.5) * len(paths) / FRAMES_OF_A_CLASS)] for index in range(FRAMES_OF_A_CLASS)]
        for name, paths in sorted(classes.items())
    }


def draw(classes: dict[str, list[Path]]) -> plt.Figure:
    """A row a class: each frame with the outline of its sector, and the same frame after the crop."""
    load, crop = LoadFramed("image"), Compose([LoadFramed("image"), CropSectord("image")])
    figure, grid = plt.subplots(len(classes), 2 * FRAMES_OF_A_CLASS, figsize=(11.2, 6.9), facecolor="white")
    for line, (name, paths) in zip(grid, classes.items(), strict=True):
        line[0].set_ylabel(name, fontsize=8)
        for index, path in enumerate(paths):
            before, after = line[2 * index : 2 * index + 2]
            pixels = load({"image": str(path)})["image"][0].numpy()
            sector = find_sector(pixels)
            top, left, bottom, right = sector.box
            mask = np.zeros(pixels.shape)
            mask[top:bottom, left:right] = sector.mask
            before.imshow(pixels, "gray", vmin=0, vmax=255)
            before.contour(mask, [0.5], colors="white", linewidths=0.8)
            after.imshow(crop({"image": str(path)})["image"][0], "gray", vmin=0, vmax=255)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], facecolor="0.75")
        axes.set_box_aspect(0.8)
    for column, axes in enumerate(grid[0]):
        axes.set_title("after" if column % 2 else "before", fontsize=8)
    figure.subplots_adjust(left=0.022, right=0.998, bottom=0.03, top=0.97, wspace=0.03, hspace=0.03)
    figure.text(0.5, 0.008, ATTRIBUTION, ha="center", fontsize=7)
    return figure


def main() -> None:
    """Save the figure with 32 grey levels: speckle compresses badly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with planes.csv and the frames it names")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "sectors.png")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(choose(arguments.data)).savefig(arguments.output, dpi=120)
    Image.open(arguments.output).convert("L").quantize(32).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
