"""The app of this package over REST: label, train, ask for the next frame, and what it refuses."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from monai_fetalkd.ultrasound.data import PLANE_NAMES

pytestmark = pytest.mark.label

TINY = {
    "image_size": [32, 32],
    "layers": ["layer1", "layer2", "layer3"],
    "batch_size": 4,
    "num_workers": 0,
    "threads": 1,
    "network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 4, "layers": [1, 1, 1, 1]},
    "+teacher": {
        "epochs": 8,
        "lr": 0.003,
        "network_def": {"_target_": "monai_fetalkd.networks.student_resnet", "width": 8, "layers": [1, 1, 1, 1]},
    },
    "+attention": {"epochs": 2},
    "+train": {"epochs": 8, "lr": 0.008},
}


@pytest.fixture(scope="module")
def make_app(project_dir, tmp_path_factory):
    """A copy of the app, and settings that make networks and training small."""

    def make(**settings: object) -> tuple[Path, dict[str, str]]:
        folder = tmp_path_factory.mktemp("own")
        shutil.copytree(project_dir / "label", folder / "app", ignore=shutil.ignore_patterns("model", "logs", "bin"))
        (folder / "tiny.json").write_text(json.dumps({**TINY, **settings}))
        conf = {"bundle": str(project_dir / "bundle"), "configs": f"ultrasound.json,{folder / 'tiny.json'}"}
        return folder / "app", conf

    return make


@pytest.fixture(scope="module")
def studies(tmp_path_factory, write_frames, draw):
    folder = tmp_path_factory.mktemp("studies")
    write_frames(folder, 6)
    cine = [Image.fromarray(draw(label, 9)) for label in (1, 1, 4)]
    cine[0].save(folder / "cine.tiff", save_all=True, append_images=cine[1:])
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def app(make_app, studies, start_server):
    """A server in which nothing was labelled yet."""
    folder, conf = make_app()
    with start_server(folder, studies, {**conf, "max_upload_mb": "0.2", "max_sessions": "1"}) as server:
        yield folder, server


@pytest.fixture(scope="module")
def trained(app):
    """The same server after five frames of each class were labelled and all stages trained."""
    folder, server = app
    for number in range(5):
        for label, name in enumerate(PLANE_NAMES):
            answer = server.label(f"c{label}_{number}", {"label": name, "patient": f"p{number}"})
            assert answer.status_code == 200, answer.text
    status = server.train("two_stages")
    assert status["status"] == "DONE", "\n".join(status["details"])
    return folder, server, status


def files(folder: Path) -> dict[str, int]:
    """What is in a folder, apart from the logs, locks and index that MONAI Label keeps."""
    own = ("datastore_v2.json", ".lock", "app.log")
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in own}


def test_a_model_without_weights_says_so_and_random_still_asks(app):
    _, server = app
    answer = server.infer("student", "c0_0")
    assert answer.status_code == 409
    assert "train first" in answer.json()["detail"]
    assert server.post("/activelearning/entropy").status_code == 409
    assert server.post("/activelearning/first").json()["id"] == "c0_0"
    assert server.post("/activelearning/random").json()["id"]


def test_training_too_early_ends_in_a_sentence(app):
    _, server = app
    status = server.train("baseline")
    assert status["status"] == "ERROR"
    assert any("training needs two at least" in line for line in status["details"])


def test_training_reports_progress_and_its_models_answer(trained):
    _, server, status = trained
    assert any("stage 2, distillation  epoch 8/8" in line for line in status["details"])
    info = server.get("/info/").json()
    assert set(info["trainers"]) == {"teacher", "baseline", "attention", "distillation", "two_stages"}
    assert info["train_stats"]["two_stages"]["frames"] == 24
    assert info["train_stats"]["two_stages"]["validation"] == 6
    for model in ("student", "teacher"):
        right = 0
        for label, name in enumerate(PLANE_NAMES):
            answer = server.infer(model, f"c{label}_5").json()
            assert [row["label"] for row in answer["prediction"]] == list(PLANE_NAMES)
            assert answer["label"] == max(answer["prediction"], key=lambda row: row["score"])["label"]
            right += answer["label"] == name
        assert right >= 4, model


def test_each_stage_is_a_task_of_its_own(trained):
    folder, server, _ = trained
    for task, weights in (("baseline", "baseline.pt"), ("attention", "attention.pt"), ("distillation", "model.pt")):
        before = (folder / "model" / "models" / weights).stat().st_mtime_ns if task != "baseline" else 0
        status = server.train(task, max_epochs=1)
        assert status["status"] == "DONE", "\n".join(status["details"])
        assert (folder / "model" / "models" / weights).stat().st_mtime_ns > before
    assert server.infer("baseline", "c0_5").status_code == 200


def test_a_cine_is_one_study_with_an_answer_for_each_frame(trained):
    _, server, _ = trained
    frames = server.infer("student", "cine").json()["frames"]
    assert [frame["frame"] for frame in frames] == [0, 1, 2]
    assert server.infer("student", "cine", frame=2).json() == frames[2]
    answer = server.infer("student", "cine", frame=3)
    assert answer.status_code == 400
    assert "the frames of this image are 0 to 2" in answer.json()["detail"]


@pytest.mark.parametrize("strategy", ["entropy", "margin", "disagreement", "diversity"])
def test_a_strategy_ranks_the_unlabelled_frames_and_names_those_it_cannot_read(trained, strategy):
    _, server, _ = trained
    answer = server.post(f"/activelearning/{strategy}", json={"count": 100}).json()
    scores = [row["score"] for row in answer["ranking"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    assert {row["id"] for row in answer["ranking"]} == {"cine", *(f"c{label}_5" for label in range(6))}
    assert sorted(row["frame"] for row in answer["ranking"] if row["id"] == "cine") == [0, 1, 2]
    assert answer["id"] == answer["ranking"][0]["id"]
    assert list(answer["unreadable"]) == ["broken"]


def test_ask_label_train_ask_again(trained):
    _, server, _ = trained
    asked = server.post("/activelearning/entropy").json()
    if "frame" in asked:
        annotation = {"frames": [{"frame": asked["frame"], "label": PLANE_NAMES[1]}]}
    else:
        annotation = {"label": PLANE_NAMES[int(asked["id"][1])]}
    assert server.label(asked["id"], annotation).status_code == 200
    status = server.train("distillation", max_epochs=2)
    assert status["status"] == "DONE", "\n".join(status["details"])
    again = server.post("/activelearning/entropy").json()
    assert again["id"] != asked["id"]


def test_batch_inference_stores_predictions_and_scoring_compares_them(trained, studies):
    _, server, _ = trained
    answer = server.post("/batch/infer/student", params={"images": "all", "run_sync": True}, json={})
    assert answer.status_code == 200, answer.text
    assert "error" in answer.json()["broken"]
    assert len(answer.json()["cine"]["frames"]) == 3
    stored = server.get("/datastore/label", params={"label": "c0_0", "tag": "original"}).json()
    assert stored["label"] in PLANE_NAMES
    scored = server.post("/scoring/agreement", params={"run_sync": True}).json()
    agree = []
    for path in (studies / "labels" / "final").glob("*.json"):
        final, answered = json.loads(path.read_text()), answer.json()[path.stem]
        agree += [
            answered["frames"][frame["frame"]]["label"] == frame["label"]
            if "frame" in frame
            else answered["label"] == frame["label"]
            for frame in final.get("frames", [final])
        ]
    assert scored["frames"] == len(agree) >= 30
    assert scored["accuracy"] == pytest.approx(sum(agree) / len(agree))


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (("label", "c0_5", "{no json"), 400, "no valid JSON"),
        (("label", "c0_5", {"label": "Liver"}), 400, "'Liver'"),
        (("label", "c0_5", {"frames": [{"frame": 7, "label": PLANE_NAMES[0]}]}), 400, "has no frame 7"),
        (("label", "cine", {"label": PLANE_NAMES[0]}), 400, "label them by 'frames'"),
        (("label", "nobody", {"label": PLANE_NAMES[0]}), 404, "nobody"),
        (("infer", "student", "nobody"), 404, "nobody"),
        (("infer", "student", "broken"), 400, "cannot be read"),
        (("infer", "student", "/etc/hostname"), 404, "among the studies"),
        (("infer", "student", "../app/main.py"), 404, "among the studies"),
        (("infer", "stranger", "c0_5"), 404, "stranger"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(trained, studies, request_, status, said):
    folder, server, _ = trained
    before = files(studies), files(folder / "model")
    kind, *arguments = request_
    answer = getattr(server, kind)(*arguments)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert (files(studies), files(folder / "model")) == before
    assert server.get("/info/").status_code == 200


def test_malformed_parameters_and_unknown_tasks_are_refused(trained):
    _, server, _ = trained
    answer = server.post("/infer/student", params={"image": "c0_5"}, data={"params": "{"})
    assert answer.status_code == 400
    assert server.post("/train/student_of_magic", json={}).status_code == 404
    assert server.post("/train/teacher", data="{").status_code == 422
    assert server.post("/activelearning/magic").status_code == 404
    assert server.post("/activelearning/entropy", json={"count": 0}).status_code == 400


def test_paths_cannot_lead_out_of_the_studies(trained, studies, draw, tmp_path):
    _, server, _ = trained
    Image.fromarray(draw(0)).save(tmp_path / "outside.png")
    outside = studies.parent / "escaped.png"
    with (tmp_path / "outside.png").open("rb") as stream:
        answer = server.ask(
            "PUT", "/datastore/image", params={"image": "../escaped"}, files={"file": ("a.png", stream)}
        )
    assert answer.status_code == 400
    assert not outside.exists()
    assert server.label("c0_5", {"label": PLANE_NAMES[0]}, tag="../../escaped").status_code == 400
    os.symlink(tmp_path / "outside.png", studies / "linked.png")
    try:
        for _ in range(40):
            if "linked" in json.dumps(server.get("/datastore/", params={"output": "all"}).json()):
                break
            time.sleep(0.1)
        assert server.infer("student", "linked").status_code == 404
        assert server.get("/datastore/image", params={"image": "linked"}).status_code == 404
    finally:
        (studies / "linked.png").unlink()
    assert server.get("/session/..%2F..%2Fetc").status_code == 404
    assert server.post("/infer/student", params={"session_id": "../../etc"}).status_code in (400, 404)


def test_uploads_and_sessions_are_limited(trained, draw, tmp_path):
    _, server, _ = trained
    noise = np.random.default_rng(0).integers(0, 255, (700, 700), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    Image.fromarray(draw(3)).save(tmp_path / "small.png")
    statuses = {}
    for name in ("large.png", "small.png"):
        with (tmp_path / name).open("rb") as stream:
            statuses[name] = server.post("/infer/student", params={"output": "json"}, files={"file": (name, stream)})
    assert statuses["large.png"].status_code == 413
    assert statuses["small.png"].status_code == 200
    assert statuses["small.png"].json()["label"] in PLANE_NAMES

    def open_session(**query: object) -> requests.Response:
        with (tmp_path / "small.png").open("rb") as stream:
            return server.ask("PUT", "/session/", params=query, files={"files": ("small.png", stream)})

    assert open_session(uncompress=True).status_code == 400
    session = open_session().json()["session_id"]
    assert open_session().status_code == 429
    answer = server.post("/infer/student", params={"session_id": session, "output": "json"})
    assert answer.json()["label"] == statuses["small.png"].json()["label"]
    assert server.ask("DELETE", f"/session/{session}").status_code == 200
    assert server.get(f"/session/{session}").status_code == 404


def test_weights_of_another_class_table_are_refused(trained):
    folder, server, _ = trained
    weights = folder / "model" / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    kept = {name: value.clone() for name, value in state.items()}
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:5], state["fc.bias"][:5]
    torch.save(state, weights)
    answer = server.infer("student", "c0_5")
    torch.save(kept, weights)
    assert answer.status_code == 409
    assert "fc.weight is (5, " in answer.json()["detail"]


@pytest.mark.parametrize("conf", [{"bundle": "/no/such/bundle"}, {"configs": "no_such.json"}])
def test_a_server_of_no_bundle_does_not_start_and_says_why(make_app, studies, start_server, conf):
    folder, own = make_app()
    with pytest.raises(AssertionError, match=r"There is no (bundle|config)"), start_server(folder, studies, own | conf):
        pass


@pytest.fixture(scope="module")
def realm():
    """A server that tells its public key, as Keycloak does, and a way to sign tokens with the private one."""
    jwt = pytest.importorskip("jwt")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = "".join(key.public_key().public_bytes(*form).decode().strip().splitlines()[1:-1])

    class Realm(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"public_key": public}).encode())

    server = http.server.HTTPServer(("127.0.0.1", 0), Realm)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def headers(*roles: str, seconds: int = 600) -> dict[str, str]:
        claims = {"preferred_username": "anna", "realm_access": {"roles": roles}, "exp": int(time.time()) + seconds}
        return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='RS256')}"}

    yield f"http://127.0.0.1:{server.server_port}/realms/test", headers
    server.shutdown()


def test_with_authentication_only_a_valid_token_of_the_right_role_gets_in(make_app, studies, start_server, realm):
    uri, headers = realm
    folder, conf = make_app()
    env = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": uri}
    with start_server(folder, studies, conf, env, ready=401) as server:
        asked = [
            server.get("/info/"),
            server.get("/datastore/"),
            server.infer("student", "c0_0"),
            server.label("c0_0", {"label": PLANE_NAMES[0]}),
            server.post("/train/teacher", json={}),
            server.post("/activelearning/first"),
        ]
        assert {answer.status_code for answer in asked} == {401}
        assert server.post("/reload").status_code in (404, 405)
        user = headers("monailabel-user")
        assert server.get("/info/", headers=user).status_code == 200
        assert server.post("/train/teacher", json={}, headers=user).status_code == 403
        assert server.get("/info/", headers=headers("monailabel-user", seconds=-60)).status_code == 401
        assert server.get("/info/", headers={"Authorization": "Bearer forged"}).status_code == 401
