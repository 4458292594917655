"""A MONAI Label app that recognises and learns the planes of ultrasound frames: see docs/label.md."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

from lib.batch import PlaneBatch
from lib.datastore import StudiesDatastore
from lib.infer import PlaneInfer
from lib.limits import LimitedSessions, guard_server
from lib.planes import Planes
from lib.scoring import Agreement
from lib.strategies import RankedFrames
from lib.train import STAGES, StageTask
from monai_fetalkd.active_learning import STRATEGIES

_INFERS = {
    "student": ("model.pt", "the student that was distilled in two stages"),
    "teacher": ("teacher.pt", "the teacher"),
    "baseline": ("baseline.pt", "the student that was trained from labels alone"),
}


class FetalPlanesApp(MONAILabelApp):
    """Serves a bundle of this package.

    Settings, each as ``--conf NAME VALUE``: ``bundle`` (its folder), ``configs`` (configs of the bundle, or paths, to
    lay over ``train.json``; separated by commas), ``output`` (where training writes), ``classes`` (for others than
    those of the bundle, separated by commas), ``max_upload_mb`` and ``max_sessions``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        if studies.startswith(("http://", "https://")):
            raise ValueError("This app serves a folder of studies, no DICOMweb: give a folder as --studies.")
        self.planes = Planes(
            bundle=Path(conf.get("bundle", Path(app_dir).parent / "bundle")),
            configs=[name.strip() for name in conf.get("configs", "ultrasound.json").split(",") if name.strip()],
            output=Path(conf.get("output", Path(app_dir) / "model")),
            class_names=[name.strip() for name in conf.get("classes", "").split(",") if name.strip()],
        )
        self.max_upload = int(float(conf.get("max_upload_mb", 512)) * 2**20)
        self.max_sessions = int(conf.get("max_sessions", 32))
        # uploads arrive here as temporary files; the only paths, beside those of studies and sessions, that are read
        self.uploads = Path(tempfile.mkdtemp(prefix="monai_fetalkd_uploads_"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_fetalkd",
            description="Recognises standard planes, distils a student from a teacher, asks for what to label next",
            labels=self.planes.class_names,
        )
        # scoring compares what batch inference stored: running it after every request would start a process each time
        self._auto_update_scoring = False

    def init_datastore(self) -> StudiesDatastore:
        """The folder of studies."""
        return StudiesDatastore(self.studies, self.planes.class_names, settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def init_infers(self) -> dict[str, PlaneInfer]:
        """One task for each network."""
        return {name: PlaneInfer(self.planes, *about) for name, about in _INFERS.items()}

    def init_trainers(self) -> dict[str, StageTask]:
        """Plain training, both stages of distillation, and all in turn."""
        return {name: StageTask(name, self.planes) for name in STAGES}

    def init_strategies(self) -> dict[str, RankedFrames]:
        """All strategies of the package."""
        return {name: RankedFrames(name, self.planes) for name in STRATEGIES}

    def init_scoring_methods(self) -> dict[str, Agreement]:
        """Labels against stored predictions."""
        return {"agreement": Agreement(self.planes.class_names)}

    def init_batch_infer(self) -> PlaneBatch:
        """Inference over the datastore."""
        return PlaneBatch()

    def _load_sessions(self, load: bool = False) -> LimitedSessions | None:
        if not load:
            return None
        return LimitedSessions(
            settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY, self.max_sessions
        )

    def on_init_complete(self) -> None:
        """Set the limits of the server, once it is there."""
        super().on_init_complete()
        tempfile.tempdir = str(self.uploads)
        guard_server(self.max_upload)

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Classify one image of the datastore, of a session, or one that came with the request."""
        task = self._infers.get(request.get("model"))
        if task is None:
            raise HTTPException(
                404, f"There is no model '{request.get('model')}': ask one of {', '.join(self._infers)}."
            )
        store = datastore or self.datastore()
        image = request.get("image")
        stored = not self._came_with_request(image)
        path = store.get_image_uri(image) if stored else image
        if not path:
            raise HTTPException(404, f"There is no image '{image}' among the studies.")
        result = task({**request, "image": path})
        if stored and request.get("save_label"):
            store.save_prediction(image, result, request.get("label_tag", "original"), request["model"])
        return {"label": None, "file": None, "tag": None, "params": result}

    def _came_with_request(self, image: Any) -> bool:
        if not isinstance(image, str) or not os.path.isabs(image):
            return False
        roots = [self.uploads] + ([Path(self._sessions.store_path)] if self._sessions is not None else [])
        path = Path(os.path.realpath(image))
        return path.is_file() and any(path.is_relative_to(os.path.realpath(root)) for root in roots)

    def infer_wsi(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Whole slides are not served."""
        raise HTTPException(404, "This app serves ultrasound frames, no whole slides.")

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """The frame to label next."""
        if request.get("strategy") not in self._strategies:
            known = ", ".join(self._strategies)
            raise HTTPException(404, f"There is no strategy '{request.get('strategy')}': ask one of {known}.")
        return super().next_sample(request)

    def bundle_path(self, model: str | None) -> None:
        """Asked before any task is started in the background: the place to refuse one that does not exist."""
        known = {**self._trainers, **self._infers}
        if model is not None and model not in known:
            raise HTTPException(404, f"There is no model '{model}': ask one of {', '.join(known)}.")
