"""One network in the forms that run without its Python code: ONNX in float32 and INT8, and torch's ``.pt2``."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from monai_fetalkd.deployment.runtime.processor import adds_exactly
from monai_fetalkd.losses.attention import attention_map
from monai_fetalkd.taps import FeatureTaps
from monai_fetalkd.ultrasound.maps import is_fine

from .distance import FrameDistance

__all__ = [
    "NetworkWithAttention",
    "attention_layer",
    "trace",
    "usable_weight_bits",
    "write_int8",
    "write_onnx",
    "write_program",
]

# what has an integer kernel and counts; the attention map is left in float32, it costs next to nothing
_INTEGER_OPERATIONS = ["Conv", "Gemm", "Add", "MaxPool", "Relu"]

_TALKATIVE = ("onnx_ir", "onnxscript", "torch.onnx._internal.exporter._registration")


class NetworkWithAttention(nn.Module):
    """A network that also tells where it looks: its logits, and the attention map of one hidden layer.

    Args:
        network: from frames ``[N, C, h, w]`` to logits.
        layer: name of the layer, see :class:`~monai_fetalkd.taps.FeatureTaps`.
        distance: what tells how far a frame is from those of training, as a third output; None for no such output.

    Example:
        >>> from monai_fetalkd.networks import student_resnet
        >>> network = NetworkWithAttention(student_resnet(width=2), "layer4").eval()
        >>> logits, attention = network(torch.rand(3, 1, 64, 64))
        >>> attention.shape, float(attention.max())
        (torch.Size([3, 2, 2]), 1.0)
    """

    def __init__(self, network: nn.Module, layer: str, distance: FrameDistance | None = None) -> None:
        super().__init__()
        self.network = network
        self.taps = FeatureTaps(network, list(dict.fromkeys([layer, *([] if distance is None else [distance.layer])])))
        self.layer = layer
        self.distance = distance

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits ``[N, classes]``, mean square over channels ``[N, h', w']``, at most 1, and the distance ``[N]``."""
        with self.taps:
            logits = self.network(image)
        features = self.taps.pop()
        attention = attention_map(features[self.layer])
        # the smallest normal float: where a layer is silent the map is 0, not NaN
        attention = attention / attention.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        if self.distance is None:
            return logits, attention
        return logits, attention, self.distance(features[self.distance.layer])


@torch.no_grad()
def attention_layer(
    network: nn.Module, layers: Sequence[str], image_shape: Sequence[int]
) -> tuple[str, tuple[int, int]]:
    """The layer whose attention is exported: the last one that is fine enough to be shown over a frame.

    Args:
        network: the network, in eval mode.
        layers: names of layers, from the first to the last.
        image_shape: channels and size of a frame.

    Returns:
        Its name, and the rows and columns of its map. Where no layer has 7 x 7 positions or more, it is the one that
        has the most.

    Raises:
        ValueError: when no layer has rows and columns.

    Example:
        >>> from monai_fetalkd.networks import student_resnet
        >>> attention_layer(student_resnet(width=2).eval(), ["layer2", "layer3", "layer4"], (1, 128, 128))
        ('layer3', (8, 8))
    """
    taps = FeatureTaps(network, layers, stop=True)
    with taps:
        features = network(torch.zeros(1, *image_shape))
    grids = {name: tuple(attention_map(feature).shape[1:]) for name, feature in features.items()}
    found = [(name, (grid[0], grid[1])) for name, grid in grids.items() if len(grid) == 2]
    if not found:
        raise ValueError(f"No layer of {', '.join(layers)} has rows and columns: name one that has for its attention.")
    fine = [entry for entry in found if is_fine(entry[1])]
    return fine[-1] if fine else max(found, key=lambda entry: math.prod(entry[1]))


