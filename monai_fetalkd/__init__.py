"""Knowledge distillation for MONAI: a large teacher hands its knowledge to a small student.

Importing the package itself loads neither torch nor monai; its modules do.

The core, in MONAI's own names:

- :mod:`monai_fetalkd.losses` -- soft targets, attention transfer, losses for dense outputs, their weighted sum
- :mod:`monai_fetalkd.layouts`, :mod:`monai_fetalkd.outputs` -- how features and outputs of a network are read
- :mod:`monai_fetalkd.taps` -- the outputs of hidden layers by name
- :mod:`monai_fetalkd.teachers`, :mod:`monai_fetalkd.targets` -- teachers, and their outputs stored
- :mod:`monai_fetalkd.networks`, :mod:`monai_fetalkd.inferers` -- teacher and student, and how they are called
- :mod:`monai_fetalkd.engines`, :mod:`monai_fetalkd.handlers` -- the trainers of the two stages and what plugs into them
- :mod:`monai_fetalkd.utils` -- files, checkpoints, hashes, processes
- :mod:`monai_fetalkd.bundle` -- what the configs of a bundle call

What is built on it:

- :mod:`monai_fetalkd.active_learning` -- which frames to label next
- :mod:`monai_fetalkd.ultrasound` -- frames, transforms, datalists, datasets, generated frames
- :mod:`monai_fetalkd.evaluation` -- scores with intervals, cost, comparison, report, studies
- :mod:`monai_fetalkd.deployment` -- export, runtime without torch, video streams, server
"""

from __future__ import annotations

from .utils.lazy import lazy_modules
from .utils.telemetry import disable_telemetry

__all__ = ["__version__"]

__version__ = "0.1.0"

disable_telemetry()

__getattr__ = lazy_modules(__name__)
