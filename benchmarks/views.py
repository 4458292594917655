"""Do fixed views with stored targets cost accuracy? Numbers of views by seeds, each a run of the bundle, in one table.

    python benchmarks/views.py --output_dir runs/views --epochs 32
    python benchmarks/views.py --output_dir runs/views_real --epochs 32 --dataset_dir planes.csv \
        --configs train.json phantom.json ultrasound.json

For every seed one teacher is trained, and then a two-stage student for each number of views: 0 asks the teacher live
about fresh views in every epoch, ``--epochs`` shows each view once. All students of a seed start from the same weights
and take the same number of steps. Checkpoints are chosen on validation frames; the figures are of the test frames. An
interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import monai
import torch
from bundle_run import run_bundle

from monai_fetalkd.utils.markdown import markdown_table

BUNDLE = Path(__file__).parents[1] / "bundle"
LIVE = 0


def main() -> None:
    """Run all arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--views", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--epochs", type=int, default=32, help="of stage 2; stage 1 takes an eighth of them before it")
    parser.add_argument("--configs", nargs="+", default=["train.json", "phantom.json"])
    parser.add_argument("--dataset_dir", type=Path, help="frames; without it, the phantom")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    numbers = [LIVE, *arguments.views, arguments.epochs]
    common: dict[str, Any] = {"num_workers": 0, "quiet": True}
    if arguments.dataset_dir is not None:
        common["dataset_dir"] = str(arguments.dataset_dir)
    by_seed = []
    for seed in arguments.seeds:
        folder = arguments.output_dir / f"seed_{seed}"
        by_seed.append(arms(arguments.configs, folder, numbers, arguments.epochs, common | {"seed": seed}))

    print(f"\ntorch {torch.__version__}, monai {monai.__version__}, seeds {' '.join(map(str, arguments.seeds))}\n")
    rows = [["student", "test accuracy, mean", "by seed", "more than live, mean", "by seed"]]
    for number in numbers:
        row = [accuracies[number] for accuracies in by_seed]
        more = [accuracies[number] - accuracies[LIVE] for accuracies in by_seed]
        name = f"{number} views" if number else "live teacher"
        accuracies_of = [f"{statistics.mean(row):.3f}", ", ".join(f"{value:.3f}" for value in row)]
        gains = [f"{statistics.mean(more):+.3f}", ", ".join(f"{value:+.3f}" for value in more)]
        rows.append([name, *accuracies_of, *gains])
    print(markdown_table(rows))


def arms(configs: list[str], folder: Path, numbers: list[int], epochs: int, common: dict[str, Any]) -> dict[int, float]:
    """Test accuracy of the students of one seed by their number of views."""
    teacher = {
        **common,
        "run_arm": ["@run_teacher", "@run_summary"],
        "summary#networks": {"teacher": ["@teacher#network", "@teacher#ckpt"]},
    }
    print(folder.name, "teacher", run(configs, folder, "run_arm", teacher)["teacher"], flush=True)
    accuracies = {}
    for number in numbers:
        student = {
            "dataset_dir": str(folder / "phantom"),
            **common,
            "views": number,
            "teacher#ckpt": str(folder / "models" / "teacher.pt"),
            "attention#epochs": epochs // 8,
            "train#epochs": epochs,
            "run_arm": ["@run_attention", "@run_distillation", "@run_summary"],
            "summary#networks": {"student": ["@student", "@train#ckpt"]},
        }
        accuracies[number] = run(configs, folder / f"views_{number}", "run_arm", student)["student"]
        print(folder.name, number, "views", accuracies[number], flush=True)
    return accuracies


def run(configs: list[str], folder: Path, run_id: str, overrides: dict[str, Any]) -> dict[str, float]:
    """Run part of the bundle, unless it has been run, and read the accuracies that it wrote."""
    networks = run_bundle(BUNDLE, configs, folder, run_id, overrides)["networks"]
    return {name: network["metrics"]["accuracy"]["value"] for name, network in networks.items()}


if __name__ == "__main__":
    main()
