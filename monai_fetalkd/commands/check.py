"""Check a datalist: class balance, patients in two splits, frames with two labels, duplicate frames.

SOURCE is a datalist (JSON), or anything else that the command datalist takes.

It prints how many frames of each class there are by split and by source, and then whatever would make a metric wrong
that is measured on this datalist: a group (patient) in two splits, frames of two splits that are the same or nearly,
one frame with two labels, frames that cannot be read. Unlabelled frames are for training: none may be of a
patient of the validation or test set, or nearly one of their frames. Each frame is read once, so that thousands of
them take minutes.

The exit status is 0 when there is no problem, and 1 when there is one.

For example

  python -m monai_fetalkd check planes.json --output report.json
"""

from __future__ import annotations

import argparse

from monai_fetalkd.commands.values import path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=path, metavar="SOURCE", help="what holds the frames, see above")
    parser.add_argument("--output", type=path, metavar="JSON", help="write the whole report here")
    parser.add_argument(
        "--no_duplicates", action="store_true", help="do not read the frames: class balance and groups alone"
    )
    parser.add_argument(
        "--min_correlation", type=float, metavar="R", help="from which two frames are nearly the same, up to 1 (0.87)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read frames (one a core, 8 at most)")


def run(arguments: argparse.Namespace) -> int:
    """Check a datalist and print what was found.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0 when there is no problem, else 1.
    """
    from monai_fetalkd.ultrasound.data.check import MIN_CORRELATION, check_datalist, report_text
    from monai_fetalkd.ultrasound.data.datalist import read_source

    report = check_datalist(
        read_source(arguments.source),
        duplicates=not arguments.no_duplicates,
        min_correlation=MIN_CORRELATION if arguments.min_correlation is None else arguments.min_correlation,
        workers=arguments.workers,
    )
    print(report_text(report))
    if arguments.output:
        report.write(arguments.output)
        print(f"\nThe report is in '{arguments.output}'.")
    return 1 if report.problems() else 0
