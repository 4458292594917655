"""The bundle of the fetal head, distilled by its own configs and by those that ``init --teacher`` writes, on HC18.

    python benchmarks/own_bundle.py --data hc18 --output runs/own_bundle

For each seed: all stages of ``bundles/fetal_head`` by hand-written configs; then the trained teacher becomes a bundle
of its own, ``init --teacher --student`` makes a student bundle of it with the same small network, and its stages run
for as many epochs. All students are scored on the same test frames, with which nothing was chosen. The runs are short,
so the Dice itself is below what the bundle reaches.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

BUNDLE = Path(__file__).parents[1] / "bundles" / "fetal_head"


def main() -> int:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with heads.csv, images and masks")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=100, help="training frames")
    parser.add_argument("--epochs", type=int, default=16, help="epochs of stage 2, of the teacher, and twice stage 1")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    datalist = make_datalist(arguments.data, arguments.output / "datalist.json", arguments.frames)
    rows = []
    for seed in arguments.seeds:
        rows.append({"seed": seed, **compare(arguments.output / str(seed), datalist, seed, arguments.epochs)})
        print(rows[-1], flush=True)
    (arguments.output / "dice.json").write_text(json.dumps(rows, indent=1))
    from monai_fetalkd.utils.markdown import markdown_table

    names = list(rows[0])
    print(markdown_table([names, *([str(row[name]) for name in names] for row in rows)]))
    return 0


def make_datalist(data: Path, path: Path, frames: int) -> Path:
    """The splits of the table, the training frames cut to a number."""
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "testing": []}
    sections = dict(zip(("train", "val", "test"), lists, strict=True))
    for row in csv.DictReader((data / "heads.csv").open()):
        pair = {"image": row["image"], "label": row["mask"]}
        lists[sections[row["split"]]].append({key: str((data / name).resolve()) for key, name in pair.items()})
    lists["training"] = lists["training"][:: max(1, len(lists["training"]) // frames)][:frames]
    path.write_text(json.dumps(lists))
    return path


def compare(folder: Path, datalist: Path, seed: int, epochs: int) -> dict[str, float]:
    """Mean Dice on the test frames of the teacher, and of the students of both configs."""
    train = str(BUNDLE / "configs" / "train.json")
    given = {"dataset_dir": datalist.resolve(), "device": "cpu", "seed": seed, "quiet": "true"}
    shutil.rmtree(folder, ignore_errors=True)
    by_hand = (folder / "by_hand").resolve()
    short = {"teacher#epochs": epochs, "attention#epochs": epochs // 2, "train#epochs": epochs}
    command([train], bundle_root=BUNDLE, output_dir=by_hand, **given, **short)
    result = scores(by_hand, "by hand")

    teacher, student = teacher_bundle(folder / "teacher", by_hand / "models" / "teacher.pt"), folder / "student"
    small = json.loads((BUNDLE / "configs" / "inference.json").read_text())["network_def"]
    (folder / "student.json").write_text(json.dumps(small))
    init = ["init", str(student), "--teacher", str(teacher), "--student", str(folder / "student.json")]
    subprocess.run([sys.executable, "-m", "monai_fetalkd", *init], check=True, stdout=subprocess.DEVNULL)
    configs = [str(teacher / "configs" / "train.json"), str(student / "configs" / "distill.json")]
    short = {"distil#attention#epochs": epochs // 2, "distil#distillation#epochs": epochs, "distil#seed": seed}
    command(configs, bundle_root=student.resolve(), **given, **short, **{"distil#quiet": "true", "distil#timings": 1})
    models = student / "models"
    both = {"baseline#ckpt": (models / "baseline.pt").resolve(), "train#ckpt": (models / "model.pt").resolve()}
    command([train], bundle_root=BUNDLE, output_dir=by_hand, run_id="run_summary", **given, **both)
    made = scores(by_hand, "by init")
    return result | {key: value for key, value in made.items() if key != "teacher"}


def teacher_bundle(folder: Path, weights: Path) -> Path:
    """The bundle with its teacher as the network of inference."""
    shutil.copytree(BUNDLE, folder)
    definition = json.loads((BUNDLE / "configs" / "train.json").read_text())["teacher"]["network_def"]
    path = folder / "configs" / "inference.json"
    channels = "$@metadata['inputs']['image']['num_channels']"
    config = json.loads(path.read_text())
    config["network_def"] = definition | {"in_channels": channels, "out_channels": "$len(@class_names)"}
    path.write_text(json.dumps(config, indent=4))
    (folder / "models").mkdir()
    shutil.copy(weights, folder / "models" / "model.pt")
    return folder


def command(configs: list[str], **items: object) -> None:
    """Run MONAI's bundle command."""
    arguments = [part for key, value in items.items() for part in (f"--{key}", str(value))]
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", json.dumps(configs), *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def scores(folder: Path, kind: str) -> dict[str, float]:
    """Mean Dice by network, from the table of a run."""
    table = json.loads((folder / "eval" / "metrics.json").read_text())
    names = dict(zip(table, ("teacher", f"alone, {kind}", f"distilled, {kind}"), strict=True))
    return {names[name]: round(row["metrics"]["mean_dice"], 4) for name, row in table.items()}


if __name__ == "__main__":
    sys.exit(main())
