"""The student leaves PyTorch and stays the same network: ONNX in float32 and INT8, ``.pt2``, verified and reported."""

from __future__ import annotations

from .calibration_rows import balanced_rows
from .export import Export
from .fake_quantization import fake_quantized
from .formats import NetworkWithAttention, trace, write_int8, write_onnx, write_program
from .segmentation import SegmentationExport
from .verification import compare_logits

__all__ = [
    "Export",
    "NetworkWithAttention",
    "SegmentationExport",
    "balanced_rows",
    "compare_logits",
    "fake_quantized",
    "trace",
    "write_int8",
    "write_onnx",
    "write_program",
]
