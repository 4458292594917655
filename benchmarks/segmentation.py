"""Distillation of a 3-D U-Net on generated spheres: arms by seeds, each a run of the bundle that ``init`` writes.

    python benchmarks/segmentation.py --output_dir runs/spheres --seeds 0 1 2

Each seed has volumes, networks and batches of its own. All students of a seed start from the same weights and see the
same number of batches; that of soft targets alone has neither stage 1 nor attention in stage 2. Checkpoints are chosen
on validation volumes; the figures are of the test volumes. An interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import monai
import torch
from bundle_run import run_bundle

from monai_fetalkd.__main__ import main as command
from monai_fetalkd.utils.markdown import markdown_table

SOFT_TARGETS = "student, soft targets alone"


def main() -> None:
    """Run all arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    bundle = arguments.output_dir / "bundle"
    if not bundle.is_dir():
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        command(["init", str(bundle)])
    by_seed = [arms(bundle, arguments.output_dir / f"seed_{seed}", seed) for seed in arguments.seeds]

    print(f"\ntorch {torch.__version__}, monai {monai.__version__}\n")
    rows = [["network", "mean Dice", *(f"seed {seed}" for seed in arguments.seeds)]]
    for name in by_seed[0]:
        row = [dice[name] for dice in by_seed]
        rows.append([name, f"{statistics.mean(row):.3f}", *(f"{value:.3f}" for value in row)])
    print(markdown_table(rows))


def arms(bundle: Path, folder: Path, seed: int) -> dict[str, float]:
    """Test Dice of the networks of one seed."""
    common: dict[str, Any] = {"seed": seed, "dataset_dir#seed": seed}
    two_stages = run(bundle, folder, "run", common)
    volumes = folder / "spheres" / "datalist.json"
    soft_targets = run(
        bundle,
        folder / "soft_targets",
        "run_arm",
        {
            "seed": seed,
            "dataset_dir": str(volumes),
            "run_arm": ["@run_distillation", "@run_summary"],
            "teacher#ckpt": str(folder / "models" / "teacher.pt"),
            "networks": {SOFT_TARGETS: ["@student", "@train#ckpt"]},
            "train#start_from": None,
            "train#epochs": 180,  # as many as both stages together
        },
    )
    names = ("teacher", "student, from scratch", "student, distilled")
    return {name: two_stages[name] for name in names[:2]} | soft_targets | {"student, two stages": two_stages[names[2]]}


def run(bundle: Path, folder: Path, run_id: str, overrides: dict[str, Any]) -> dict[str, float]:
    """Run part of the bundle, unless it has been run, and read the Dice that it wrote."""
    rows = run_bundle(bundle, ["train.json"], folder, run_id, overrides)
    return {name: row["metrics"]["mean_dice"] for name, row in rows.items()}


if __name__ == "__main__":
    main()
