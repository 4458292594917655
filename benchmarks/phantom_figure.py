"""Draw docs/images/phantom.png: six frames of each plane, one column a patient.

python benchmarks/phantom_figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from monai_fetalkd.ultrasound.data.phantom import PLANE_NAMES, Patient, phantom_frame

FIGURE = Path(__file__).parents[1] / "docs" / "images" / "phantom.png"
PATIENTS = 6
SEED = 0


def draw() -> plt.Figure:
    """Draw the grid."""
    figure, grid = plt.subplots(len(PLANE_NAMES), PATIENTS, figsize=(7.6, 7.4), facecolor="white")
    for column in range(PATIENTS):
        patient = Patient.draw(np.random.default_rng([SEED, column]))
        grid[0, column].set_title(f"{patient.age:.0f} weeks", fontsize=9)
        for plane, name in enumerate(PLANE_NAMES):
            axes = grid[plane, column]
            axes.imshow(
                phantom_frame(plane, np.random.default_rng([SEED, column, plane]), 144, patient),
                "gray",
                vmin=0,
                vmax=255,
            )
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    figure.subplots_adjust(left=0.04, right=0.995, bottom=0.005, top=0.965, wspace=0.03, hspace=0.03)
    return figure


def main() -> None:
    """Save the figure with 32 grey levels: speckle compresses badly."""
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    draw().savefig(FIGURE, dpi=120)
    Image.open(FIGURE).convert("L").quantize(32).save(FIGURE, optimize=True)


if __name__ == "__main__":
    main()
