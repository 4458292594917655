"""What must hold on a GPU, and what a step costs there, in one run of a few minutes.

    python benchmarks/gpu.py

ResNet-50 to ResNet-18 at 1 x 224 x 224, batch 32, soft targets and attention of four layers. A stage-2 step is timed
against its two bare halves, the teacher's forward pass and the student's plain step, all in turns; then come mixed
precision with a gradient scaler, ``torch.compile``, one rank of NCCL, pinned memory, and how often a step waits for the
device. Without a GPU it runs on the CPU as far as that goes, with smaller frames, and says what it has left out.
"""

from __future__ import annotations

import argparse
import copy
import os
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import monai
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_fetalkd.engines import DistillationTrainer
from monai_fetalkd.handlers import NonFiniteLossGuard
from monai_fetalkd.inferers import PrecisionInferer
from monai_fetalkd.losses import AttentionTransferLoss, DistillationLoss
from monai_fetalkd.networks import student_resnet, teacher_resnet
from monai_fetalkd.utils.markdown import markdown_table

LAYERS = ["layer1", "layer2", "layer3", "layer4"]
WARM_UP = 5


class Material:
    """Networks and a batch, the same in every part.

    Args:
        device: where they are.
        side: side of a frame in pixels.
        batch: frames of a batch.
    """

    def __init__(self, device: torch.device, side: int, batch: int) -> None:
        torch.manual_seed(0)
        self.device = device
        small = device.type == "cpu"
        self._student = student_resnet(8) if small else teacher_resnet(18)
        self._teacher = student_resnet(32) if small else teacher_resnet(50)
        self.batch = {"image": torch.rand(batch, 1, side, side), "label": torch.randint(6, (batch,))}

    def student(self) -> nn.Module:
        """A fresh student, always with the same weights."""
        return copy.deepcopy(self._student).to(self.device)

    def teacher(self) -> nn.Module:
        """The teacher."""
        return copy.deepcopy(self._teacher).to(self.device)

    def on_device(self) -> dict[str, Tensor]:
        """The batch where the networks are."""
        return {name: value.to(self.device) for name, value in self.batch.items()}


def trainer_of(
    material: Material, steps: int, network: nn.Module | None = None, loader: Iterable | None = None, **arguments: Any
) -> DistillationTrainer:
    """A stage-2 trainer that takes so many steps."""
    student = material.student() if network is None else network
    return DistillationTrainer(
        device=material.device,
        max_epochs=1,
        train_data_loader=[material.on_device()] * steps if loader is None else loader,
        network=student,
        teacher=material.teacher(),
        optimizer=torch.optim.SGD(student.parameters(), lr=0.01),
        student_layers=LAYERS,
        loss_function=DistillationLoss(feature_losses={"at": AttentionTransferLoss()}),
        non_blocking=True,
        decollate=False,
        **arguments,
    )


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, action: Callable[[], Any]) -> float:
    """Milliseconds that an action takes, its work on the device included."""
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    return 1000 * (time.perf_counter() - start)


def step_times(material: Material, steps: int, inferer: PrecisionInferer, **arguments: Any) -> dict[str, list[float]]:
    """A trainer's steps, the teacher's bare forward passes and the student's bare steps, in turns."""
    device, batch = material.device, material.on_device()
    student, teacher = material.student(), material.teacher().eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)

    def bare_forward() -> None:
        with torch.no_grad():
            inferer(batch["image"], teacher)

    def bare_step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(inferer(batch["image"], student), batch["label"]).backward()
        optimizer.step()

    times: dict[str, list[float]] = {"trainer": [], "bare forward": [], "bare step": []}
    trainer = trainer_of(material, steps + WARM_UP, inferer=inferer, **arguments)

    @trainer.on(Events.ITERATION_STARTED)
    def start() -> None:
        times["bare forward"].append(timed(device, bare_forward))
        times["bare step"].append(timed(device, bare_step))
        trainer.state.started = time.perf_counter()

    @trainer.on(Events.ITERATION_COMPLETED)
    def stop() -> None:
        wait(device)
        times["trainer"].append(1000 * (time.perf_counter() - trainer.state.started))

    trainer.run()
    return {name: values[WARM_UP:] for name, values in times.items()}


