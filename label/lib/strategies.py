"""Which frame to label next."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from lib.planes import Planes
from monai_fetalkd.active_learning import STRATEGIES, Pool, rank
from monai_fetalkd.ultrasound.frames import FrameError


class RankedFrames(Strategy):
    """Asks for the unlabelled frames that a strategy of :mod:`monai_fetalkd.active_learning` puts first.

    A request may give ``count`` (how many to rank; 1) and ``seed`` (of ``"random"``).

    Args:
        name: the strategy.
        planes: the bundle.
    """

    def __init__(self, name: str, planes: Planes) -> None:
        super().__init__(f"Asks for {STRATEGIES[name]}")
        self.name = name
        self.planes = planes

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The image to label next, its ``frame`` where it is a cine, ``score``, and ``ranking``; None without any."""
        count = request.get("count", 1)
        if type(count) is not int or count < 1:
            raise ValueError(f"'count' must be a whole number from 1, not {count!r}.")
        images, rows, unreadable = self._rows(datastore, sorted(datastore.get_unlabeled_images()))
        looks = None
        while rows and looks is None:
            try:
                looks = self._looks(rows, datastore)
            except FrameError as error:  # its header could be read, its pixels cannot
                unreadable[images[[row["image"] for row in rows].index(error.path)]] = str(error)
                kept = [index for index, row in enumerate(rows) if row["image"] != error.path]
                images, rows = [images[index] for index in kept], [rows[index] for index in kept]
        if looks is None:
            return None
        pool = Pool(len(rows), **looks)
        seed = request.get("seed", secrets.randbits(32))
        order, scores = rank(self.name, pool, count, seed)
        ranking = [
            {"id": images[position], "score": float(score), **_frame(rows[position])}
            for position, score in zip(order, scores, strict=True)
        ]
        return {**ranking[0], "ranking": ranking, "unreadable": unreadable}

    def _looks(self, rows: list[dict[str, Any]], datastore: Datastore) -> dict[str, Any]:
        if self.name in ("random", "first"):
            return {}
        student = self.planes.look("model.pt", rows)
        if self.name == "disagreement":
            return {
                "probabilities": student.probabilities,
                "teacher": self.planes.look("teacher.pt", rows).probabilities,
            }
        if self.name == "diversity":
            _, labelled, _ = self._rows(datastore, datastore.get_labeled_images())
            known = self.planes.look("model.pt", labelled).features if labelled else None
            return {"features": student.features, "labelled": known}
        return {"probabilities": student.probabilities}

    def _rows(
        self, datastore: Datastore, images: Iterable[str]
    ) -> tuple[list[str], list[dict[str, Any]], dict[str, str]]:
        """The frames of images, the image of each, and the files that cannot be read, with the reason."""
        names: list[str] = []
        rows: list[dict[str, Any]] = []
        unreadable: dict[str, str] = {}
        for image in images:
            try:
                found = self.planes.rows(datastore.get_image_uri(image))
            except (FrameError, FileNotFoundError) as error:
                unreadable[image] = str(error)
            else:
                names += [image] * len(found)
                rows += found
        return names, rows, unreadable


def _frame(row: dict[str, Any]) -> dict[str, int]:
    return {"frame": row["frame"]} if "frame" in row else {}
