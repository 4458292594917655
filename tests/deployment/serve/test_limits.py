"""What is refused, with which status and which sentence; and that nothing of it is kept."""

from __future__ import annotations

import asyncio
import io
import os
import re
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
from fastapi import Request
from PIL import Image

from monai_fetalkd.deployment.serve import Limits
from monai_fetalkd.deployment.serve.limits import RateLimit, Refusal, Slots
from monai_fetalkd.deployment.serve.reading import Upload
from monai_fetalkd.deployment.serve.recognition import recognize_upload
from monai_fetalkd.deployment.serve.upload import named, receive

from ...ultrasound.frames.make import dataset
from .conftest import cine, frame, png


class Slow:
    """A recogniser that waits before each frame."""

    class_names = ("left", "right")
    threshold = None
    attention_grid = None
    name, backend, metadata = "slow", "none", {}

    def __init__(self, wait):
        self._wait = wait

    def __call__(self, pixels, region=None):
        self._wait()
        return np.array([0.4, 0.6])


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, which is empty after every request."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert [path for path in folder.iterdir() if not path.name.startswith("pymp-")] == []  # of multiprocessing


def blank() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (64, 64), 7).save(stream, "PNG")
    return stream.getvalue()


def dicom_without_picture() -> bytes:
    file = dataset(frame("left"))
    del file.PixelData
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"", 422, "The upload cannot be read: it is empty."),
        (
            b"plane,label",
            415,
            "The upload cannot be read: it is neither a picture (PNG, JPEG, BMP, TIFF, GIF) nor DICOM.",
        ),
        (b"ObjectType = Image\nElementDataFile = /etc/passwd\n", 415, "volumes"),
        (b"\x1f\x8b" + bytes(400), 415, "gzip"),
        (png()[:-40], 422, "The upload cannot be read: its picture is damaged or cut short."),
        (blank(), 422, "The upload cannot be read: it holds one grey level only."),
        (cine(["left"] * 3)[:1000], 422, "The upload cannot be read: "),
        (dicom_without_picture(), 422, "The upload cannot be read: it is a DICOM file without a picture."),
    ],
)
@pytest.mark.parametrize("as_form", [False, True])
def test_what_holds_no_frame_is_refused_in_one_sentence(client, temporary, data, status, sentence, as_form):
    upload = {"files": {"file": ("scan.png", data)}} if as_form else {"content": data}
    response = client.post("/predict", **upload)
    assert response.status_code == status
    detail = response.json()["detail"]
    assert sentence in detail
    assert detail.endswith(".")
    assert str(temporary) not in detail
    assert "scan" not in detail


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"picture": ("a.png", png())}},
        {"files": [("file", ("a.png", png())), ("file", ("b.png", png()))]},
        {"files": {"file": ("a.png", png())}, "data": {"note": "x"}},
        {"content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"nothing of the kind", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ],
)
def test_a_form_must_hold_one_file(client, form):
    response = client.post("/predict", **form)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("The form ")


@pytest.mark.parametrize(
    "charset", [b"undefined", b"punycode", b"idna", b"base64", b"nothing-of-the-kind", b"utf-16", b"\xff", b""]
)
def test_a_form_of_any_character_set_is_read_or_refused(client, charset):
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nBM\r\n--x--\r\n'
    headers = {b"content-type": b"multipart/form-data; boundary=x; charset=" + charset}
    assert client.post("/predict", content=form, headers=headers).status_code == 422


def test_an_option_that_is_none_is_refused(client):
    response = client.post("/predict?pictures=perhaps", content=png())
    assert response.status_code == 422
    assert "pictures" in response.json()["detail"]


@pytest.mark.parametrize("as_form", [False, True])
def test_an_upload_beyond_the_limit_is_refused(make_client, as_form):
    client = make_client(megabytes=1)
    data = png() + bytes(1_000_001 - len(png()))
    upload = {"files": {"file": data}} if as_form else {"content": data}
    response = client.post("/predict", **upload)
    assert response.status_code == 413
    assert "1 MB" in response.json()["detail"]
    assert client.post("/predict", content=data[:-1]).status_code == 200


def request(chunks, content_type: str) -> Request:
    async def next_chunk():
        chunk = next(chunks)
        if chunk is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunk, "more_body": True}

    return Request(
        {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}, next_chunk
    )


