"""Every bundle of MONAI's Model Zoo that trains with ``SupervisedTrainer``, distilled with one command.

    git clone https://github.com/Project-MONAI/model-zoo
    python benchmarks/zoo.py model-zoo --output_dir runs/zoo

For each bundle it writes generated data of the right form and random teacher weights, runs ``init --teacher``, trains
the student alone and in both stages for one epoch of a few small patches, runs inference with the student bundle and
verifies it with MONAI. The table says what ran, and why not what did not. The figures of merit mean nothing: teachers
have learned nothing, and data are noise.

Patches, batches and numbers of samples are reduced, ``num_workers`` is 0, and colour jitter, which needs torchvision,
is left out. Each bundle runs in a process of its own, which is stopped after ``--limit`` seconds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from zoo_cases import CASES, Case, Items, slices

SIZES = ("spatial_size", "roi_size", "k_divisible", "patch_size")


def main() -> int:
    """Try all bundles, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("zoo", type=Path, help="checkout of the Model Zoo")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), metavar="BUNDLE")
    parser.add_argument("--schema", type=Path, help="meta_schema_20240725.json, where it is not to be downloaded")
    parser.add_argument("--limit", type=int, default=1800, help="seconds that a bundle may take")
    parser.add_argument("--one", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return attempt(arguments.zoo, arguments.output_dir, arguments.one, arguments.schema)
    for name in arguments.only:
        result = run_limited(name, arguments.zoo, arguments.output_dir, arguments.schema, arguments.limit)
        print(f"{name}: {result['result']} ({result['seconds']} s)", flush=True)
    print_table(arguments.output_dir, arguments.limit)
    return 0


def run_limited(name: str, zoo: Path, output_dir: Path, schema: Path | None, limit: int) -> dict[str, Any]:
    """Try one bundle in a process of its own, and read what came of it; also where that did not end."""
    folder = output_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, str(zoo), "--output_dir", str(output_dir), "--one", name]
    command += ["--schema", str(schema)] if schema else []
    start, problem = time.perf_counter(), "crashes"
    with (folder / "log.txt").open("w") as log:
        try:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            problem = f"does not end within {limit} s"
    path = folder / "result.json"
    result: dict[str, Any] = json.loads(path.read_text())
    if step := result.pop("step", None):
        result |= {"result": f"{step} {problem}", "seconds": round(time.perf_counter() - start)}
        path.write_text(json.dumps(result, indent=1))
    return result


def print_table(folder: Path, limit: int) -> None:
    """The table of all results in a folder, and what they were made with."""
    from monai_fetalkd.evaluation.provenance import git_commit
    from monai_fetalkd.utils.markdown import markdown_table

    rows = [["bundle", "teacher", "student", "parameters", "pairs", f"seconds (at most {limit})", "result"]]
    for name in CASES:
        path = folder / name / "result.json"
        if path.is_file():
            result = json.loads(path.read_text())
            sizes = " to ".join(f"{size / 1e6:.2f} M" for size in result.get("parameters", ()))
            rows.append([name, *(str(result.get(key, "")) for key in ("teacher", "student"))])
            rows[-1] += [sizes, *(str(result.get(key, "")) for key in ("pairs", "seconds", "result"))]
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "monai", "numpy"))
    commit = git_commit(Path(__file__).parent) or "none"
    print(f"{markdown_table(rows)}\n\n{datetime.date.today()}, commit {commit}, {versions}")


def attempt(zoo: Path, output_dir: Path, name: str, schema: Path | None) -> int:
    """Try one bundle, and write what came of it to ``result.json``."""
    from monai_fetalkd.utils.machine import root_error

    folder = (output_dir / name).resolve()
    case, step = CASES[name], "preparation"
    result: dict[str, Any] = {}
    start = time.perf_counter()

    def begin(next_step: str) -> None:
        nonlocal step
        step = next_step
        write_result(folder, {**result, "step": step})

    begin(step)
    try:
        teacher = folder / name
        shutil.copytree(zoo / "models" / name, teacher)
        (folder / "data").mkdir()
        (teacher / "models").mkdir(exist_ok=True)
        sys.path.insert(0, str(teacher))
        items = case.items(folder / "data", case.size)
        if case.files is not None:
            case.files(teacher)
        refused = random_weights(teacher)
        begin("init")
        student = folder / "student"
        refused = refused or initialise(student, teacher, case, folder)
        if refused:
            result["result"] = f"refused: {refused}"
            return 0
        result |= described(student, teacher)
        begin("training")
        train(teacher, student, case, items, folder)
        begin("inference")
        infer(student, case, items, folder)
        begin("verification")
        verify(student, schema)
        result["result"] = "runs"
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        cause = root_error(error)
        result["result"] = f"{step} fails: {type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
    finally:
        write_result(folder, {**result, "seconds": round(time.perf_counter() - start)})
    return 0


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """What came of a bundle; with a ``step``, where it is."""
    (folder / "result.json").write_text(json.dumps(result, indent=1))


def random_weights(teacher: Path) -> str | None:
    """Write random weights where inference looks for them; why not, where the network cannot be made."""
    import torch

    from monai_fetalkd.bundle.distil.reading import build_network, checkpoint_path, network_definition, read_configs

    train, inference = read_configs(teacher)
    try:
        torch.manual_seed(0)
        network = build_network(network_definition(train, inference))
    except (ValueError, ImportError) as error:
        return str(error)
    path = checkpoint_path(teacher, inference)
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)
    return None


