"""The folder of studies: pictures, DICOM and volumes, and the annotator's labels beside them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException

from monai_fetalkd.ultrasound.data import parse_annotation
from monai_fetalkd.ultrasound.frames import count_frames
from monai_fetalkd.ultrasound.frames.kinds import SUFFIXES
from monai_fetalkd.utils.files import written_whole

_NAME = re.compile(r"\w[\w .()=+-]*")  # of an image or a tag: no path, nothing hidden
_ENDINGS = sorted((*SUFFIXES, ".json"), key=len, reverse=True)


class StudiesDatastore(LocalDatastore):
    """MONAI Label's folder of studies, which takes nothing that does not belong into it and gives nothing outside it.

    The server and the processes of its tasks have a datastore each on the same folder, and requests run in threads.
    MONAI Label writes all that one of them remembers over what another has just written. Here each change is made under
    a lock, to what is in ``datastore_v2.json`` at that moment, and the file is replaced whole.

    Args:
        folder: the folder; labels go into ``labels/final`` and ``labels/original`` in it.
        class_names: the class table.
        auto_reload: whether to watch the folder for new files.
    """

    def __init__(self, folder: str, class_names: Sequence[str], auto_reload: bool) -> None:
        self.class_names = class_names
        os.makedirs(folder, exist_ok=True)
        # not MONAI Label's own lock, which it takes inside of each change and which is not reentrant
        self._change_lock = FileLock(os.path.join(folder, ".change.lock"))
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=auto_reload)
        if auto_reload:
            self._handler.on_moved = self._on_replaced

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image; empty for one that is not among the studies, also by way of a link."""
        path = super().get_image_uri(image_id)
        return path if path and self._inside(path) else ""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Take a new image, when it can be read and none has its name."""
        _check_name("image", image_id)
        if self._to_id(image_filename)[1] not in SUFFIXES:
            raise ValueError(
                f"A file that ends in '{Path(image_filename).suffix}' is no frame: {', '.join(SUFFIXES)} are."
            )
        count_frames(image_filename)
        with self._change():
            if image_id in self._datastore.objects:
                raise ValueError(f"There is an image '{image_id}' already: give this one another name.")
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
        with self._change():
            return super().save_label(image_id, label_filename, label_tag, label_info)

    def save_prediction(self, image_id: str, answer: dict[str, Any], tag: str, model: str) -> None:
        """Store what a model says of an image, as a label with this tag."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "prediction.json"
            path.write_text(json.dumps(answer), encoding="utf-8")
            self.save_label(image_id, str(path), tag, {"model": model})

    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels."""
        with self._change():
            super().remove_image(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label."""
        with self._change():
            super().remove_label(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known of an image."""
        with self._change():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known of a label."""
        with self._change():
            super().update_label_info(label_id, label_tag, info)

    def set_name(self, name: str) -> None:
        """Name the datastore."""
        with self._change():
            super().set_name(name)

    def set_description(self, description: str) -> None:
        """Describe the datastore."""
        with self._change():
            super().set_description(description)

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._change_lock:  # of this thread alone, until it is released
            self._config_ts = 0  # two changes may have the same time: read the file in any case
            self._init_from_datastore_file()
            yield

    def _reconcile_datastore(self) -> None:
        with self._change():
            super()._reconcile_datastore()

    def _update_datastore_file(self, lock: bool = True) -> None:
        # always within a change, so MONAI Label's own lock adds nothing
        content = self._datastore.model_dump(exclude={"base_path"})
        with written_whole(self._datastore_config_path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, default=str), encoding="utf-8")
        self._config_ts = os.stat(self._datastore_config_path).st_mtime

    def _on_replaced(self, event: Any) -> None:
        if event.dest_path == self._datastore_config_path:
            with self._change():  # reads it
                pass

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
