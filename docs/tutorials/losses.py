# %% [markdown]
# # The losses in PyTorch and in Lightning
#
# You have a training loop and want a smaller network. This tutorial adds knowledge distillation to a plain PyTorch
# loop, and then to a `LightningModule`. It takes the losses and the feature taps of `monai_fetalkd` and nothing else of
# it: no trainer, no bundle, no ultrasound.
#
# The data are the 1,797 handwritten digits that scikit-learn brings along, so nothing is downloaded. It runs on one CPU
# core in less than a minute.

# %%
import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
torch.set_num_threads(1)

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # [1797, 1, 8, 8], from 0 to 1
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels))
training, test = order[:1200], order[1200:]

# %% [markdown]
# ## A teacher and a student
#
# Two networks of the same kind. The student has a fiftieth of the teacher's parameters.


# %%
def network(width: int) -> nn.Sequential:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, width), *block(width, width), nn.MaxPool2d(2), *block(width, 2 * width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def accuracy(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return (model(images[test]).argmax(dim=1) == labels[test]).float().mean().item()


loader = DataLoader(TensorDataset(images[training], labels[training]), batch_size=50, shuffle=True)
teacher, untrained = network(32), network(4)
sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (teacher, untrained)]
print(f"parameters: teacher {sizes[0]}, student {sizes[1]}")

optimizer = torch.optim.AdamW(teacher.parameters(), lr=0.005)
for _ in range(10):
    teacher.train()
    for image, label in loader:
        optimizer.zero_grad()
        functional.cross_entropy(teacher(image), label).backward()
        optimizer.step()
print(f"teacher: {accuracy(teacher):.3f}")

# %% [markdown]
# ## The plain loop
#
# Two things are added to an ordinary loop. `FeatureTaps` reads hidden layers by their names in `named_modules()`: here
# `"8"`, the activation before the pooling of the last block. It is active inside the `with` block and leaves the
# network as it was. `DistillationLoss` is the weighted sum
#
# $$\mathcal{L} = w_\text{ce}\,\mathcal{L}_\text{label} + w_\text{kd}\,\mathcal{L}_\text{soft} +
# w_\text{at}\,\mathcal{L}_\text{attention}$$
#
# and returns the sum as `"loss"`, to differentiate, and each part under its name, to log. The two layers differ in
# width; attention transfer does not mind.
#
# **Put the teacher in eval mode**, or its batch statistics move in every step. The trainers of this package do that
# for you; a loop of your own has to.

# %%
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.taps import FeatureTaps

criterion = DistillationLoss(
    ce_weight=0.2,
    kd_weight=0.8,
    temperature=4.0,
    feature_losses={"at": AttentionTransferLoss()},
    feature_weights={"at": 0.5},
)


def distil(student: nn.Module, epochs: int) -> dict[str, torch.Tensor]:
    student_taps, teacher_taps = FeatureTaps(student, ["8"]), FeatureTaps(teacher, ["8"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01)
    teacher.eval()
    for _ in range(epochs):
        student.train()
        for image, label in loader:
            with torch.no_grad(), teacher_taps:
                target = teacher(image)
            with student_taps:
                logits = student(image)
            parts = criterion(logits, target, label, student_taps.pop(), teacher_taps.pop())
            optimizer.zero_grad()
            parts["loss"].backward()
            optimizer.step()
    return parts


student = copy.deepcopy(untrained)
parts = distil(student, epochs=15)
print({name: round(value.item(), 3) for name, value in parts.items()})
print(f"student under the teacher: {accuracy(student):.3f}")

# %% [markdown]
# ## Did it help?
#
# Compare with a student that starts from the same weights and takes as many steps on the labels alone. Without this
# comparison, the accuracy of a distilled student says nothing about distillation.

# %%
alone = copy.deepcopy(untrained)
optimizer = torch.optim.AdamW(alone.parameters(), lr=0.01)
for _ in range(15):
    alone.train()
    for image, label in loader:
        optimizer.zero_grad()
        functional.cross_entropy(alone(image), label).backward()
        optimizer.step()
print(f"student on labels alone: {accuracy(alone):.3f}")

# %% [markdown]
# One seed and 597 test digits prove little: repeat it with several seeds. `python -m monai_fetalkd evaluate` compares
# predictions with intervals by patient.
#
# The teacher needs no labels. With `ce_weight=0` the student learns from images that nobody has labelled:

# %%
soft = DistillationLoss(ce_weight=0, kd_weight=1, temperature=4.0)
taught = copy.deepcopy(untrained)
optimizer = torch.optim.AdamW(taught.parameters(), lr=0.01)
for _ in range(15):
    taught.train()
    for image, _ in loader:
        with torch.no_grad():
            target = teacher(image)
        optimizer.zero_grad()
        soft(taught(image), target)["loss"].backward()
        optimizer.step()
print(f"student without labels: {accuracy(taught):.3f}")

# %% [markdown]
# ## In Lightning
#
# The same step in a `LightningModule`. One thing needs care. A module that is set as an attribute is registered:
# Lightning would put the teacher into train mode, count its parameters and write it into every checkpoint. So the
# teacher is kept in a tuple, which PyTorch does not look into, and moved to the device by hand.

# %%
import lightning


class Distillation(lightning.LightningModule):
    def __init__(self, student: nn.Module, teacher: nn.Module, loss: DistillationLoss, layers: list[str]) -> None:
        super().__init__()
        self.student, self.loss = student, loss
        self.frozen = (teacher.eval(),)  # no submodule: in no checkpoint, in no optimizer, never in train mode
        self.student_taps, self.teacher_taps = FeatureTaps(student, layers), FeatureTaps(teacher, layers)

    def on_fit_start(self) -> None:
        self.frozen[0].to(self.device)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        image, label = batch
        with torch.no_grad(), self.teacher_taps:
            target = self.frozen[0](image)
        with self.student_taps:
            logits = self.student(image)
        parts = self.loss(logits, target, label, self.student_taps.pop(), self.teacher_taps.pop())
        self.log_dict(parts)
        return parts["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # self.parameters() would do as well: the loss may have parameters, those of a projector
        return torch.optim.AdamW([*self.student.parameters(), *self.loss.parameters()], lr=0.01)


module = Distillation(copy.deepcopy(untrained), teacher, criterion, layers=["8"])
trainer = lightning.Trainer(
    max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(module, loader)
print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})
print(f"student in Lightning: {accuracy(module.student):.3f}")

# %% [markdown]
# Only the student is in the state of the module, and the teacher is as it was:

# %%
assert {name.partition(".")[0] for name in module.state_dict()} == {"student"}
assert not teacher.training

# %% [markdown]
# Next: [which loss, when](../losses.md) for the other losses, [factors of other libraries](../translation.md) if you
# come from torchdistill, timm or `KLDivLoss`, and [a 3-D U-Net with the trainers](segmentation.py), which do all of
# this for you: eval mode, taps, AMP, checkpoints, several GPUs.
