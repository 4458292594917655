"""The student that comes with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SHIPPED_STUDENT"]

SHIPPED_STUDENT = Path(__file__).with_name("student.int8.onnx")
"""The exported student of the flagship, ``models/student.int8.onnx`` of its bundle, which is a part of this package.

For research; not a medical device. The model card of the bundle tells what it knows and what not. It was trained on
frames of FETAL_PLANES_DB (Burgos-Artizzu et al. 2020, doi:10.5281/zenodo.3904280) and of the African maternal fetal
planes (Sendra-Balcells et al. 2023, doi:10.5281/zenodo.7540448), both CC BY 4.0.
"""
