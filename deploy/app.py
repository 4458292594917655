"""Name the plane on a DICOM frame with the MONAI Deploy App SDK.

python deploy/app.py --input FOLDER --output FOLDER --model BUNDLE

The input folder holds one single-frame DICOM series; the output folder gets ``planes.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bundle_classifier_operator import BundleClassifierOperator
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec
from monai.deploy.core.arg_parser import parse_args
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator

__all__ = ["PlaneApp", "PlaneWriterOperator"]


class PlaneWriterOperator(Operator):
    """Writes what the classifier says to ``planes.json``.

    Args:
        fragment: the application.
        output_folder: folder of the file.
    """

    def __init__(self, fragment: Fragment, *args: Any, output_folder: str | Path, **kwargs: Any) -> None:
        self.output_folder = Path(output_folder)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the input."""
        spec.input("pred")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write the file."""
        pred = op_input.receive("pred")
        scores = dict(zip(pred["class_names"], map(float, pred["probabilities"]), strict=True))
        self.output_folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"plane": pred["result"][0], "probabilities": scores}, indent=4)
        (self.output_folder / "planes.json").write_text(text, encoding="utf-8")


class PlaneApp(Application):
    """DICOM series to volume to plane to JSON."""

    def compose(self) -> None:
        """Link the operators."""
        options = parse_args(self.argv)
        context = AppContext({})  # the model is the bundle, which the operator loads itself
        # once: an operator without input would run for ever
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=Path(options.input), name="loader")
        selector = DICOMSeriesSelectorOperator(self, name="selector")
        to_volume = DICOMSeriesToVolumeOperator(self, name="to_volume")
        classifier = BundleClassifierOperator(self, app_context=context, bundle_path=options.model, name="classifier")
        writer = PlaneWriterOperator(self, output_folder=options.output, name="writer")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, to_volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(to_volume, classifier, {("image", "image")})
        self.add_flow(classifier, writer, {("pred", "pred")})


if __name__ == "__main__":
    PlaneApp().run()
