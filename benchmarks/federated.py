"""A federated student beside students of one site alone and of all frames in one place, on the phantom's three sites.

    python benchmarks/federated.py --output_dir runs/federated --seeds 0 1

Needs NVFlare, see docs/distributed.md. All students have one size and as many epochs. Each is scored on the test frames
of all three sites. What is there from an earlier run is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fetalkd.evaluation.scores import read_predictions, scores
from monai_fetalkd.utils.markdown import markdown_table

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
SITES = ("site-1", "site-2", "site-3")
SECTIONS = ("training", "validation", "testing")


def pool(sites: Path, sections: Mapping[str, tuple[str, ...]], path: Path) -> None:
    """Write a datalist of the frames that these sites have in these sections."""
    contents = {site: json.loads((sites / site / "datalist.json").read_text()) for site in SITES}
    datalist: dict[str, Any] = {"name": path.stem, "labels": contents[SITES[0]]["labels"]}
    for section, names in sections.items():
        datalist[section] = [
            {**row, "image": str((sites / site / row["image"]).resolve())}
            for site in names
            for row in contents[site][section]
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(datalist, indent=1))


def bundle(configs: tuple[str, ...], *options: str) -> None:
    """Run the bundle."""
    files = str([str(BUNDLE / "configs" / name) for name in configs])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", str(BUNDLE)]
    subprocess.run([*command, "--quiet", "true", *options], check=True)


def distil(folder: Path, datalist: Path, teacher: Path | None, epochs: int, seed: int) -> Path:
    """Distil a student as the federation does, without the federation: stage 2 from scratch, under this teacher."""
    student = folder / "models" / "model.pt"
    common = ["--dataset_dir", str(datalist), "--output_dir", str(folder), "--seed", str(seed)]
    if not student.is_file():
        if teacher is None:
            bundle(("train.json", "phantom.json"), *common, "--run_id", "run_teacher")
            teacher = folder / "models" / "teacher.pt"
        bundle(
            ("train.json", "phantom.json", "federated.json"),
            *(*common, "--run_id", "run_distillation", "--teacher#ckpt", str(teacher), "--train#epochs", str(epochs)),
        )
    return student


def federate(sites: Path, workspace: Path, rounds: int, local_epochs: int, seed: int) -> Path:
    """Distil the global student."""
    student = workspace / "model.pt"
    if not student.is_file():
        job = [
            sys.executable,
            str(BUNDLE / "federated" / "job.py"),
            "--sites",
            str(sites),
            "--workspace",
            str(workspace),
        ]
        lengths = ["--rounds", str(rounds), "--local_epochs", str(local_epochs)]
        subprocess.run([*job, *lengths, "--overlays", "phantom.json", "--set", f"seed={seed}"], check=True)
    return student


def score(students: dict[str, Path], datalist: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Accuracy of each student on the test frames of each site, and on all."""
    options = [
        "--dataset_dir",
        str(datalist),
        "--checkpoints",
        str({name: str(path) for name, path in students.items()}),
    ]
    bundle(
        ("train.json", "phantom.json", "evaluate.json"), *options, "--output_dir", str(folder), "--overwrite", "true"
    )
    content = json.loads((folder / "eval" / "evaluation" / "metrics.json").read_text())
    result = {}
    for name, network in content["networks"].items():
        table = read_predictions(folder / "eval" / "evaluation" / network["predictions"])
        by_site = {site: scores(table.take([source == site for source in table.sources])) for site in SITES}
        result[name] = {
            **{site: found["accuracy"] for site, found in by_site.items()},
            "all": scores(table)["accuracy"],
        }
    return result


def compare(output_dir: Path, seed: int, rounds: int, local_epochs: int, patients: list[str]) -> dict[str, Any]:
    """All students of one seed."""
    folder = output_dir / f"seed-{seed}"
    sites, epochs = folder / "sites", rounds * local_epochs
    make = [sys.executable, str(BUNDLE / "federated" / "phantom_sites.py"), "--sites", str(sites), "--seed", str(seed)]
    subprocess.run([*make, "--patients", *patients], check=True)
    everywhere = dict.fromkeys(SECTIONS, SITES)
    pool(sites, everywhere, folder / "all.json")
    students = {}
    for site in SITES:
        pool(sites, {**everywhere, "training": (site,), "validation": (site,)}, folder / f"{site}.json")
        students[f"{site} alone"] = distil(
            folder / f"{site}-alone", folder / f"{site}.json", sites / site / "teacher.pt", epochs, seed
        )
    students["federated"] = federate(sites, folder / "federated", rounds, local_epochs, seed)
    students["all frames in one place"] = distil(folder / "central", folder / "all.json", None, epochs, seed)
    return score(students, folder / "all.json", folder / "scores")


def main() -> None:
    """Print the table of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--local_epochs", type=int, default=1)
    parser.add_argument("--patients", nargs=3, default=["40", "10", "50"])
    arguments = parser.parse_args()
    found = {}
    for seed in arguments.seeds:
        found[seed] = compare(
            arguments.output_dir, seed, arguments.rounds, arguments.local_epochs, list(arguments.patients)
        )
        (arguments.output_dir / "accuracy.json").write_text(json.dumps(found, indent=4))
    rows = [["seed", "student", *SITES, "all"]]
    for seed, students in found.items():
        for name, accuracy in students.items():
            rows.append([str(seed), name, *(f"{value:.3f}" for value in accuracy.values())])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
