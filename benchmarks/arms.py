"""Does distillation help? Arms by seeds, each a run of the bundle, in one table.

    python benchmarks/arms.py --output_dir runs/arms --seeds 0 1 2

For every seed the teacher, the student from scratch and the two-stage student come from ``train.json``; the student of
soft targets alone is the same config without stage 1 and without attention, for as many epochs as both stages together.
All students of a seed start from the same weights and see the same number of batches. Checkpoints are chosen on
validation frames; the figures are of the test frames. An interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigWorkflow

from monai_fetalkd.utils.markdown import markdown_table

BUNDLE = Path(__file__).parents[1] / "bundle"
SOFT_TARGETS = "student, soft targets alone"


def main() -> None:
    """Run all arms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--configs", nargs="+", default=["train.json", "phantom.json"])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="ID=JSON", help="items of the config to override")
    arguments = parser.parse_args()
    overrides = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in arguments.set)}
    by_seed = [
        arms(arguments.configs, arguments.output_dir / f"seed_{seed}", seed, overrides) for seed in arguments.seeds
    ]

    print(f"\ntorch {torch.__version__}, monai {monai.__version__}, seeds {' '.join(map(str, arguments.seeds))}\n")
    rows = [["network", "test accuracy, mean", "by seed", "more than soft targets alone, by seed"]]
    for name in by_seed[0]:
        row = [accuracies[name] for accuracies in by_seed]
        more = [accuracies[name] - accuracies[SOFT_TARGETS] for accuracies in by_seed]
        by_seeds = (", ".join(f"{value:.3f}" for value in row), ", ".join(f"{value:+.3f}" for value in more))
        rows.append([name, f"{statistics.mean(row):.3f}", *by_seeds])
    print(markdown_table(rows))


def arms(configs: list[str], folder: Path, seed: int, overrides: dict[str, Any]) -> dict[str, float]:
    """Test accuracy of the networks of one seed."""
    common = {**overrides, "seed": seed}
    two_stages = run(configs, folder, "run", common)
    epochs = parsed(configs, folder, common).parser.get_parsed_content("baseline#epochs")
    soft_targets = run(
        configs,
        folder / "soft_targets",
        "run_arm",
        {
            **common,
            "run_arm": ["@run_distillation", "@run_summary"],
            "dataset_dir": overrides.get("dataset_dir", str(folder / "phantom")),
            "teacher#ckpt": str(folder / "models" / "teacher.pt"),
            "baseline#ckpt": str(folder / "models" / "baseline.pt"),
            "train#start_from": None,
            "train#epochs": epochs,
            "at_weight": 0,
        },
    )
    return {
        "teacher": two_stages["teacher"],
        "student, from scratch": two_stages["student, from scratch"],
        SOFT_TARGETS: soft_targets["student, distilled"],
        "student, two stages": two_stages["student, distilled"],
    }


def run(configs: list[str], folder: Path, run_id: str, overrides: dict[str, Any]) -> dict[str, float]:
    """Run part of the bundle, unless it has been run, and read the accuracies that it wrote."""
    result = folder / "eval" / "metrics.json"
    if not result.is_file():
        workflow = parsed(configs, folder, overrides)
        workflow.run_id = run_id
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    networks = json.loads(result.read_text())["networks"]
    return {name: network["metrics"]["accuracy"]["value"] for name, network in networks.items()}


def parsed(configs: list[str], folder: Path, overrides: dict[str, Any]) -> ConfigWorkflow:
    """The workflow as ``python -m monai.bundle run`` reads it."""
    return ConfigWorkflow(
        workflow_type="train",
        config_file=[str(BUNDLE / "configs" / name) for name in configs],
        bundle_root=str(BUNDLE),
        output_dir=str(folder),
        resume=True,
        **overrides,
    )


if __name__ == "__main__":
    main()
