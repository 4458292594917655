"""How well stored predictions agree with the annotator."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from monai_fetalkd.evaluation.scores import Predictions, scores
from monai_fetalkd.ultrasound.data import read_annotation


class Agreement(ScoringMethod):
    """Scores the predictions that batch inference stored (``original``) by the labels of the annotator (``final``).

    Frames that were in training score too well: a fair figure needs frames that were labelled after it.

    Args:
        class_names: the class table.
    """

    def __init__(self, class_names: list[str]) -> None:
        super().__init__("Accuracy, F1 and calibration of stored predictions, on frames with a label")
        self.class_names = class_names

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score them.

        Args:
            request: nothing of it is needed.
            datastore: the studies.

        Returns:
            ``frames`` (how many were compared) and every headline score; one that is not defined is None.
        """
        rows, probabilities = [], []
        for image in sorted(datastore.get_labeled_images()):
            predicted = datastore.get_label_uri(image, DefaultLabelTag.ORIGINAL.value)
            if not predicted:
                continue
            path = datastore.get_image_uri(image)
            by_frame = _stored(predicted)
            for row in read_annotation(datastore.get_label_uri(image, DefaultLabelTag.FINAL.value), self.class_names):
                if row.get("frame") in by_frame:
                    rows.append({"image": path, **row})
                    probabilities.append(by_frame[row.get("frame")])
        if not rows:
            raise ValueError("No frame has both a label and a stored prediction: run batch inference first.")
        result = scores(Predictions.from_rows(self.class_names, rows, probabilities))
        return {"frames": len(rows)} | {name: None if math.isnan(value) else value for name, value in result.items()}


def _stored(path: str) -> dict[int | None, list[float]]:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    answers = content.get("frames", [content])
    return {answer.get("frame"): [each["score"] for each in answer["prediction"]] for answer in answers}
