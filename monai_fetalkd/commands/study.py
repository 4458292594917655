"""Run a study: arms by folds by seeds, in one table with paired intervals.

STUDY is a JSON file that names the configs, the arms, and what each arm changes in them; those of the bundle are in
bundle/studies. Every run of the table, that is an arm on a fold from a seed, is trained and evaluated in a worker
process, and writes its logs, checkpoint and predictions into a folder of its own.

It may be killed at any time: the same command goes on where it was. Other arms and seeds may be added later; runs that
are finished are not repeated. At the end it prints the table and writes it, table.md and study.json, into the folder.

For example

  python -m monai_fetalkd study bundle/studies/phantom.json --output_dir runs/phantom --jobs 2
  python -m monai_fetalkd study bundle/studies/arms.json --output_dir runs/arms --dataset_dir planes.json --jobs 2
  python -m monai_fetalkd study bundle/studies/arms.json --output_dir runs/arms --table
"""

from __future__ import annotations

import argparse

from monai_fetalkd.commands.values import count, path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", type=path, metavar="STUDY", help="the study (JSON)")
    parser.add_argument(
        "--output_dir", type=path, required=True, metavar="DIR", help="folder of everything that it writes"
    )
    parser.add_argument(
        "--dataset_dir", type=path, metavar="DATA", help="what holds the frames (default: as the configs say)"
    )
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="processes that train at once (1)")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="these arms and those they need (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="instead of the seeds of the study")
    parser.add_argument(
        "--split", choices=("testing", "validation"), default="testing", help="frames that the table is of (testing)"
    )
    parser.add_argument("--repeats", type=count, default=1000, metavar="N", help="resamples of the bootstrap (1000)")
    parser.add_argument("--table", action="store_true", help="only print the table of what is finished")


def run(arguments: argparse.Namespace) -> int:
    """Run a study and print its table.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        0.
    """
    import json
    from pathlib import Path

    from monai_fetalkd.evaluation.study import read_study, study_result, study_table
    from monai_fetalkd.utils.files import written_whole

    study = read_study(arguments.study)
    output, chosen = Path(arguments.output_dir), {"arms": arguments.arms, "seeds": arguments.seeds}
    if not arguments.table:
        from monai_fetalkd.evaluation.study.runner import run_study

        run_study(study, output, dataset_dir=arguments.dataset_dir, jobs=arguments.jobs, **chosen)
    result = study_result(study, output, split=arguments.split, repeats=arguments.repeats, **chosen)
    table = study_table(result)
    print(f"\n{table}")
    if not arguments.table:
        for name, text in (("study.json", json.dumps(result, indent=1)), ("table.md", f"{table}\n")):
            with written_whole(output / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(f"\nThe table and all figures are in '{output}' (table.md, study.json).")
    return 0
