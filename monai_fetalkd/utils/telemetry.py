"""Telemetry of the libraries in use, switched off: no process that handles frames of patients may contact a vendor."""

from __future__ import annotations

import os
import sys
import warnings

__all__ = ["disable_telemetry"]

_VARIABLES = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def disable_telemetry() -> None:
    """Switch off the telemetry of ONNX Runtime, OpenVINO and MLflow, in this process and in those that it starts.

    It is called when ``monai_fetalkd`` is imported. A variable of the environment that is already set keeps its value.

    Warns:
        UserWarning: when ONNX Runtime has been imported before, since it reads its variable only then.
    """
    if "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ:
        warnings.warn(
            "onnxruntime was imported before monai_fetalkd and may send telemetry: import monai_fetalkd first, or set "
            "ORT_DISABLE_TELEMETRY=1 in the environment.",
            stacklevel=3,
        )
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    # OpenVINO has no variable for it, and sends nothing where this package of its own cannot be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    # MONAI imports MLflow before a bundle's config imports this package; nothing has been sent by then
    if mlflow := sys.modules.get("mlflow.telemetry"):
        mlflow.set_telemetry_client()
