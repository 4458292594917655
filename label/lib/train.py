"""Training on what was labelled: plain, and the stages of distillation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import monai
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from lib.planes import Planes
from monai_fetalkd import __version__
from monai_fetalkd.ultrasound.data import annotated_rows
from monai_fetalkd.utils.files import written_whole


class _Stage(NamedTuple):
    run_id: str
    epochs: str  # the item of train.json that says how many
    about: str


STAGES = {
    "teacher": _Stage("run_teacher", "teacher#epochs", "Plain training of the teacher"),
    "baseline": _Stage("run_baseline", "baseline#epochs", "Plain training of the student, from labels alone"),
    "attention": _Stage("run_attention", "attention#epochs", "Stage 1: the student attends where the teacher does"),
    "distillation": _Stage("run_distillation", "train#epochs", "Stage 2: the student learns from teacher and labels"),
    "two_stages": _Stage("run_label", "train#epochs", "Teacher, stage 1 and stage 2, one after the other"),
}


class StageTask(TrainTask):
    """One stage of ``train.json`` as a training task.

    A request may give ``max_epochs`` (else those of the config), ``val_split`` (the share of patients held out for
    validation) and ``device``. Progress is in the ``details`` of the task's status, a line for each epoch.

    Args:
        name: one of :data:`STAGES`.
        planes: the bundle.
    """

    def __init__(self, name: str, planes: Planes) -> None:
        super().__init__(STAGES[name].about)
        self.name = name
        self.planes = planes

    def config(self) -> dict[str, Any]:
        """What a client may set, and its default; 0 epochs stand for those of the config."""
        return {"max_epochs": 0, "val_split": 0.2, "device": ["cpu", "cuda"]}

    def stats(self) -> dict[str, Any]:
        """What the last finished training of this stage was trained on, and when."""
        path = self._record
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def _record(self) -> Any:
        return self.planes.output / f"trained_{self.name}.json"

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train on all labels ``final``.

        Raises:
            ValueError: when labels or the request do not allow it.
        """
        started = time.monotonic()
        epochs = request.get("max_epochs", 0)
        if type(epochs) is not int or epochs < 0:
            raise ValueError(f"'max_epochs' must be a whole number, not {epochs!r}.")
        rows = annotated_rows(datastore.datalist(), self.planes.class_names)
        training, validation = _split(rows, request.get("val_split", 0.2))
        datalist = self.planes.output / "datalist.json"
        self._write_datalist(datalist, training, validation)
        device = request.get("device", "cpu")
        overrides = {STAGES[self.name].epochs: epochs} if epochs else {}
        monai.bundle.run(
            run_id=STAGES[self.name].run_id,
            meta_file=self.planes.metadata,
            config_file=self.planes.configs,
            bundle_root=str(self.planes.bundle),
            output_dir=str(self.planes.output),
            dataset_dir=str(datalist),
            device=device[0] if isinstance(device, list) else device,
            **overrides,
        )
        record = {
            "frames": len(training),
            "validation": len(validation),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 1),
        }
        with written_whole(self._record) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
        return record

    def _write_datalist(self, path: Any, training: list[dict[str, Any]], validation: list[dict[str, Any]]) -> None:
        content = {
            "name": "MONAI Label studies",
            "labels": {str(index): name for index, name in enumerate(self.planes.class_names)},
            "provenance": {"made_by": f"monai_fetalkd {__version__}"},
            "training": training,
            "validation": validation,
        }
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _split(rows: Sequence[dict[str, Any]], share: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """By patient, or by image where the label names none; a patient stays on her side as labels are added."""
    if not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"'val_split' must be a share between 0 and 1, not {share!r}.")
    groups = sorted({row["group"] for row in rows}, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    if len(groups) < 2:
        raise ValueError(
            f"{len(groups)} patients or images are labelled: training needs two at least, one to validate."
        )
    held_out = set(groups[: max(1, round(share * len(groups)))])
    return [row for row in rows if row["group"] not in held_out], [row for row in rows if row["group"] in held_out]
