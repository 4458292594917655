"""Trained students in use: export, runtime, video streams, server."""

from __future__ import annotations

from monai_fetalkd.utils.lazy import lazy_modules

__getattr__ = lazy_modules(__name__)