def initialise(student: Path, teacher: Path, case: Case, folder: Path) -> str | None:
    """Run ``init``; what it says where it refuses."""
    from monai_fetalkd.__main__ import main as command

    how = ["--reduce", "2"]
    if case.student is not None:
        (folder / "student.json").write_text(json.dumps(case.student))
        how = ["--student", str(folder / "student.json")]
    errors, shown = StringIO(), StringIO()
    with redirect_stderr(errors), redirect_stdout(shown):
        code = command(["init", str(student), "--teacher", str(teacher), *how])
    print(shown.getvalue(), errors.getvalue())
    told = [line for line in errors.getvalue().splitlines() if line.startswith("error: ")]
    return told[0].removeprefix("error: ") if code else None


def described(student: Path, teacher: Path) -> dict[str, Any]:
    """Networks, sizes and pairs, from what was written."""
    from monai_fetalkd.bundle.distil.reading import build_network, network_definition, read_configs

    train, inference = read_configs(teacher)
    large = build_network(network_definition(train, inference))
    config = type(inference)(student / "configs" / "inference.json", student)
    small = build_network(network_definition(config, config))
    return {
        "teacher": type(large).__name__,
        "student": type(small).__name__,
        "parameters": [sum(value.numel() for value in network.parameters()) for network in (large, small)],
        "pairs": len(json.loads((student / "configs" / "distill.json").read_text())["distil"]["student_layers"]),
    }


def train(teacher: Path, student: Path, case: Case, items: Items, folder: Path) -> None:
    """All stages for one epoch, and the table."""
    import monai

    path = next((teacher / "configs").glob("train.*"))
    overrides: dict[str, Any] = dict(reduced(path, case))
    overrides |= {"dataset_dir": str(folder / "data"), "device": "$torch.device('cpu')"}
    overrides |= dict(zip(case.data, (items[:-1], items[-1:]), strict=True)) if case.items is not slices else {}
    overrides |= {"distil#baseline#epochs": 1, "distil#distillation#epochs": 1, "distil#timings": 1}
    overrides |= {f"distil#image_shape#{axis}": case.size for axis in range(1, dims(student) + 1)}
    overrides |= case.fit
    monai.bundle.run(
        config_file=[str(path), str(student / "configs" / "distill.json")], bundle_root=str(student), **overrides
    )


def infer(student: Path, case: Case, items: Items, folder: Path) -> None:
    """Inference of the student bundle with stock MONAI."""
    import monai

    path = student / "configs" / "inference.json"
    raw = json.loads(path.read_text())
    run_id = next(key for key, value in raw.items() if isinstance(value, list) and "$@evaluator.run()" in value)
    overrides = dict(reduced(path, case)) | {"dataset_dir": str(folder / "data"), "output_dir": str(folder / "eval")}
    if case.items is slices:
        overrides["dataset_dir"] = str(folder / "data" / "infer")
    else:
        overrides[case.inference] = [{key: items[0][key] for key in case.keys}]
    overrides["device"] = "$torch.device('cpu')"
    monai.bundle.run(config_file=str(path), bundle_root=str(student), run_id=run_id, **overrides, **case.inferred)


def verify(student: Path, schema: Path | None) -> None:
    """What the zoo's CI asks of metadata and network."""
    import monai

    metadata, config = (str(student / "configs" / name) for name in ("metadata.json", "inference.json"))
    monai.bundle.verify_metadata(meta_file=metadata, filepath=str(schema or student.parent / "schema.json"))
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=metadata,
        config_file=config,
        device="cpu",
        n=4,
        p=4,
        any=64,
        bundle_root=str(student),
    )


def dims(student: Path) -> int:
    """Spatial dimensions of the network's input."""
    distil = json.loads((student / "configs" / "distill.json").read_text())["distil"]
    return len(distil["image_shape"]) - 1


def reduced(path: Path, case: Case) -> Iterator[tuple[str, Any]]:
    """Overrides that make patches small, batches short and loaders plain, wherever a config says them."""
    from monai_fetalkd.bundle.distil.config import read_file

    def walk(id: str, key: str, item: Any) -> Iterator[tuple[str, Any]]:
        if key in SIZES and isinstance(item, list) and all(isinstance(size, int) for size in item):
            yield id, [min(size, case.size) for size in item]
        elif key in ("num_workers", "cache_rate") and isinstance(item, (int, float)):
            yield id, 0
        elif key in ("num_samples", "sw_batch_size") and isinstance(item, int):
            yield id, 1
        elif key == "batch_size" and isinstance(item, int):
            yield id, min(item, 2)
        elif isinstance(item, list) and any(_needs_torchvision(one) for one in item):
            yield id, [one for one in item if not _needs_torchvision(one)]
        elif isinstance(item, (dict, list)):
            for name, value in item.items() if isinstance(item, dict) else enumerate(item):
                yield from walk(f"{id}#{name}" if id else str(name), str(name), value)

    yield from walk("", "", read_file(path))


def _needs_torchvision(item: Any) -> bool:
    return isinstance(item, dict) and "TorchVision" in str(item.get("_target_"))


if __name__ == "__main__":
    sys.exit(main())
