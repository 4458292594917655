"""Inference over many studies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask


class PlaneBatch(BatchInferTask):
    """Classifies all, the labelled or the unlabelled studies, and stores each prediction as a label ``original``.

    MONAI Label's own divides by the number of GPUs, also where there is none, and ends at the first bad file.
    """

    def __call__(self, request: dict[str, Any], datastore: Any, infer: Callable) -> dict[str, Any]:
        """Classify them.

        Args:
            request: ``model``, ``images`` (``"all"``, ``"labeled"`` or ``"unlabeled"``), ``max_batch_size``,
                ``label_tag``.
            datastore: the studies.
            infer: the app's inference.

        Returns:
            By image the answer, or ``{"error": why there is none}``.
        """
        images = sorted(self.get_images(request, datastore))
        results: dict[str, Any] = {}
        for image in images[: request.get("max_batch_size") or None]:
            try:
                results[image] = infer({**request, "image": image, "save_label": True}, datastore)["params"]
            except ValueError as error:
                results[image] = {"error": str(error)}
            except HTTPException as error:  # about the model, not about this image
                raise ValueError(error.detail) from error
        return results