def table_of_steps(material: Material, steps: int) -> str:
    """What a step costs in each precision and layout, compiled too where there is a GPU."""
    cuda = material.device.type == "cuda"
    settings: list[tuple[str, PrecisionInferer, dict[str, Any]]] = [
        ("float32", PrecisionInferer(), {}),
        ("bfloat16, channels last", PrecisionInferer("bfloat16", channels_last=True), {}),
    ]
    if cuda:
        settings.append(("float16 with a scaler (amp)", PrecisionInferer("float16"), {"amp": True}))
        settings.append(("bfloat16, compiled", PrecisionInferer("bfloat16"), {"compile": True}))
    rows = [["setting", "trainer ms", "teacher alone ms", "student alone ms", "trainer / both bare"]]
    for name, inferer, arguments in settings:
        times = step_times(material, steps, inferer, **arguments)
        middle = {part: statistics.median(values) for part, values in times.items()}
        bare = middle["bare forward"] + middle["bare step"]
        rows.append([name, *(f"{middle[part]:.2f}" for part in times), f"{middle['trainer'] / bare:.3f}"])
    return markdown_table(rows)


def check_scaler(material: Material) -> str:
    """Mixed precision with a gradient scaler trains, and its weights stay finite."""
    if material.device.type != "cuda":
        return "amp with a gradient scaler: needs a GPU, not run"
    trainer = trainer_of(material, 3, amp=True)
    trainer.run()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.network.parameters())
    loss, scale = float(trainer.state.output["loss"]), trainer.scaler.get_scale()
    return f"amp with a gradient scaler: loss {loss:.4f}, scale {scale:g}"


def check_one_rank(material: Material) -> str:
    """One rank of NCCL (gloo on a CPU) ends with the weights of no rank."""
    backend = "nccl" if material.device.type == "cuda" else "gloo"
    plain = trainer_of(material, 3)
    plain.run()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"})
    dist.init_process_group(backend)
    try:
        ids = [material.device] if material.device.type == "cuda" else None
        wrapped = trainer_of(material, 3, network=DistributedDataParallel(material.student(), device_ids=ids))
        wrapped.run()
    finally:
        dist.destroy_process_group()
    pairs = zip(plain.network.parameters(), wrapped.network.parameters(), strict=True)
    apart = max((one - other).abs().max().item() for one, other in pairs)
    assert apart < 1e-3, apart
    return f"one rank of {backend}: largest difference of weights after three steps {apart:.1e}"


def check_pinned(material: Material, steps: int) -> str:
    """What pinned memory is worth to a loader's epoch."""
    if material.device.type != "cuda":
        return "pinned memory: needs a GPU, not run"
    rows = [{"image": image, "label": int(label)} for image, label in zip(*material.batch.values(), strict=True)]
    data = Dataset(rows * steps)
    seconds = {}
    for pinned in (False, True, False, True):
        loader = DataLoader(data, batch_size=len(rows), pin_memory=pinned, num_workers=2)
        trainer = trainer_of(material, 0, loader=loader, inferer=PrecisionInferer("bfloat16"))
        seconds[pinned] = timed(material.device, trainer.run) / steps
    return f"a step with its loader: pinned {seconds[True]:.2f} ms, not pinned {seconds[False]:.2f} ms"


def check_waits(material: Material) -> str:
    """A guarded step reads its losses from the device once."""
    if material.device.type != "cuda":
        return "waits for the device in a step: needs a GPU, not run"
    trainer = trainer_of(material, 6)
    NonFiniteLossGuard("benchmark").attach(trainer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(entry.message) for entry in caught if "synchroniz" in str(entry.message)]
    return f"waits for the device in six guarded steps: {len(waits)}"


def main() -> None:
    """Run all parts and print what they give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=None, help="steps that count; default: 50 on a GPU, 8 on a CPU")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cuda = device.type == "cuda"
    steps = arguments.steps or (50 if cuda else 8)
    material = Material(device, side=224 if cuda else 64, batch=32 if cuda else 16)
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"torch {torch.__version__}, monai {monai.__version__}, {name}, medians of {steps} steps in turns\n")
    print(table_of_steps(material, steps), "\n")
    for line in (
        check_scaler(material),
        check_one_rank(material),
        check_pinned(material, steps),
        check_waits(material),
    ):
        print(f"- {line}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)
        main()
