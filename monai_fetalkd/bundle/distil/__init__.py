"""A small bundle from a large one: read the teacher bundle, make its student, pair their layers, write the configs.

:func:`.plan.plan_distillation` finds everything out and writes nothing; :func:`.writing.write_bundle` writes what it
has found. The written config calls :mod:`monai_fetalkd.bundle.stages`, as any other does.
"""

from __future__ import annotations

from monai_fetalkd.utils.lazy import lazy_modules

__getattr__ = lazy_modules(__name__)
