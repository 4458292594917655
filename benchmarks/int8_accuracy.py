"""What INT8 costs the students of a finished study, on their test frames, in 7 and 8 bits, as they are and continued.

    python benchmarks/int8_accuracy.py bundle/studies/arms.json --runs runs/arms --output runs/int8.json

The study is of ``python -m monai_fetalkd study``. Every student of an arm is exported as the command ``export`` does
it, calibrated on training frames, and compared with its float32 file on the test frames of its fold. "Continued" is
the same student after ``qat.json``, under the teacher of its cell. Nothing is chosen here: neither students nor
settings. Intervals are of a bootstrap that draws students (a seed of a fold), since a student is right or wrong as a
whole. An interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_fetalkd.evaluation.study import read_study
from monai_fetalkd.evaluation.study.plan import Cell, Study
from monai_fetalkd.utils.files import written_whole

LEAST_AGREEMENT = 0.98  # the default of the command
FIGURES = ("agreement", "accuracy", "relative_rms")


def compare(study: Study, cell: Cell, bits: int, continued: bool, folder: Path) -> dict[str, Any]:
    """Export one student, and say what its files are right in.

    Args:
        study: the study.
        cell: the cell of the student.
        bits: of its weights in INT8.
        continued: whether it is trained on with ``qat.json`` first.
        folder: an empty one.

    Returns:
        Figures of both files by name, and the number of test frames.
    """
    configs = Path(study.bundle_root, "configs")
    checkpoint = cell.folder / "model.pt"
    if continued:
        checkpoint = folder / "qat.pt"
        qat = ConfigParser.load_config_file(configs / "qat.json")
        changes = {
            **cell.overrides,
            **{name: qat[name] for name in ("train#epochs", "train#lr")},
            **{"train#start_from": str(cell.folder / "model.pt"), "train#ckpt": str(checkpoint)},
            **{"output_dir": str(folder), "weight_bits": bits, "resume": False, "quiet": True},
        }
        workflow = ConfigWorkflow(
            workflow_type="train",
            config_file=[*study.configs, str(configs / "qat.json")],
            logging_file=False,
            **changes,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    exported = {"ckpt": str(checkpoint), "export_dir": str(folder / "exported"), "weight_bits": bits, "agreement": 0.0}
    workflow = ConfigWorkflow(
        config_file=[*study.configs, str(configs / "export.json")],
        logging_file=False,
        **{**cell.overrides, **exported},
    )
    workflow.initialize()
    (content,) = workflow.run()
    files = {"float32": content["student.onnx"], "int8": content["student.int8.onnx"]}
    result: dict[str, Any] = {name: {key: file[key] for key in FIGURES} for name, file in files.items()}
    result["frames"] = sum(part["frames"] for part in content["student.onnx"]["by_class"].values())
    return result


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, Cell, int, bool]]:
    """What is compared: a name for each, the cell, the bits, and whether it is continued."""
    study = read_study(arguments.study)
    for cell in study.cells(arguments.runs, [arguments.arm], arguments.seeds):
        if cell.arm == arguments.arm:
            for bits in arguments.bits:
                for continued in (False, True) if arguments.continued else (False,):
                    yield f"{cell.name}, {bits} bits{', continued' if continued else ''}", cell, bits, continued


def interval(values: Sequence[float], weights: Sequence[int]) -> tuple[float, float, float]:
    """A weighted mean, and 95 % of its bootstrap over students."""
    value, weight = np.asarray(values), np.asarray(weights)
    drawn = np.random.default_rng(0).integers(len(value), size=(10_000, len(value)))
    means = (value * weight)[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float((value * weight).sum() / weight.sum()), float(low), float(high)


def main() -> None:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", metavar="STUDY", help="the study (JSON)")
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="its folder, finished")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON of all figures")
    parser.add_argument("--arm", default="two stages", metavar="NAME", help="whose students (two stages)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="instead of those of the study")
    parser.add_argument("--bits", type=int, nargs="+", default=[7, 8], choices=(7, 8))
    parser.add_argument("--continued", action="store_true", help="also continue each with qat.json")
    arguments = parser.parse_args()
    study = read_study(arguments.study)
    found = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for name, cell, bits, continued in rows(arguments):
        if name not in found:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = compare(study, cell, bits, continued, Path(folder))
            with written_whole(arguments.output) as temporary:
                temporary.write_text(json.dumps(found, indent=1))
        print(name, found[name], flush=True)

    print(f"\ntorch {version('torch')}, onnxruntime {version('onnxruntime')}, arm '{arguments.arm}'\n")
    print("| weights | continued | students | frames | relative RMS | same class | accuracy, float32 | INT8 |", end=" ")
    print("lost to INT8, 95 % | refused |")
    print("| --- " * 10 + "|")
    for bits in arguments.bits:
        for continued in (False, True) if arguments.continued else (False,):
            part = [found[name] for name, _, b, c in rows(arguments) if (b, c) == (bits, continued)]
            frames = [result["frames"] for result in part]
            lost = [result["float32"]["accuracy"] - result["int8"]["accuracy"] for result in part]
            agreement = interval([result["int8"]["agreement"] for result in part], frames)[0]
            accuracy = [
                interval([result[name]["accuracy"] for result in part], frames)[0] for name in ("float32", "int8")
            ]
            error = np.mean([result["int8"]["relative_rms"] for result in part])
            refused = sum(result["int8"]["agreement"] < LEAST_AGREEMENT for result in part)
            mean, low, high = interval(lost, frames)
            print(
                f"| {bits} bits | {'yes' if continued else 'no'} | {len(part)} | {sum(frames)} | {error:.3f} | "
                f"{agreement:.2%} | {accuracy[0]:.3f} | {accuracy[1]:.3f} | {mean:+.4f} ({low:+.4f} to {high:+.4f}) | "
                f"{refused} of {len(part)} |"
            )


if __name__ == "__main__":
    main()
