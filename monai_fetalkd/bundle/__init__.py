"""What the configs of a bundle call: workflow, arguments, stages, the starter of ``init``."""

from __future__ import annotations

from monai_fetalkd.utils.lazy import lazy_modules

__getattr__ = lazy_modules(__name__)
