"""Our own bundles, distilled by their own configs and by those that ``init --teacher`` writes.

    python benchmarks/own_bundle.py fetal_head --data hc18 --output runs/own_head
    python benchmarks/own_bundle.py planes --output runs/own_planes

For each seed: all stages of the bundle by its hand-written configs; then the trained teacher becomes a bundle of its
own, ``init --teacher --student`` makes a student bundle of it with the same small network, and its stages run for as
many epochs. All students are scored on the same test frames, with which nothing was chosen. ``fetal_head`` segments
frames of HC18, ``planes`` classifies the generated frames of ``phantom.json``. The runs are short, so the results
themselves are below what the bundles reach. What the hand-written configs have trained in the folder is not trained
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Subject:
    """A bundle of this repository.

    Attributes:
        folder: the bundle.
        configs: its configs for training.
        metric: what its students are compared by.
        score: reads that from the entry of a network.
        names: where the entries are in ``eval/metrics.json``.
        frames: training frames of a run.
        epochs: epochs of stage 2, and for each of them those of the teacher and of stage 1.
    """

    folder: Path
    configs: tuple[str, ...]
    metric: str
    score: Callable[[Any], float]
    names: Callable[[dict[str, Any]], dict[str, Any]]
    frames: int
    epochs: tuple[int, float, float]


SUBJECTS = {
    "fetal_head": Subject(
        ROOT / "bundles" / "fetal_head",
        ("train.json",),
        "mean Dice",
        lambda entry: entry["metrics"]["mean_dice"],
        lambda table: table,
        100,
        (16, 1, 0.5),
    ),
    "planes": Subject(
        ROOT / "bundle",
        ("train.json", "phantom.json"),
        "accuracy",
        lambda entry: entry["metrics"]["accuracy"]["value"],
        lambda table: table["networks"],
        720,
        (10, 1.6, 0.2),
    ),
}


def main() -> int:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("subject", choices=list(SUBJECTS))
    parser.add_argument("--data", type=Path, help="folder with heads.csv, images and masks, for fetal_head")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, help="training frames")
    parser.add_argument("--epochs", type=int, help="epochs of stage 2; others follow")
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.subject]
    if (arguments.data is None) == (arguments.subject == "fetal_head"):
        parser.error("--data goes with fetal_head alone")
    arguments.output.mkdir(parents=True, exist_ok=True)
    frames, epochs = arguments.frames or subject.frames, arguments.epochs or subject.epochs[0]
    data = make_data(arguments.data, arguments.output.resolve(), frames)
    rows = []
    for seed in arguments.seeds:
        rows.append({"seed": seed, **compare(subject, arguments.output / str(seed), data, seed, epochs)})
        print(rows[-1], flush=True)
    (arguments.output / "results.json").write_text(json.dumps({"metric": subject.metric, "rows": rows}, indent=1))
    from monai_fetalkd.utils.markdown import markdown_table

    names = list(rows[0])
    print(f"{subject.metric}\n\n{markdown_table([names, *([str(row[name]) for name in names] for row in rows)])}")
    return 0


def make_data(data: Path | None, folder: Path, frames: int) -> Path:
    """The datalist: of real frames where there are any, or of generated ones."""
    if data is not None:
        return make_datalist(data, folder / "datalist.json", frames)
    from monai_fetalkd.ultrasound.data import make_phantom

    return Path(make_phantom(folder / "phantom", train=frames, val=180, test=900, size=64))


def make_datalist(data: Path, path: Path, frames: int) -> Path:
    """The splits of the table, the training frames cut to a number."""
    lists: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "testing": []}
    sections = dict(zip(("train", "val", "test"), lists, strict=True))
    for row in csv.DictReader((data / "heads.csv").open()):
        pair = {"image": row["image"], "label": row["mask"]}
        lists[sections[row["split"]]].append({key: str((data / name).resolve()) for key, name in pair.items()})
    lists["training"] = lists["training"][:: max(1, len(lists["training"]) // frames)][:frames]
    path.write_text(json.dumps(lists))
    return path.resolve()


def compare(subject: Subject, folder: Path, data: Path, seed: int, epochs: int) -> dict[str, float]:
    """The teacher and the students of both configs on the test frames."""
    train = [str(subject.folder / "configs" / name) for name in subject.configs]
    given = {"dataset_dir": data, "device": "cpu", "seed": seed, "quiet": "true"}
    by_hand, student = (folder / "by_hand").resolve(), folder / "student"
    teacher_epochs, attention_epochs = (max(1, round(share * epochs)) for share in subject.epochs[1:])
    short = {"teacher#epochs": teacher_epochs, "attention#epochs": attention_epochs, "train#epochs": epochs}
    command(train, bundle_root=subject.folder, output_dir=by_hand, resume="true", **given, **short)
    result = scores(subject, by_hand, "by hand")

    config = ConfigParser.load_config_files(train)
    config["dataset_dir"] = str(data)
    small = config["network_def"]
    teacher = teacher_bundle(subject, config, folder / "teacher", by_hand / "models" / "teacher.pt")
    if isinstance(small, str):  # that of inference
        small = json.loads((subject.folder / "configs" / "inference.json").read_text())["network_def"]
    (folder / "student.json").write_text(json.dumps(small))
    shutil.rmtree(student, ignore_errors=True)
    init = ["init", str(student), "--teacher", str(teacher), "--student", str(folder / "student.json")]
    subprocess.run([sys.executable, "-m", "monai_fetalkd", *init], check=True, stdout=subprocess.DEVNULL)
    configs = [str(teacher / "configs" / "train.json"), str(student / "configs" / "distill.json")]
    short = {"distil#attention#epochs": attention_epochs, "distil#distillation#epochs": epochs, "distil#seed": seed}
    command(configs, bundle_root=student.resolve(), **given, **short, **{"distil#quiet": "true", "distil#timings": 1})
    weights = {"teacher": teacher / "models" / "model.pt"}
    weights |= {"baseline": student / "models" / "baseline.pt", "train": student / "models" / "model.pt"}
    files = {f"{stage}#ckpt": path.resolve() for stage, path in weights.items()}
    scored = (folder / "by_init").resolve()
    command(train, bundle_root=subject.folder, output_dir=scored, run_id="run_summary", **given, **files)
    made = scores(subject, scored, "by init")
    return result | {key: value for key, value in made.items() if key != "teacher"}


def teacher_bundle(subject: Subject, train: dict[str, Any], folder: Path, weights: Path) -> Path:
    """The bundle with its teacher as the network of inference, and one config of training."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("configs", "docs"):
        shutil.copytree(subject.folder / part, folder / part)
    shutil.copy(subject.folder / "LICENSE", folder)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    channels = "$@metadata['inputs']['image']['num_channels']"
    definition = dict(train["teacher"]["network_def"])
    config["network_def"] = definition | {key: channels for key in ("in_channels",) if key in definition}
    config["network_def"] |= {key: "$len(@class_names)" for key in ("out_channels",) if key in definition}
    path.write_text(json.dumps(config, indent=4))
    if isinstance(train["network_def"], dict):  # else that of inference
        train = train | {"network_def": config["network_def"]}
    (folder / "configs" / "train.json").write_text(json.dumps(train, indent=4))
    (folder / "models").mkdir()
    shutil.copy(weights, folder / "models" / "model.pt")
    return folder


def command(configs: list[str], **items: object) -> None:
    """Run MONAI's bundle command."""
    arguments = [part for key, value in items.items() for part in (f"--{key}", str(value))]
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", json.dumps(configs), *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def scores(subject: Subject, folder: Path, kind: str) -> dict[str, float]:
    """The metric by network, from the table of a run."""
    entries = subject.names(json.loads((folder / "eval" / "metrics.json").read_text()))
    names = dict(zip(entries, ("teacher", f"alone, {kind}", f"distilled, {kind}"), strict=True))
    return {names[name]: round(subject.score(entry), 4) for name, entry in entries.items()}


if __name__ == "__main__":
    sys.exit(main())
