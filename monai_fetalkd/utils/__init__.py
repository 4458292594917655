"""What the other packages share: files, hashes, checkpoints, processes."""

from __future__ import annotations

from monai_fetalkd.utils.lazy import lazy_modules

__getattr__ = lazy_modules(__name__)