@pytest.mark.parametrize(
    ("start", "content_type"),
    [
        (b"", "application/octet-stream"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_an_endless_upload_is_read_up_to_the_limit_only(start, content_type):
    read = 0

    def endless():
        nonlocal read
        yield start
        while True:
            read += 65536
            yield bytes(65536)

    with pytest.raises(Refusal) as caught:
        asyncio.run(receive(request(endless(), content_type), Limits(megabytes=1)))
    assert caught.value.status == 413
    assert read < 1_000_000 + 2 * 65536


def test_an_upload_that_trickles_is_refused():
    with pytest.raises(Refusal) as caught:
        asyncio.run(receive(request(iter([b"GIF8", None]), "image/gif"), Limits(seconds=0.05)))
    assert caught.value.status == 408


def test_a_cine_that_is_too_long_is_refused_before_it_is_decoded(make_client):
    client = make_client(frames=3)
    assert client.post("/predict", content=cine(["left"] * 3)).status_code == 200
    response = client.post("/predict", content=cine(["left"] * 4))
    assert response.status_code == 413
    assert re.search(r"\b4 frames, 3\b", response.json()["detail"])


def test_a_cine_that_takes_too_long_is_given_up(tmp_path):
    clock = count(start=100.5)  # a second at each look, which is before each frame
    path = tmp_path / "cine.dcm"
    path.write_bytes(cine(["left"] * 50))
    upload = Upload(str(path), Limits(seconds=3), start=100, clock=lambda: next(clock))
    with pytest.raises(Refusal, match="3 of 50") as refused:
        recognize_upload(Slow(lambda: None), upload)
    assert refused.value.status == 504


def test_uploads_beyond_those_under_way_are_sent_away(make_client):
    reached, go = threading.Event(), threading.Event()

    def wait():
        reached.set()
        go.wait(30)

    client = make_client(recognizer=Slow(wait), under_way=1)
    statuses = []
    first = threading.Thread(target=lambda: statuses.append(client.post("/predict", content=png()).status_code))
    first.start()
    assert reached.wait(30)
    response = client.post("/predict", content=png())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200
    go.set()
    first.join(30)
    assert statuses == [200]
    assert client.post("/predict", content=png()).status_code == 200


def test_a_slot_is_free_again_after_an_error():
    slots = Slots(1)
    for _ in range(3):
        with pytest.raises(KeyError), slots.taken():
            raise KeyError


def test_a_client_above_its_rate_is_told_when_to_come_back(make_client):
    client = make_client(requests_per_minute=2)
    assert [client.post("/predict", content=png()).status_code for _ in range(2)] == [200, 200]
    response = client.post("/predict", content=png())
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert client.get("/healthz").status_code == 200


def test_a_rate_holds_for_each_client_and_over_time():
    now = 0.0
    limit = RateLimit(3, clock=lambda: now)
    assert [limit.delay("a") for _ in range(4)] == pytest.approx([0, 0, 0, 20])
    assert limit.delay("b") == 0
    now = 20.0
    assert limit.delay("a") == 0
    assert limit.delay("a") == pytest.approx(20)
    now = 1000.0
    assert [limit.delay("a") for _ in range(4)] == pytest.approx([0, 0, 0, 20])


def test_clients_that_have_gone_are_forgotten():
    now = 0.0
    limit = RateLimit(60, clock=lambda: now)
    for number in range(5000):
        now += 1.0
        assert limit.delay(str(number)) == 0
    assert len(limit._paid) <= 1000


@pytest.mark.parametrize("name", ["megabytes", "frames", "seconds", "requests_per_minute", "under_way"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Limits(**{name: value})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_an_upload_that_holds_its_decoder_is_given_up_and_others_are_answered_meanwhile(make_client, monkeypatch):
    @contextmanager
    def endless(upload):
        """A file that cannot be opened before somebody writes to it, which nobody does."""
        data = upload.read()
        with named(io.BytesIO(data)) as path:
            if data.startswith(b"BM"):
                os.remove(path)
                os.mkfifo(path)
            yield path

    monkeypatch.setattr("monai_fetalkd.deployment.serve.app.named", endless)
    monkeypatch.setattr("monai_fetalkd.deployment.serve.reading._check_kind", lambda path: None)
    client = make_client(seconds=4)
    statuses = []
    first = threading.Thread(target=lambda: statuses.append(client.post("/predict", content=b"BM").status_code))
    first.start()
    start = time.perf_counter()
    assert client.post("/predict", content=png()).status_code == 200
    assert statuses == []
    first.join(30)
    assert statuses == [504]
    assert time.perf_counter() - start < 10
    assert client.post("/predict", content=png()).status_code == 200


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are listed on Linux")
def test_an_upload_is_closed_while_it_is_read_as_windows_opens_no_file_twice():
    with named(io.BytesIO(b"BM")) as path:
        opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        assert path not in opened
        with open(path, "rb") as file:
            assert file.read() == b"BM"
    assert not os.path.exists(path)
