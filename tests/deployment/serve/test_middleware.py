"""Who may ask, what every response brings along, and what is told of requests afterwards."""

from __future__ import annotations

import base64
import logging
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .conftest import cine, png

TOKEN = "correct-horse-battery"
PATHS = ["/", "/page.css", "/page.js", "/metrics", "/openapi.json", "/nowhere"]


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_there_is_health_only(make_client, path):
    client = make_client(token=TOKEN)
    response = client.get(path)
    assert response.status_code == 401
    assert response.headers.get_list("www-authenticate")[0] == "Bearer"
    assert client.post("/predict", content=png()).status_code == 401
    assert client.get("/healthz").json()["status"] == "ok"


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN), basic(TOKEN, user="")])
def test_the_token_opens_as_bearer_or_as_password(make_client, shown):
    client = make_client(token=TOKEN)
    headers = {"authorization": shown}
    assert client.get("/", headers=headers).status_code == 200
    assert client.post("/predict", content=png(), headers=headers).json()["frames"][0]["plane"] == "left"


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer", f"Bearer {TOKEN}x", f"Digest {TOKEN}", TOKEN, basic("wrong"), "Basic ?", "Basic YQ==", "Basic \xe9"],
)
def test_anything_else_does_not(make_client, shown):
    response = make_client(token=TOKEN).get("/", headers={"authorization": shown.encode("latin-1")})
    assert response.status_code == 401


def test_guesses_of_the_token_do_not_use_up_the_rate_of_those_who_have_it(make_client):
    client = make_client(token=TOKEN, requests_per_minute=3)
    for _ in range(5):
        client.get("/metrics", headers={"authorization": "Bearer wrong"})
    statuses = [client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_guesses_of_the_token_have_a_rate(make_client):
    client = make_client(token=TOKEN, requests_per_minute=3)
    statuses = [client.get("/", headers={"authorization": f"Bearer {guess}"}).status_code for guess in range(4)]
    assert statuses == [401, 401, 401, 429]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("localhost:8000", 200), ("LOCALHOST", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200)),
        *(("evil.example", 400), ("localhost.evil.example", 400), ("10.0.0.1", 400), ("[", 400), ("", 400)),
    ],
)
def test_without_a_token_only_names_of_this_machine_are_answered(make_client, host, status):
    assert make_client().get("/", headers={"host": host}).status_code == status
    assert make_client(token=TOKEN).get("/", headers={"host": host}).status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_may_link_here_but_not_ask(client, site):
    headers = {"sec-fetch-site": site}
    assert client.post("/predict", content=png(), headers=headers).status_code == 403
    assert client.post("/predict", content=png(), headers={**headers, "sec-fetch-mode": "navigate"}).status_code == 403
    assert client.get("/page.js", headers=headers).status_code == 403
    assert client.get("/", headers={**headers, "sec-fetch-mode": "navigate"}).status_code == 200
    assert client.post("/predict", content=png(), headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/healthz", "/predict"])
def test_every_response_forbids_what_the_page_does_not_need(client, path):
    response = client.get(path)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"


def test_the_page_tells_the_limits(make_client):
    page = make_client(megabytes=3, frames=1234).get("/").text
    assert re.search("3 MB .*1,234 frames", page)
    assert "{{" not in page


def test_an_error_is_logged_with_its_place_and_without_what_it_quotes(make_client, make_recognizer, caplog):
    def broken(*_):
        raise RuntimeError(" ".join(["Jane", "Doe"]))

    recognizer = make_recognizer()
    recognizer.batch = broken
    response = make_client(recognizer=recognizer).post("/predict", content=png())
    assert response.status_code == 500
    assert list(response.json()) == ["detail"]
    assert "log" in response.json()["detail"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "RuntimeError" in caplog.text
    assert "in broken" in caplog.text
    assert "Jane Doe" not in caplog.text


def test_the_log_tells_requests_without_names(client, caplog):
    caplog.set_level(logging.INFO, logger="monai_fetalkd.deployment.serve")
    client.post("/predict", files={"file": ("Jane Doe.png", png())})
    client.get("/Jane-Doe?name=Jane")
    client.request("JANE_DOE_1980", "/", headers={"x-name": "Jane"})
    lines = [
        record.getMessage().rpartition(",")[0]
        for record in caplog.records
        if record.name == "monai_fetalkd.deployment.serve"
    ]
    assert lines == ["POST /predict 200", "GET other 404", "other / 405"]
    # the client of the test logs its own requests where another test has raised the level of the root
    served = [record.getMessage().lower() for record in caplog.records if not record.name.startswith("httpx")]
    assert not [line for line in served if "jane" in line]


def test_metrics_count_requests_and_frames(client):
    client.post("/predict", content=cine(["left"] * 3))
    client.post("/predict", content=png(None))
    client.post("/predict", content=b"text")
    client.get("/a-path-of-the-client")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["monai_fetalkd_requests_total", "/predict", "200"] == 2
    assert samples["monai_fetalkd_requests_total", "/predict", "415"] == 1
    assert samples["monai_fetalkd_requests_total", "other", "404"] == 1
    assert samples["monai_fetalkd_frames_total", "plane"] == 3
    assert samples["monai_fetalkd_frames_total", "no_plane"] == 1
    assert samples["monai_fetalkd_prediction_seconds_count",] == 2
    assert samples["process_resident_memory_bytes",] > 0
