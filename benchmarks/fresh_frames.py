"""Networks of a study on phantom frames that nobody has looked at before.

    python -m monai_fetalkd study bundle/studies/phantom.json --output_dir runs/phantom --jobs 2
    python benchmarks/fresh_frames.py --runs runs/phantom

The settings of ``phantom.json`` were chosen in trials scored on its test frames, so those flatter. These frames are of
another seed of the phantom and chose nothing. Nothing is trained here. For other settings, such as float32, add them to
``set`` of a copy of the study (``"precision": "float32"``) and name it as ``--study``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import monai
import torch
from monai.bundle import ConfigWorkflow

from monai_fetalkd.evaluation.study import read_study
from monai_fetalkd.ultrasound.data import make_phantom
from monai_fetalkd.utils.checkpoints import load_weights

STUDY = Path(__file__).parents[1] / "bundle" / "studies" / "phantom.json"
ARMS = ("teacher", "from scratch", "soft targets alone", "two stages, attention kept on")


def main() -> None:
    """Evaluate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, required=True, help="the --output_dir of the study")
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--phantom_seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=3000)
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "phantom"
        make_phantom(frames, train=6, val=6, test=arguments.frames, seed=arguments.phantom_seed)
        workflow = ConfigWorkflow(
            workflow_type="train",
            config_file=list(study.configs),
            bundle_root=study.bundle_root,
            logging_file=False,
            **{**study.set, "dataset_dir": str(frames), "output_dir": folder},
        )
        workflow.initialize()
        item = workflow.parser.get_parsed_content
        evaluator = item("test#evaluator")
        print(f"torch {torch.__version__}, monai {monai.__version__}, phantom seed {arguments.phantom_seed}\n")
        print("| network | mean | by seed |\n| --- | --- | --- |")
        for arm in arguments.arms:
            row = []
            for cell in study.cells(arguments.runs, arms=[arm]):
                if cell.arm != arm:
                    continue  # what it starts from
                evaluator.network = item("teacher#network" if cell.stage == "teacher" else "student")
                load_weights(evaluator.network, cell.folder / "model.pt")
                evaluator.run()
                row.append(evaluator.state.metrics["accuracy"])
            print(f"| {arm} | {statistics.mean(row):.3f} | {', '.join(f'{value:.3f}' for value in row)} |")


if __name__ == "__main__":
    main()
