# %% [markdown]
# # A 3-D U-Net in two stages
#
# This tutorial distils a MONAI U-Net into one of a fourteenth of its size, in three dimensions, with the trainers of
# both stages. The trainers are MONAI `SupervisedTrainer`s, so handlers, AMP, inferers and validation are the ones you
# know.
#
# The volumes are generated: noisy spheres of three grey levels. They show the way, not a gain: in so few steps a
# teacher has little to add. It takes less than a minute on one CPU core.

# %%
import json
import tempfile
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import MeanDice, ValidationHandler, from_engine
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import AsDiscreted, Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, RandFlipd
from monai.utils import set_determinism

from monai_fetalkd.bundle.spheres import SPHERE_NAMES, make_spheres

set_determinism(0)
torch.set_num_threads(1)

folder = Path(tempfile.mkdtemp())
datalist = Path(make_spheres(folder / "spheres", train=12, val=4, test=8, size=16))
rows = json.loads(datalist.read_text())
print({split: len(rows[split]) for split in ("training", "validation", "testing")}, SPHERE_NAMES)

# %% [markdown]
# ## Data, as for any MONAI project

# %%
keys = ["image", "label"]
read = [LoadImaged(keys), EnsureChannelFirstd(keys), EnsureTyped(keys)]
augmented = Compose([*read, *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3))])


def volumes(split: str, transform: Compose) -> Dataset:
    files = [{key: str(datalist.parent / row[key]) for key in keys} for row in rows[split]]
    return Dataset(files, transform)


training = DataLoader(volumes("training", augmented), batch_size=4, shuffle=True)
validation = DataLoader(volumes("validation", Compose(read)), batch_size=4)
testing = DataLoader(volumes("testing", Compose(read)), batch_size=4)

# %% [markdown]
# ## Teacher and student
#
# Both are U-Nets of the same depth, so that their layers pair up by name. Where they do not, give `teacher_layers` as
# well. `DiceCELoss` is the loss on labels in all trainings.


# %%
def unet(channels: tuple[int, ...]) -> UNet:
    return UNet(3, in_channels=1, out_channels=len(SPHERE_NAMES), channels=channels, strides=(2, 2), num_res_units=2)


label_loss = DiceCELoss(to_onehot_y=True, softmax=True)
classes = len(SPHERE_NAMES)
one_hot = Compose([AsDiscreted("pred", argmax=True, to_onehot=classes), AsDiscreted("label", to_onehot=classes)])


def evaluator(network: UNet, loader: DataLoader) -> SupervisedEvaluator:
    dice = MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
    return SupervisedEvaluator(
        device="cpu", val_data_loader=loader, network=network, postprocessing=one_hot, key_val_metric={"dice": dice}
    )


def dice_of(network: UNet, loader: DataLoader = testing) -> float:
    engine = evaluator(network, loader)
    engine.run()
    return engine.state.metrics["dice"]


teacher, student = unet((12, 24, 48)), unet((3, 6, 12))
print([sum(parameter.numel() for parameter in network.parameters()) for network in (teacher, student)])

SupervisedTrainer(
    device="cpu",
    max_epochs=20,
    train_data_loader=training,
    network=teacher,
    optimizer=torch.optim.AdamW(teacher.parameters(), lr=0.005),
    loss_function=label_loss,
).run()
print(f"teacher: Dice {dice_of(teacher):.3f}")

# %% [markdown]
# ## Stage 1: attention transfer
#
# The student learns to attend where the teacher attends, at three layers. Labels play no part. `FeatureTaps` finds
# layers by their names; these are the two encoders and the bottom of MONAI's U-Net. `trainer.state.output` holds the
# loss of each layer under `at_<layer>`; with `decollate=False` it is that of the batch, else a list of its volumes.

# %%
from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import DistillationLoss

layers = ["model.0", "model.1.submodule.0", "model.1.submodule.1.submodule"]

stage_1 = AttentionTransferTrainer(
    device="cpu",
    max_epochs=5,
    train_data_loader=training,
    decollate=False,
    network=student,
    teacher=teacher,
    student_layers=layers,
    optimizer=torch.optim.AdamW(student.parameters(), lr=0.01),
    logits=False,  # end both forward passes after the last tapped layer
)
stage_1.run()
print({name: round(value.item(), 3) for name, value in stage_1.state.output.items() if name.startswith("at_")})

# %% [markdown]
# ## Stage 2: distillation
#
# From those weights the student learns from the labels and from the teacher's softened prediction of each voxel. The
# validation handler is MONAI's.

# %%
stage_2 = DistillationTrainer(
    device="cpu",
    max_epochs=20,
    train_data_loader=training,
    decollate=False,
    network=student,
    teacher=teacher,
    optimizer=torch.optim.AdamW(student.parameters(), lr=0.02),
    loss_function=DistillationLoss(ce_weight=1.0, kd_weight=0.3, temperature=2.0, label_loss=label_loss),
    train_handlers=[ValidationHandler(interval=5, validator=evaluator(student, validation))],
)
stage_2.run()
print({name: round(stage_2.state.output[name].item(), 3) for name in ("loss", "ce", "kd")})
print(f"student in two stages: Dice {dice_of(student):.3f}")

# %% [markdown]
# `network` of both trainers is the student alone. The teacher is asked in eval mode and without gradient, and is left
# as it was, so a checkpoint of the trainer's network is a checkpoint of the student:

# %%
torch.save(student.state_dict(), folder / "student.pt")
print(f"{(folder / 'student.pt').stat().st_size / 1000:.0f} kB")

# %% [markdown]
# ## Compare it
#
# The student alone, with as many steps. Whether distillation gains anything on *your* volumes is what this number
# answers. Here it does not: in a minute the student alone beats its own teacher. In five minutes a seed, with 8
# labelled volumes and 40 without labels, it gains: 0.593 on labels alone, 0.655 in two stages
# ([the starter bundle](../bundle.md#for-a-task-of-your-own)).

# %%
set_determinism(0)
alone = unet((3, 6, 12))
SupervisedTrainer(
    device="cpu",
    max_epochs=25,
    train_data_loader=training,
    network=alone,
    optimizer=torch.optim.AdamW(alone.parameters(), lr=0.02),
    loss_function=label_loss,
).run()
print(f"student on labels alone: Dice {dice_of(alone):.3f}")

# %% [markdown]
# Next: `python -m monai_fetalkd init DIR` writes all of this as a MONAI bundle to change and run;
# [Distil a network of your own](../distil.md) has transformers, deep supervision, sigmoid heads and several teachers;
# [Which loss, when](../losses.md) has the losses for dense outputs.
