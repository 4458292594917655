"""An operator for the MONAI Deploy App SDK that names the class a classification bundle gives a frame.

The SDK's own ``MonaiBundleInferenceOperator`` (4.0.0) cannot: it names class 0 once for each class, takes no
preprocessing that is nested, and hands a frame to the network transposed. This file needs the SDK and MONAI alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from monai.deploy.core import AppContext, Fragment, Image, IOType
from monai.deploy.operators.monai_bundle_inference_operator import (
    BundleConfigNames,
    IOMapping,
    MonaiBundleInferenceOperator,
    filter_compose,
)
from monai.transforms import Compose, EnsureChannelFirstd

__all__ = ["BundleClassifierOperator"]

_WEIGHTS = ("models/model.ts", "models/model.pt")  # in the order in which the SDK looks for them
_LOADERS = ("LoadImaged", "LoadFramed")


class BundleClassifierOperator(MonaiBundleInferenceOperator):
    """Classify frames with a bundle.

    It receives ``image``: an ``Image`` or an array with one frame, grey (height, width) or RGB (height, width, 3), with
    levels from 0 to 255; axes of length 1 before them, as ``DICOMSeriesToVolumeOperator`` makes, are taken away.

    It emits ``pred``: a dictionary with the name of the most probable class as ``"result"`` (a list of one, as the SDK
    means it), the ``"probabilities"`` (K,), and the ``"class_names"`` in the order of these.

    Args:
        fragment: the application.
        app_context: its context.
        bundle_path: folder of the bundle, with ``models/model.ts`` or ``models/model.pt``.
        config_names: configs of the bundle that are merged, such as ``["inference", "ultrasound"]``.

    Raises:
        FileNotFoundError: when the bundle or its weights are not there.
        ValueError: by the call, when the frame is of another kind, or there are not as many classes as the class table
            in ``metadata.json`` has.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        app_context: AppContext,
        bundle_path: str | Path,
        config_names: Sequence[str] = ("inference",),
        **kwargs: Any,
    ) -> None:
        folder = Path(bundle_path)
        if not (folder / "configs" / "metadata.json").is_file():
            raise FileNotFoundError(f"'{folder}' is no folder of a bundle: it has no configs/metadata.json.")
        if not any((folder / weights).is_file() for weights in _WEIGHTS):
            raise FileNotFoundError(f"The bundle '{folder}' has no weights: train it first or add {_WEIGHTS[1]}.")
        super().__init__(
            fragment,
            *args,
            app_context=app_context,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", dict, IOType.IN_MEMORY)],
            bundle_path=folder,
            bundle_config_names=BundleConfigNames(config_names=list(config_names)),
            **kwargs,
        )

    def _get_compose(self, obj_name: str, disallowed_prefixes: Sequence[str]) -> Compose:
        # flattened, since the SDK looks at the outermost transforms only; the port brings the frame, not a file
        transforms = list(self._parser.get_parsed_content(obj_name).flatten().transforms)
        if transforms and type(transforms[0]).__name__ in _LOADERS:
            loader = transforms.pop(0)
            with_channel = [isinstance(step, EnsureChannelFirstd) for step in transforms]
            if any(with_channel):
                del transforms[: with_channel.index(True)]  # they turn the axes as a file has them
            else:
                transforms.insert(0, EnsureChannelFirstd(loader.keys, channel_dim="no_channel"))
        return filter_compose(Compose(transforms), disallowed_prefixes)

    def _receive_input(self, name: str, op_input: Any, context: Any) -> tuple[np.ndarray, dict]:
        value = op_input.receive(name)
        frame = np.asarray(value.asnumpy() if isinstance(value, Image) else value)
        shape = frame.shape
        while frame.ndim > 2 and frame.shape[0] == 1:
            frame = frame[0]
        if frame.min() < 0 or frame.max() > 255:
            raise ValueError(f"A frame has levels from 0 to 255, but these go from {frame.min()} to {frame.max()}.")
        if frame.ndim == 3 and frame.shape[-1] == 3:
            frame = np.asarray(PIL.Image.fromarray(frame.astype(np.uint8)).convert("L"))  # as inference.json does
        if frame.ndim != 2:
            raise ValueError(f"One frame is classified at a time, (height, width) or (height, width, 3), not {shape}.")
        return frame.astype(np.float32), {}

    def _send_output(self, value: Any, name: str, metadata: dict, op_output: Any, context: Any) -> None:
        probabilities = np.asarray(value.detach().cpu(), dtype=np.float32).reshape(-1)
        table = self._outputs[name]["channel_def"]
        if sorted(table) != sorted(str(index) for index in range(len(probabilities))):
            raise ValueError(
                f"The network gives {len(probabilities)} classes, but channel_def of '{name}' in metadata.json has "
                f"{len(table)}: {', '.join(map(str, table.values()))}. Give the class table that it was trained with."
            )
        names = [table[str(index)] for index in range(len(probabilities))]
        result = {
            "result": [names[int(probabilities.argmax())]],
            "probabilities": probabilities,
            "class_names": names,
        }
        op_output.emit(result, name)