def trace(network: nn.Module, image_shape: Sequence[int]) -> ExportedProgram:
    """Capture a network as it decides, on the CPU, for any number of frames.

    Args:
        network: the network; it stays as it is.
        image_shape: channels and size of a frame.

    Returns:
        The program, without the source lines and paths of this machine.
    """
    frozen = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    example = torch.zeros(2, *image_shape)  # of one frame torch would conclude that there is always one
    program = torch.export.export(frozen, (example,), dynamic_shapes=({0: Dim("N")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def write_program(program: ExportedProgram, path: str | PathLike[str]) -> None:
    """Write the ``.pt2`` file, for ``torch.export.load(path).module()``.

    Args:
        program: of :func:`trace`.
        path: the file to write.
    """
    with Path(path).open("wb") as file:  # given a name, torch wants it to end in .pt2
        torch.export.save(program, file)


def write_onnx(
    program: ExportedProgram, outputs: Sequence[str], path: str | PathLike[str], metadata: Mapping[str, str]
) -> None:
    """Write the float32 ONNX file: batch norm folded into convolutions, input "image", batch of any size.

    Args:
        program: of :func:`trace`.
        outputs: names of the outputs.
        path: the file to write.
        metadata: what the file tells of itself.
    """
    with _without_notes():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: Dim("N")},),
            verbose=False,
        )
    assert exported is not None  # a program is given back where no file is asked for
    model = exported.model_proto
    onnx.checker.check_model(model, full_check=True)
    _save(model, path, metadata)


def write_int8(
    float32: str | PathLike[str],
    frames: Sequence[NDArray[np.float32]],
    path: str | PathLike[str],
    metadata: Mapping[str, str],
    weight_bits: int | None = None,
) -> None:
    """Write the INT8 form of an ONNX file: static, QDQ, weights by channel, ranges from the least to the largest value.

    Activations are unsigned and weights signed, twice as fast on x86 as both signed. Logits stay in float32; softmax
    would feel the rounding more than any other place.

    Args:
        float32: the file of :func:`write_onnx`.
        frames: calibration frames, each ``[C, h, w]`` as the network takes them.
        path: the file to write.
        metadata: what the file tells of itself; ``weight_bits`` is added.
        weight_bits: see :func:`usable_weight_bits`.

    Raises:
        ValueError: when there is no such number of bits.
    """
    bits = usable_weight_bits(weight_bits)
    model = onnx.load(float32)
    # the exporter has inferred all shapes and folded batch norm, which is what this mark asks for
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    quantize_static(
        model,
        str(path),
        _Frames(frames),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_INTEGER_OPERATIONS,
        per_channel=True,
        reduce_range=bits == 7,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )
    _save(onnx.load(path), path, {**metadata, "weight_bits": str(bits)})


def usable_weight_bits(weight_bits: int | None = None) -> int:
    """Bits of the weights of an INT8 file: 8, or 7 for processors that would overflow.

    Seven bits give the same everywhere, and about twice the error.

    Args:
        weight_bits: 7, 8, or None for what this machine can add up, see
            :func:`~monai_fetalkd.deployment.runtime.processor.adds_exactly`.

    Returns:
        7 or 8.

    Raises:
        ValueError: when it is another number.

    Example:
        >>> usable_weight_bits(7)
        7
    """
    if weight_bits is None:
        return 8 if adds_exactly() else 7
    if weight_bits not in (7, 8):
        raise ValueError(f"The weights of an INT8 file have 7 or 8 bits, not {weight_bits}.")
    return weight_bits


@contextmanager
def _without_notes() -> Iterator[None]:
    """Leave out what the exporter tells of each rewriting, of torchvision, which it does not need, and of old calls."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Frames(CalibrationDataReader):
    """Hands one frame after the other to the calibration."""

    def __init__(self, frames: Sequence[NDArray[np.float32]]) -> None:
        self._frames = iter(frames)

    def get_next(self) -> dict[str, Any] | None:
        frame = next(self._frames, None)
        return None if frame is None else {"image": frame[None]}


def _save(model: onnx.ModelProto, path: str | PathLike[str], metadata: Mapping[str, str]) -> None:
    """Save with this metadata, and without the exporter's notes on each node (a tenth of a small file)."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, model):
        del item.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))
