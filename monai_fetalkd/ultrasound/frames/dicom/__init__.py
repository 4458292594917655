"""DICOM, single frames and cines, through pydicom and its decoders.

Only what the pixels need is taken out of a header. ``patient_id`` and ``machine`` are the only doors to anything else.
"""

from __future__ import annotations

from .header import machine, patient_id
from .source import DicomSource

__all__ = ["DicomSource", "machine", "patient_id"]
