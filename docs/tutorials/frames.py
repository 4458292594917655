# %% [markdown]
# # Your own ultrasound frames, from folder to report
#
# You have frames in folders, one folder for each plane. This tutorial makes a datalist that is split by patient, checks
# it, trains a teacher and a student on it, and reads the report: the commands you would type, one after the other.
#
# The frames here are generated: a *phantom*, drawings of six planes as a simulated probe would image them. **They are
# not patients, and no number below says anything about a clinical use.** Put your own folder in their place. Networks
# and epochs are so small that all of it takes about a minute on one CPU core; the last section says what to change.

# %%
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import monai_fetalkd
from monai_fetalkd.ultrasound.data import PLANE_NAMES, make_phantom

bundle = Path(monai_fetalkd.__file__).parents[1] / "bundle"  # the folder `bundle` of the clone
work = Path(tempfile.mkdtemp())


def python(*arguments: str, status: int = 0) -> None:
    """Run `python ARGUMENTS` and print what it prints."""
    done = subprocess.run([sys.executable, *arguments], cwd=work, text=True, capture_output=True)
    print(done.stdout)
    assert done.returncode == status, done.stderr


# %% [markdown]
# ## The frames
#
# One folder for each class, and in it one folder for each patient: `frames/Fetal brain/patient-0007/3.png`. Pictures
# and DICOM files may be mixed. A table of files is as good, see [From your frames to a network](../data.md).

# %%
phantom = Path(make_phantom(work / "phantom", train=96, val=24, test=48, size=64))
listed = json.loads((phantom / "datalist.json").read_text())
for row in (row for split in ("training", "validation", "testing") for row in listed[split]):
    folder = work / "frames" / PLANE_NAMES[row["label"]] / row["group"]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(phantom / row["image"], folder)
print(*sorted(folder.name for folder in (work / "frames").iterdir()), sep="\n")

# %% [markdown]
# ## 1. Make a datalist
#
# The patient is the folder below the class. Patient names become salted hashes, and all frames of a patient go into the
# same split. `--salt_file` keeps the salt, so that frames that come later can be added under the same hashes.

# %%
python("-m", "monai_fetalkd", "datalist", "frames", "--output", "planes.json", "--salt_file", "salt.txt")

# %% [markdown]
# ## 2. Check it
#
# The check finds what would make every metric wrong: patients in two splits, the same or nearly the same frame in two
# splits, one frame with two labels, files that cannot be read. Its exit status is 1 when there is any.

# %%
python("-m", "monai_fetalkd", "check", "planes.json", "--output", "check.json")

# %% [markdown]
# This is what it says of a leak. We put a frame of the training patients into the test split:

# %%
leaky = json.loads((work / "planes.json").read_text())
leaky["testing"].append({**leaky["training"][0]})
(work / "leaky.json").write_text(json.dumps(leaky))
python("-m", "monai_fetalkd", "check", "leaky.json", status=1)

# %% [markdown]
# ## 3. Train
#
# One command trains the teacher, a student on labels alone for comparison, and the student in two stages: attention
# transfer, then distillation. It ends with the test frames. `ultrasound.json` finds the scan sector, removes the
# burned-in annotations around it, and augments as ultrasound varies. `phantom.json` makes the networks and frames
# small; leave it out for real training. Any item of the configs can be changed on the command line, such as
# `--train#epochs`.

# %%
configs = [str(bundle / "configs" / name) for name in ("train.json", "phantom.json", "ultrasound.json")]
training = ["--config_file", str(configs), "--bundle_root", str(bundle), "--dataset_dir", "planes.json"]
training += ["--output_dir", "run", "--quiet", "true", "--num_workers", "0"]
epochs = ["--teacher#epochs", "6", "--attention#epochs", "1", "--train#epochs", "4", "--views", "4"]
python("-m", "monai.bundle", "run", *training, *epochs)

# %% [markdown]
# ## 4. Read the results
#
# The table above is the short form. `run/eval` holds all of it:
#
# - `report.html`: one file to open in a browser. Metrics with intervals by patient, learning curves, confusion,
#   calibration, attention maps, the worst mistakes, cost, provenance.
# - `metrics.json`: every number, with its interval.
# - `predictions/*.csv`: the probabilities of every test frame.

# %%
print(*sorted(str(path.relative_to(work)) for path in (work / "run" / "eval").glob("*.*")), sep="\n")
metrics = json.loads((work / "run" / "eval" / "metrics.json").read_text())
for name, network in metrics["networks"].items():
    accuracy = network["metrics"]["accuracy"]
    print(f"{name}: accuracy {accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f})")

# %% [markdown]
# The predictions are all that an evaluation needs, so networks that were trained elsewhere can be compared in the same
# way. An interval of the difference that includes zero means: these patients do not show which network is better.

# %%
predictions = sorted(str(path) for path in (work / "run" / "eval" / "predictions").glob("*.csv"))
python("-m", "monai_fetalkd", "evaluate", *predictions, "--repeats", "200")

# %% [markdown]
# ## With your own frames
#
# ```text
# python -m monai_fetalkd datalist /data/by_class --output planes.json --salt_file salt.txt
# python -m monai_fetalkd check planes.json
# python -m monai.bundle run --config_file "['bundle/configs/train.json','bundle/configs/ultrasound.json']" \
#     --bundle_root bundle --dataset_dir planes.json --output_dir runs/mine
# ```
#
# This trains a ResNet-50 and a student of 0.70 M parameters at 128 x 128, for which a GPU is advisable. The classes are
# those of the datalist. Next: [From your frames to a network](../data.md) for formats, folds and privacy,
# [Evaluation](../evaluation.md) for the metrics, and [the student on an edge device](../terminal.md) for the export.
