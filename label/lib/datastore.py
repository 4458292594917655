"""The folder of studies: pictures, DICOM and volumes, and the annotator's labels beside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException

from monai_fetalkd.data import parse_annotation
from monai_fetalkd.files import written_whole
from monai_fetalkd.frames import count_frames
from monai_fetalkd.frames.kinds import SUFFIXES

_NAME = re.compile(r"\w[\w .()=+-]*")  # of an image or a tag: no path, nothing hidden
_ENDINGS = sorted((*SUFFIXES, ".json"), key=len, reverse=True)


class StudiesDatastore(LocalDatastore):
    """MONAI Label's folder of studies, which takes nothing that does not belong into it and gives nothing outside it.

    Args:
        folder: the folder; labels go into ``labels/final`` and ``labels/original`` in it.
        class_names: the class table.
        auto_reload: whether to watch the folder for new files.
    """

    def __init__(self, folder: str, class_names: Sequence[str], auto_reload: bool) -> None:
        self.class_names = class_names
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=auto_reload)

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image; empty for one that is not among the studies, also by way of a link."""
        path = super().get_image_uri(image_id)
        return path if path and self._inside(path) else ""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take a new image, when it can be read and none has its name."""
        _check_name("image", image_id)
        if image_id in self._datastore.objects:
            raise ValueError(f"There is an image '{image_id}' already: give this one another name.")
        if self._to_id(image_filename)[1] not in SUFFIXES:
            raise ValueError(
                f"A file that ends in '{Path(image_filename).suffix}' is no frame: {', '.join(SUFFIXES)} are."
            )
        count_frames(image_filename)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Take the annotator's JSON, when it names classes of the table and frames of the image."""
        _check_name("tag", label_tag)
        path = self.get_image_uri(image_id)
        if not path:
            raise ImageNotFoundException(f"There is no image '{image_id}' among the studies.")
        rows = parse_annotation(Path(label_filename).read_bytes(), self.class_names, f"label of {image_id}")
        count = count_frames(path)
        for row in rows:
            if "frame" not in row and count > 1:
                raise ValueError(f"The image '{image_id}' holds {count} frames: label them by 'frames'.")
            if row.get("frame", 0) >= count:
                raise ValueError(
                    f"The image '{image_id}' has no frame {row['frame']}: its frames are 0 to {count - 1}."
                )
        if Path(label_filename).suffix != ".json":
            raise ValueError(f"A label is a JSON file, not '{Path(label_filename).suffix}'.")
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def save_prediction(self, image_id: str, answer: dict[str, Any], tag: str, model: str) -> None:
        """Store what a model says of an image, as a label with this tag."""
        path = Path(self._datastore_path) / ".prediction.json"
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(answer), encoding="utf-8")
        try:
            self.save_label(image_id, str(path), tag, {"model": model})
        finally:
            path.unlink()

    def _inside(self, path: str) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._datastore_path))

    def _to_id(self, file: str) -> tuple[str, str]:
        ending = next((ending for ending in _ENDINGS if file.lower().endswith(ending)), Path(file).suffix)
        stem = file[: len(file) - len(ending)]
        return stem, file[len(stem) :]

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        labels = os.path.realpath(path) != os.path.realpath(self._datastore.image_path())
        return super()._list_files(path, ["*.json"] if labels else patterns)


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 200:
        raise ValueError(f"'{name}' is no name for an {what}: use letters, digits, blanks and . ( ) = + - _")
