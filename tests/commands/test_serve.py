from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

import pytest

from monai_fetalkd.__main__ import main
from monai_fetalkd.deployment.runtime import SHIPPED_STUDENT

from ..deployment.runtime.model import write_model
from ..deployment.runtime.torch_free import command_without_torch
from ..deployment.serve.conftest import png

TOKEN = "correct-horse-battery"


@pytest.fixture
def model(tmp_path):
    return str(write_model(tmp_path / "student.onnx"))


@contextmanager
def serving(*arguments):
    """The server in a process of its own, without torch: its address."""
    command = command_without_torch(["serve", *arguments, "--port", "0", "--backend", "onnxruntime"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://localhost:\d+/?", line)
            assert found, process.stderr.read()
            yield found[0], process
        finally:
            process.kill()


def ask(address, data=None, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=30) as response:
        return response.read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_it_answers_without_torch_until_it_is_interrupted(model, number, status):
    with serving(model) as (address, process):
        assert b"<title>" in ask(address)
        answer = json.loads(ask(f"{address}/predict", png("left"), **{"content-type": "application/octet-stream"}))
        assert [frame["plane"] for frame in answer["frames"]] == ["left"]
        assert b"monai_fetalkd_frames_total" in ask(f"{address}/metrics")
        process.send_signal(number)
        assert process.wait(timeout=30) == status
        assert "Traceback" not in process.stderr.read()


def test_without_a_model_the_shipped_student_answers():
    with serving() as (address, _):
        answer = json.loads(ask(f"{address}/predict", png("left"), **{"content-type": "application/octet-stream"}))
        assert answer["model"]["name"] == SHIPPED_STUDENT.stem
        assert len(answer["frames"]) == 1


def test_it_listens_on_the_loopback_address_alone(model):
    with serving(model) as (address, _):
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=10)


def test_the_token_is_that_of_the_file(model, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving(model, "--token_file", str(tmp_path / "token")) as (address, _):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(address)
        assert b"<title>" in ask(address, authorization=f"Bearer {TOKEN}")


@pytest.mark.parametrize("token", ["", "short", "with spaces in it, which headers trim", "fünfzehn-und-mehr-zeichen"])
@pytest.mark.parametrize("in_file", [True, False])
def test_a_token_that_protects_nothing_is_refused(model, tmp_path, monkeypatch, capsys, token, in_file):
    (tmp_path / "token").write_text(token, encoding="utf-8")
    if not in_file:
        monkeypatch.setenv("MONAI_FETALKD_TOKEN", token)
    assert main(["serve", model, *(("--token_file", str(tmp_path / "token")) if in_file else ())]) == 1
    assert "16 visible ASCII characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--megabytes", "0"], "megabytes must be positive"),
        (["--token_file", "nowhere"], "nowhere"),
        (["--port", "70000"], "cannot listen on port 70000"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(model, capsys, options, message):
    assert main(["serve", model, *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""


def test_a_token_that_is_no_text_is_named(model, tmp_path, capsys):
    (tmp_path / "token").write_bytes("0123456789abcdef".encode("utf-16"))
    assert main(["serve", model, "--token_file", str(tmp_path / "token")]) == 1
    assert "token' is no text" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", model, "--port", str(port)]) == 1
    assert f"port {port} (Address already in use)" in capsys.readouterr().err


def test_connections_that_send_nothing_or_half_a_header_are_closed(model):
    with serving(model) as (address, _):
        port = int(address.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(130)]
        for connection in idle[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
        for connection in idle:
            connection.settimeout(20)
            with suppress(ConnectionResetError):
                while connection.recv(1000):  # a few are told that there are too many
                    pass
            connection.close()
        assert ask(f"{address}/healthz")


def test_behind_a_proxy_each_client_has_its_own_rate(model):
    limits = ["--requests_per_minute", "2"]
    with serving(model, *limits, "--behind_proxy") as (address, _):
        for client in ("192.0.2.1", "192.0.2.2"):
            for _ in range(2):
                ask(address, **{"x-forwarded-for": client})
        with pytest.raises(urllib.error.HTTPError, match="429"):
            ask(address, **{"x-forwarded-for": f"192.0.2.77, {client}"})  # what a client adds does not count


def test_without_a_proxy_a_client_cannot_tell_another_address(model):
    with serving(model, "--requests_per_minute", "2") as (address, _):
        for client in ("192.0.2.1", "192.0.2.2"):
            ask(address, **{"x-forwarded-for": client})
        with pytest.raises(urllib.error.HTTPError, match="429"):
            ask(address, **{"x-forwarded-for": "192.0.2.3"})


def test_the_log_holds_nothing_that_a_client_made_up(model):
    with serving(model) as (address, process):
        port = int(address.rpartition(":")[2])
        for request in (
            b"JANE_DOE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /Jane?Jane=Doe HTTP/1.1\r\nHost: Jane\r\nX-Jane: Doe\r\n\r\n",
            b"Jane Doe, born 1980\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: Jane\r\nConnection: Upgrade\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: Jane\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Content-Type: multipart/form-data; boundary=Jane; charset=Jane\r\n\r\nBM",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
        process.terminate()
        log = process.stderr.read()
    assert "GET / 200" in log
    assert "jane" not in log.lower()
