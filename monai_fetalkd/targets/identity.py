"""All that the answers of a teacher depend on beside its input."""

from __future__ import annotations

from typing import Any

import monai
import torch

from monai_fetalkd.teachers import Teacher, inferer_settings
from monai_fetalkd.utils.hashing import hash_of_code, hash_of_data

__all__ = ["identity_of"]


def identity_of(teacher: Teacher, inferer: Any) -> dict[str, Any]:
    """Tell teacher, inferer and versions apart from others, to be read and to be hashed.

    Args:
        teacher: the teacher, with the weights it has now.
        inferer: how it is called.

    Returns:
        JSON types by name.
    """
    networks = teacher.networks()
    return {
        "teacher": ", ".join(type(network).__name__ for network in networks),
        "hash_of_teacher": hash_of_data(
            [teacher.describe(), *([repr(network), network.state_dict()] for network in networks)]
        ),
        "hash_of_code": hash_of_code(module for network in networks for module in network.modules()),
        "inferer": type(inferer).__qualname__,
        "hash_of_inferer": hash_of_data(inferer_settings(inferer)),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }
