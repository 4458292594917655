"""The networks of ``arms.py`` on phantom frames that nobody has looked at before.

    python benchmarks/fresh_frames.py --runs runs/arms --seeds 0 1 2

The settings of ``phantom.json`` were chosen in trials scored on its test frames, so those flatter. These frames are of
another seed of the phantom and chose nothing. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import monai
import torch
from arms import SOFT_TARGETS, parsed

from monai_fetalkd.ultrasound.data import make_phantom
from monai_fetalkd.utils.checkpoints import load_weights

CHECKPOINTS = {
    "teacher": "models/teacher.pt",
    "student, from scratch": "models/baseline.pt",
    SOFT_TARGETS: "soft_targets/models/model.pt",
    "student, two stages": "models/model.pt",
}


def main() -> None:
    """Evaluate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, required=True, help="the --output_dir of arms.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--phantom_seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=3000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "phantom"
        make_phantom(frames, train=6, val=6, test=arguments.frames, seed=arguments.phantom_seed)
        workflow = parsed(["train.json", "phantom.json"], Path(folder), {"dataset_dir": str(frames)})
        workflow.initialize()
        item = workflow.parser.get_parsed_content
        evaluator = item("test#evaluator")
        print(f"torch {torch.__version__}, monai {monai.__version__}, phantom seed {arguments.phantom_seed}\n")
        print("| network | mean | by seed |\n| --- | --- | --- |")
        for name, path in CHECKPOINTS.items():
            evaluator.network = item("teacher#network" if name == "teacher" else "student")
            row = []
            for seed in arguments.seeds:
                load_weights(evaluator.network, arguments.runs / f"seed_{seed}" / path)
                evaluator.run()
                row.append(evaluator.state.metrics["accuracy"])
            print(f"| {name} | {statistics.mean(row):.3f} | {', '.join(f'{value:.3f}' for value in row)} |")


if __name__ == "__main__":
    main()
