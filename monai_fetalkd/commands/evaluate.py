"""Evaluate networks side by side from their predictions (CSV).

FILES are tables of predictions, one a network, on the same frames: file, group (patient), source, machine, label, and
a column of probabilities for each class. Runs of this project write them; so can any other program. A network is named
by its file (student.csv: student), or as NAME=FILE.

It prints accuracy, balanced accuracy, macro F1 and AUROC, negative log-likelihood and expected calibration error with
their 95% intervals (a bootstrap that resamples patients), then each two networks compared (the difference in accuracy,
McNemar's exact test), then notes on the results. With --output all else is written as well: by class,
source and scanner, confusion, reliability. With --report there is a page to read beside it, in one HTML file.

For example

  python -m monai_fetalkd evaluate teacher.csv student.csv --output eval --report
  python -m monai_fetalkd evaluate teacher=a/test.csv student=b/test.csv --validation student=b/val.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from monai_fetalkd.commands.values import count, path, whole

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="predictions of each network: FILE or NAME=FILE")
    parser.add_argument(
        "--validation",
        nargs="+",
        default=[],
        metavar="FILES",
        help="predictions on other frames by the same names, for temperature scaling and thresholds",
    )
    parser.add_argument("--output", type=path, metavar="FOLDER", help="write metrics.json and the predictions here")
    parser.add_argument("--report", action="store_true", help="write report.html there as well")
    parser.add_argument("--overwrite", action="store_true", help="replace an older result in that folder")
    parser.add_argument("--split", default="testing", metavar="NAME", help="what the frames are called (testing)")
    parser.add_argument("--repeats", type=count, default=1000, metavar="N", help="resamples of the bootstrap (1000)")
    parser.add_argument("--seed", type=whole, default=0, help="of the bootstrap (0)")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the table, and write the result if asked to.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0

    Raises:
        ValueError: when a report is asked for without a folder, or the predictions cannot be evaluated.
    """
    if arguments.report and not arguments.output:
        raise ValueError("--report needs a folder to write report.html to: give one as --output FOLDER.")
    from monai_fetalkd.evaluation.scores.output import check_output, write_evaluation
    from monai_fetalkd.evaluation.scores.predictions import read_predictions
    from monai_fetalkd.evaluation.scores.result import evaluate
    from monai_fetalkd.evaluation.scores.text import table

    files, validation = _by_name(arguments.files), _by_name(arguments.validation)
    networks = {name: read_predictions(file) for name, file in files.items()}
    if arguments.output:
        check_output(networks, arguments.output, arguments.overwrite)
    content = evaluate(
        networks,
        {name: read_predictions(file) for name, file in validation.items()},
        settings={
            "predictions": {name: str(file) for name, file in files.items()},
            "validation": {name: str(file) for name, file in validation.items()},
        },
        split=arguments.split,
        repeats=arguments.repeats,
        seed=arguments.seed,
    )
    print(table(content))
    if arguments.output:
        write_evaluation(content, networks, arguments.output, arguments.overwrite)
        print(f"\nThe result is in '{arguments.output}'.")
    if arguments.report:
        from monai_fetalkd.evaluation.report import Report

        Report(arguments.output, Path(arguments.output) / "report.html", title="Evaluation report")()
    return 0


def _by_name(arguments: Sequence[str]) -> dict[str, Path]:
    """Files by the names of their networks."""
    files: dict[str, Path] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or Path(argument).exists():
            name, file = Path(argument).stem, argument
        if not name:
            raise ValueError(f"'{argument}' names no network: name one as NAME=FILE.")
        file = path(file)
        if name in files:
            raise ValueError(f"'{files[name]}' and '{file}' are both called '{name}': name one as NAME=FILE.")
        files[name] = Path(file)
    return files
