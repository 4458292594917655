"""Nothing leaves the machine: neither the package nor the libraries beneath it look up a name."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from ..deployment.runtime.model import write_model
from ..deployment.serve.conftest import png

# every look-up of a name, and every connection but those to this machine, is printed
_PROLOGUE = """
import sys
def watch(event, arguments):
    local = event == "socket.connect" and str(arguments[1]).startswith(("('127.0.0.1'", "('::1'", "/", "b'"))
    looked = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto")
    if looked and not local and arguments[0] not in ("127.0.0.1", "localhost"):
        print("LOOKED UP", event, arguments[:2], flush=True)
sys.addaudithook(watch)
"""
_PREDICT = """
from monai_fetalkd.deployment.runtime import Recognizer
Recognizer(sys.argv[1], backend=sys.argv[2]).file(sys.argv[3])
import time; time.sleep(1)
"""
_SERVE = """
import http.client, socket, threading, time, uvicorn
from monai_fetalkd.deployment.runtime import Recognizer
from monai_fetalkd.deployment.serve import create_app
listener = socket.create_server(("127.0.0.1", 0))
app = create_app(Recognizer(sys.argv[1], backend=sys.argv[2]))
server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning"))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
thread.start()
client = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=30)
client.request("POST", "/predict", open(sys.argv[3], "rb").read(), {"Host": "localhost"})
assert client.getresponse().status == 200
server.should_exit = True
thread.join()
"""
_IDENTITIES = (".ses", "onnxruntime.db", "openvino_ga_cid")  # what vendors recognise a machine by


def run_watched(code: str, *arguments: object, home: os.PathLike[str]) -> str:
    """What the code looks up, in a process whose home is empty and whose environment says nothing of telemetry."""
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "CI"}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _PROLOGUE + code, *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("code", [_PREDICT, _SERVE], ids=["predict", "serve"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_no_name_is_looked_up_and_no_identity_is_left_behind(tmp_path, home, code, backend):
    if not find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    (tmp_path / "frame.png").write_bytes(png("left"))
    model = write_model(tmp_path / "student.onnx")
    assert run_watched(code, model, backend, tmp_path / "frame.png", home=home) == ""
    assert [path.name for path in home.rglob("*") if path.name in _IDENTITIES] == []


def test_a_setting_of_the_operator_is_kept(home):
    code = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; import monai_fetalkd\n"
    assert run_watched(code + "print(os.environ['ORT_DISABLE_TELEMETRY'])", home=home).split() == ["0"]


def test_mlflow_that_was_imported_before_falls_silent(home):
    pytest.importorskip("mlflow.telemetry")
    code = "import mlflow.telemetry, monai_fetalkd; print(mlflow.telemetry.get_telemetry_client())"
    assert run_watched(code, home=home).split() == ["None"]


def test_onnx_runtime_that_was_imported_before_is_warned_of(home):
    pytest.importorskip("onnxruntime")
    code = (
        "import os, warnings; os.environ.pop('ORT_DISABLE_TELEMETRY', None); sys.modules['onnxruntime'] = os\n"
        "with warnings.catch_warnings(record=True) as caught: import monai_fetalkd\n"
        "print('ORT_DISABLE_TELEMETRY' in str(caught[0].message))"
    )
    assert run_watched(code, home=home).split() == ["True"]
