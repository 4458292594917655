from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.serve import Limits, create_app

from ...ultrasound.frames.make import dataset
from ..runtime.model import write_model

THRESHOLD = 0.7


def frame(plane: str | None) -> np.ndarray:
    """(40, 56) grey levels which the network of the tests takes for this plane, or for none."""
    pixels = np.tile(np.array([[40, 43]], np.uint8), (40, 28))
    if plane == "left":
        pixels[:, :28] += 200
    elif plane == "right":
        pixels[:, 28:] += 200
    elif plane == "top":
        pixels[:20] += 212
    return pixels


def png(plane: str | None = "left") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame(plane)).save(stream, "PNG")
    return stream.getvalue()


def cine(planes: list[str | None], **elements: Any) -> bytes:
    """A DICOM cine of 25 frames a second."""
    stream = io.BytesIO()
    file = dataset(np.stack([frame(plane) for plane in planes]), FrameTime=40, **elements)
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="session")
def make_recognizer(tmp_path_factory) -> Callable[..., Recognizer]:
    def make(**options: Any) -> Recognizer:
        path = tmp_path_factory.mktemp("model") / "student.onnx"
        options = {"size": (32, 32), "threshold": json.dumps(THRESHOLD), **options}
        return Recognizer(write_model(path, **options), backend="onnxruntime")

    return make


@pytest.fixture(scope="session")
def recognizer(make_recognizer) -> Recognizer:
    return make_recognizer(attention=True)


@pytest.fixture
def make_client(recognizer) -> Callable[..., TestClient]:
    """A client of a new server with these limits."""

    def make(token: str | None = None, recognizer: Recognizer = recognizer, **limits: Any) -> TestClient:
        app = create_app(recognizer, Limits(**limits), token)
        return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)

    return make


@pytest.fixture
def client(make_client) -> TestClient:
    return make_client()
