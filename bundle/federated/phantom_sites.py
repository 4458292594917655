"""Three hospitals of the phantom, each with a machine of its own, and the teacher that each has trained.

    python bundle/federated/phantom_sites.py --sites SITES

Each folder gets ``datalist.json``, ``images/`` and ``teacher.pt``, as ``job.py`` wants them. For trying and testing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from monai_fetalkd.ultrasound.data.phantom import PLANE_NAMES, Patient, phantom_frame

BUNDLE = Path(__file__).resolve().parent.parent
# a narrow and dark machine, a middling one, and a wide and bright one
MACHINES = {
    "site-1": {"gain": -10.0, "sector": 50.0, "dynamic_range": 70.0},
    "site-2": {"gain": 0.0, "sector": 70.0, "dynamic_range": 60.0},
    "site-3": {"gain": 10.0, "sector": 95.0, "dynamic_range": 45.0},
}


def write_site(folder: Path, machine: dict[str, float], counts: dict[str, int], size: int, seed: list[int]) -> None:
    """Write the frames of one site: every patient gives one of each plane, all by the same machine."""
    (folder / "images").mkdir(parents=True)
    datalist: dict = {"name": folder.name, "labels": {str(label): name for label, name in enumerate(PLANE_NAMES)}}
    for number, (section, patients) in enumerate(counts.items()):
        datalist[section] = []
        for index in range(patients):
            drawn = Patient.draw(np.random.default_rng([*seed, number, index]))
            patient = dataclasses.replace(drawn, scanner=dataclasses.replace(drawn.scanner, **machine))
            for plane in range(len(PLANE_NAMES)):
                image = f"images/{section}-{index:03d}-{plane}.png"
                frame = phantom_frame(plane, np.random.default_rng([*seed, number, index, plane + 1]), size, patient)
                Image.fromarray(frame).save(folder / image)
                row = {
                    "image": image,
                    "label": plane,
                    "group": f"{folder.name}-{section}-{index}",
                    "source": folder.name,
                }
                datalist[section].append(row)
    (folder / "datalist.json").write_text(json.dumps(datalist, indent=1))


def train_teacher(folder: Path, *options: str) -> None:
    """Train the teacher of a site on its frames, as the site itself would."""
    configs = [str(BUNDLE / "configs" / name) for name in ("train.json", "phantom.json")]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(configs), "--run_id", "run_teacher"]
    given = ["--bundle_root", str(BUNDLE), "--dataset_dir", str(folder / "datalist.json"), "--quiet", "true"]
    subprocess.run([*command, *given, "--output_dir", str(folder / "teacher"), *options], check=True)
    shutil.copy(folder / "teacher" / "models" / "teacher.pt", folder / "teacher.pt")


def main() -> None:
    """Make the sites that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=Path, required=True, help="folder for a folder of each site")
    parser.add_argument("--patients", type=int, nargs=3, default=(40, 10, 50), help="of training, validation, testing")
    parser.add_argument("--size", type=int, default=64, help="side of a frame in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="further options of the teacher's run")
    arguments = parser.parse_args()
    counts = dict(zip(("training", "validation", "testing"), arguments.patients, strict=True))
    for number, (name, machine) in enumerate(MACHINES.items()):
        folder = arguments.sites / name
        if not (folder / "teacher.pt").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            write_site(folder, machine, counts, arguments.size, [arguments.seed, number])
            train_teacher(folder, "--seed", str(arguments.seed), *arguments.options)
        print(f"{name}: {machine}, {6 * sum(counts.values())} frames, {folder / 'teacher.pt'}")


if __name__ == "__main__":
    main()
