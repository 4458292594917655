"""The command of the studies of segmentation: train what is missing, and the tables of validation and test."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from dense_study import BASELINE, TEACHER, Task, predict, train

from monai_fetalkd.evaluation.scores import resampled_means, score_intervals
from monai_fetalkd.utils.markdown import markdown_table


def trained(task: Task, output: Path, seeds: Sequence[int]) -> Iterator[tuple[int, int | None, str, Path]]:
    """Seed, number of labels (None for the teacher), arm and folder of each network of the study."""
    total = sum(row["split"] == "train" for row in task.cases.rows)
    for seed in seeds:
        yield seed, None, TEACHER, output / f"seed_{seed}" / TEACHER
        for labels in task.budgets:
            for name, arm in task.arms.items():
                if labels == total and name != BASELINE and not arm.unlabelled:
                    continue  # nothing is unlabelled: the same as the arm that would show it
                folder = output / f"seed_{seed}" / f"labels_{labels}" / name.replace(" ", "_").replace(",", "")
                yield seed, labels, name, folder


def validation_table(task: Task, output: Path, seeds: Sequence[int]) -> str:
    """Scores of the validation cases: mean over the seeds that are done, then each seed."""
    found: dict[tuple[int | None, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, labels, name, folder in trained(task, output, seeds):
        if (path := folder / "val.json").is_file():
            for key, value in json.loads(path.read_text()).items():
                found[labels, name][key].append(value)
    metrics = list(next(iter(found.values())))
    rows = [["labels", "arm", *metrics]]
    for (labels, name), scores in found.items():
        texts = (
            f"{np.mean(scores[key]):.3f} ({', '.join(f'{value:.3f}' for value in scores[key])})" for key in metrics
        )
        rows.append(["" if labels is None else str(labels), name, *texts])
    return markdown_table(rows)


def score_test(task: Task, output: Path, seeds: Sequence[int]) -> None:
    """Score the test cases with all networks, once."""
    path = output / "test.json"
    if path.is_file():
        raise SystemExit(f"The test cases have been scored: '{path}' is there.")
    networks = list(trained(task, output, seeds))
    if missing := [str(folder) for *_, folder in networks if not (folder / "val.json").is_file()]:
        raise SystemExit(f"Train all networks first: {len(missing)} are missing, such as '{missing[0]}'.")
    cases = task.cases.split("test")
    found = []
    for seed, labels, name, folder in networks:
        network = task.teacher() if labels is None else task.student()
        network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        scores = {
            key: values.tolist() for key, values in task.test_scores(predict(network, cases.images), cases).items()
        }
        found.append({"seed": seed, "labels": labels, "arm": name, "scores": scores})
        print(f"seed {seed}, {labels} labels, {name}", flush=True)
    path.write_text(json.dumps({"groups": [row[task.group] for row in cases.rows], "networks": found}))


def test_table(output: Path) -> str:
    """Test scores with 95 % intervals of resampled seeds and groups, and paired differences to labels alone."""
    read = json.loads((output / "test.json").read_text())
    seeds = sorted({network["seed"] for network in read["networks"]})
    metrics = list(read["networks"][0]["scores"])
    values: dict[tuple[int | None, str], np.ndarray] = {}  # [metrics, seeds, cases]
    for network in read["networks"]:
        key = network["labels"], network["arm"]
        shape = len(metrics), len(seeds), len(read["groups"])
        values.setdefault(key, np.full(shape, np.nan))[:, seeds.index(network["seed"])] = list(
            network["scores"].values()
        )
    # [arms, metrics, 1 + repeats]
    means = dict(zip(values, resampled_means(np.stack(list(values.values())), read["groups"]), strict=True))
    rows = [["labels", "arm", *metrics, f"{metrics[0]}, less labels alone", f"{metrics[0]}, of the teacher's"]]
    for (labels, name), own in means.items():
        row = ["" if labels is None else str(labels), name, *map(_text, own)]
        less = "" if labels is None or name == BASELINE else _text(own[0] - means[labels, BASELINE][0], "+")
        share = "" if labels is None else _text(own[0] / means[None, TEACHER][0])
        rows.append([*row, less, share])
    return markdown_table(rows)


def _text(means: np.ndarray, sign: str = "") -> str:
    found = score_intervals({"": means})[""]
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def command(make_task: Callable[[Path], Task], description: str | None) -> None:
    """Train what is missing, print the validation scores, or score the test cases."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("action", choices=["train", "validation", "test"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", help="train these only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = make_task(arguments.data)
    if arguments.action == "train":
        for seed, labels, name, folder in trained(task, arguments.output, arguments.seeds):
            if labels is None or arguments.arms is None or name in arguments.arms:
                teacher = None if labels is None else arguments.output / f"seed_{seed}" / TEACHER / "model.pt"
                train(task, folder, name, labels or 0, seed, teacher)
    elif arguments.action == "validation":
        print(validation_table(task, arguments.output, arguments.seeds))
    else:
        score_test(task, arguments.output, arguments.seeds)
        print(test_table(arguments.output))
