"""The folder of studies under several threads and processes, without a server."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel")
pytestmark = pytest.mark.label

APP = Path(__file__).parents[2] / "label"
CLASSES = ["brain", "femur"]


@pytest.fixture
def studies(tmp_path):
    for index in range(6):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / f"frame{index}.png")
    return tmp_path


@pytest.fixture
def opened(studies, monkeypatch):
    """Datastores on the same folder, as the server and the processes of its tasks have."""
    monkeypatch.syspath_prepend(str(APP))
    sys.modules.pop("lib", None)
    from lib.datastore import StudiesDatastore

    stores = []

    def open_store(auto_reload=False):
        stores.append(StudiesDatastore(str(studies), CLASSES, auto_reload))
        return stores[-1]

    yield open_store
    for store in stores:
        if hasattr(store, "_observer"):
            store._observer.stop()
            store._observer.join()


def write_label(folder, name):
    path = folder / f"upload-{name}" / "label.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"label": name}))
    return str(path)


def answer(label="brain"):
    return {"label": label}


def tags(store):
    return {image: sorted(store.get_labels_by_image_id(image)) for image in sorted(store.list_images())}


def test_no_datastore_writes_over_what_another_has_written(opened, studies):
    server, task = opened(), opened()
    server.save_label("frame0", write_label(studies, "brain"), "final", {})
    task.save_prediction("frame1", answer(), "original", "student")
    server.update_image_info("frame2", {"seen": True})
    task.save_prediction("frame0", answer(), "original", "student")
    server.save_label("frame3", write_label(studies, "femur"), "final", {})
    fresh = opened()
    expected = {f"frame{index}": [] for index in range(6)}
    expected |= {"frame0": ["final", "original"], "frame1": ["original"], "frame3": ["final"]}
    assert tags(fresh) == expected
    assert fresh.get_image_info("frame2")["seen"] is True
    server.remove_label("frame0", "original")
    task.set_description("studies")
    assert tags(opened()) == expected | {"frame0": ["final"]}


def test_predictions_of_requests_at_the_same_time_do_not_mix(opened, studies):
    stores = [opened(), opened()]
    barrier = threading.Barrier(6)

    def save(index):
        barrier.wait()
        label = CLASSES[index % 2]
        stores[index % 2].save_prediction(f"frame{index}", answer(label), "original", "student")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(save, range(6)))
    store = opened()
    for index in range(6):
        stored = json.loads(Path(store.get_label_uri(f"frame{index}", "original")).read_text())
        assert stored == answer(CLASSES[index % 2])
    left = {path.name for path in studies.iterdir() if path.is_file() and path.suffix != ".png"}
    assert left - {".lock", ".change.lock"} == {"datastore_v2.json"}


def test_of_two_images_of_one_name_the_second_is_refused(opened, studies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "new.png")
    one, other = opened(), opened()
    one.add_image("new", str(folder / "new.png"), {})
    with pytest.raises(ValueError, match="an image 'new' already"):
        other.add_image("new", str(folder / "new.png"), {})


def test_a_datastore_that_watches_its_folder_sees_what_another_has_written(opened):
    server, task = opened(auto_reload=True), opened()
    changed = threading.Event()
    on_moved = server._handler.on_moved

    def observed(event):
        on_moved(event)
        if "original" in server.get_labels_by_image_id("frame4"):
            changed.set()

    server._handler.on_moved = observed
    task.save_prediction("frame4", answer(), "original", "student")
    assert changed.wait(20)
