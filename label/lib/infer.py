"""Inference on pictures and cines."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.planes import Planes


class PlaneInfer(InferTask):
    """Names the plane of a picture, or of every frame of a cine.

    Args:
        planes: the bundle.
        file: the weights, such as ``"model.pt"``.
        who: what the network is, in words.
    """

    def __init__(self, planes: Planes, file: str, who: str) -> None:
        labels = {name: index for index, name in enumerate(planes.class_names)}
        super().__init__(InferType.CLASSIFICATION, labels, dimension=2, description=f"Names the plane: {who}")
        self.planes = planes
        self.file = file

    def is_valid(self) -> bool:
        """Always: a model without weights is listed, and says so when it is asked."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """Path of the weights, which clients may download."""
        path = self.planes.weights(self.file)
        return str(path) if path.is_file() or not validate else None

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request.

        Args:
            request: ``image`` (path) and, where one frame of a cine is wanted, ``frame``.

        Returns:
            ``label`` and ``prediction`` (class names and scores in order); of a cine ``frames``, a list of them.

        Raises:
            ValueError: when there is no such frame, or the file cannot be read.
        """
        rows = self.planes.rows(request["image"])
        number = request.get("frame")
        if number is not None:
            if type(number) is not int or not 0 <= number < len(rows):
                raise ValueError(f"There is no frame {number!r}: the frames of this image are 0 to {len(rows) - 1}.")
            rows = rows[number : number + 1]
        answers = [self.planes.answer(row) for row in self.planes.look(self.file, rows).probabilities]
        if "frame" not in rows[0]:
            return answers[0]
        frames = [{"frame": row["frame"], **answer} for row, answer in zip(rows, answers, strict=True)]
        return {"frames": frames} if number is None else frames[0]
