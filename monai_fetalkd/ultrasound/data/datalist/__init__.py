"""Datalists: whatever users hold, brought into one form and split by patient.

A source is the folder of FETAL_PLANES_DB, a table, a folder per class (pictures or DICOM), a folder of images and masks
or a datalist (JSON). :func:`read_source` turns each into a :class:`Datalist`; :func:`load_datalist` is the same for
training and refuses a patient in two splits, and a frame with two labels.
"""

from __future__ import annotations

from .class_table import ClassTable
from .datalist import Datalist
from .fetal_planes_db import BRAIN_PLANES, PLANES
from .groups import Pseudonyms
from .sources import class_names_of, load_datalist, read_source
from .splits import group_folds, held_out

__all__ = [
    "BRAIN_PLANES",
    "PLANES",
    "ClassTable",
    "Datalist",
    "Pseudonyms",
    "class_names_of",
    "group_folds",
    "held_out",
    "load_datalist",
    "read_source",
]
