"""What losses, taps and trainer cost: a stage-2 step against the same arithmetic written by hand.

    python benchmarks/step_overhead.py

ResNet-34 to ResNet-18, 1 x 128 x 128, batch 16, cross entropy + soft targets + attention of four layers, float32. Both
loops share one process and one batch, take turns (who goes first alternates), and start from equal weights.

Nobody is fast by leaving something out: both first take three steps in float64 on small frames, after which their
weights must agree to 1e-12. In float32 they would drift apart whatever is done: rounding moves an activation over the
kink of a ReLU or another position into a maximum, and the handwritten loop against itself, from weights that differ by
1e-7 of their size, is 4e-4 apart after six steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.nn import functional

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import teacher_resnet

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
CE_WEIGHT, KD_WEIGHT, AT_WEIGHT, TEMPERATURE = 0.1, 0.9, 1.0, 4.0


def by_hand(student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor]) -> Callable[[], Tensor]:
    """A step as one would write it without any library but PyTorch; it returns its loss."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)

    def forward(network: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = network.maxpool(network.act(network.bn1(network.conv1(x))))  # type: ignore[operator]
        features = []
        for name in LAYERS:
            x = getattr(network, name)(x)
            features.append(x)
        return network.fc(network.avgpool(x).flatten(1)), features  # type: ignore[operator]

    def attention(feature: Tensor) -> Tensor:
        return functional.normalize(feature.square().mean(1).flatten(1))

    def step() -> Tensor:
        student.train()
        optimizer.zero_grad(set_to_none=False)
        with torch.no_grad():
            soft, wise = forward(teacher, batch["image"])
        logits, features = forward(student, batch["image"])
        loss = CE_WEIGHT * functional.cross_entropy(logits, batch["label"])
        loss = loss + KD_WEIGHT * TEMPERATURE**2 * functional.kl_div(
            functional.log_softmax(logits / TEMPERATURE, 1),
            functional.softmax(soft / TEMPERATURE, 1),
            reduction="batchmean",
        )
        for own, other in zip(features, wise, strict=True):
            loss = loss + AT_WEIGHT * (attention(own) - attention(other)).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


class Pair:
    """Both loops from equal weights, on one batch."""

    def __init__(self, side: int, batch_size: int, steps: int) -> None:
        torch.manual_seed(0)
        batch = {"image": torch.rand(batch_size, 1, side, side), "label": torch.randint(6, (batch_size,))}
        self.student, teacher = teacher_resnet(18), teacher_resnet(34).eval().requires_grad_(False)
        self.twin = copy.deepcopy(self.student)
        self.step = by_hand(self.twin, teacher, batch)
        self.trainer = DistillationTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[batch] * steps,
            network=self.student,
            teacher=teacher,
            optimizer=torch.optim.SGD(self.student.parameters(), lr=0.01),
            student_layers=LAYERS,
            loss_function=DistillationLoss(
                CE_WEIGHT, KD_WEIGHT, TEMPERATURE, {"at": AttentionTransferLoss()}, {"at": AT_WEIGHT}
            ),
            decollate=False,
        )

    def apart(self) -> float:
        """The largest difference of a weight."""
        pairs = zip(self.student.parameters(), self.twin.parameters(), strict=True)
        return max((own - other).abs().max().item() for own, other in pairs)


def check_same_arithmetic() -> float:
    """The largest difference of a weight after three steps in float64."""
    torch.set_default_dtype(torch.float64)
    pair = Pair(side=64, batch_size=4, steps=3)
    torch.set_default_dtype(torch.float32)
    pair.trainer.run()
    for _ in range(3):
        pair.step()
    apart = pair.apart()
    if apart > 1e-12:
        raise SystemExit(f"the two loops compute different things: a weight differs by {apart:.1e} in float64")
    return apart


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=40, help="steps that count; four more come first to warm up")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    apart = check_same_arithmetic()
    pair = Pair(side=128, batch_size=16, steps=arguments.steps + 4)
    times: dict[str, list[float]] = {"trainer": [], "by hand": []}

    def timed_step() -> None:
        start = time.perf_counter()
        pair.step()
        times["by hand"].append(time.perf_counter() - start)

    trainer = pair.trainer
    started = 0.0

    @trainer.on(Events.ITERATION_STARTED)
    def start() -> None:
        nonlocal started
        if trainer.state.iteration % 2:
            timed_step()
        started = time.perf_counter()

    @trainer.on(Events.ITERATION_COMPLETED)
    def stop() -> None:
        times["trainer"].append(time.perf_counter() - started)
        if not trainer.state.iteration % 2:
            timed_step()

    trainer.run()
    counted = {name: row[4:] for name, row in times.items()}
    ratios = [one / other for one, other in zip(counted["trainer"], counted["by hand"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {arguments.steps} steps of each, in turns")
    for name, row in counted.items():
        print(f"{name:8} {1000 * statistics.median(row):8.1f} ms a step (median)")
    print(f"ratio    {middle:8.3f} (median of pairs; quartiles {low:.3f} to {high:.3f})")
    print(f"largest difference of weights after three steps of each in float64: {apart:.1e}")


if __name__ == "__main__":
    main()
