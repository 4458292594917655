"""Knowledge distillation for MONAI: a large teacher hands its knowledge to a small student.

Importing the package itself loads neither torch nor monai; its modules do:

- :mod:`monai_fetalkd.attention` -- a feature map to its attention map
- :mod:`monai_fetalkd.losses` -- soft targets, attention transfer, losses for dense outputs, their weighted sum
- :mod:`monai_fetalkd.taps` -- the outputs of hidden layers by name
- :mod:`monai_fetalkd.checkpoints` -- weights read safely
- :mod:`monai_fetalkd.networks` -- teacher and student factories
- :mod:`monai_fetalkd.engines` -- the trainers of the two stages
- :mod:`monai_fetalkd.handlers`, :mod:`monai_fetalkd.metrics` -- what plugs into the engines
- :mod:`monai_fetalkd.targets` -- what a teacher says of each frame, computed once
- :mod:`monai_fetalkd.inferers` -- how a network is called: precision and memory layout
- :mod:`monai_fetalkd.data` -- frames, datalists and their check, datasets, the phantom
- :mod:`monai_fetalkd.transforms` -- reading, cropping and augmenting ultrasound frames
- :mod:`monai_fetalkd.summary` -- finished networks compared in one table
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ._telemetry import disable_telemetry

__all__ = ["__version__"]

__version__ = "0.1.0"

disable_telemetry()


def __getattr__(name: str) -> ModuleType:
    """Import a module of the package when it is first asked for, so that a config needs one import for all of them."""
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
