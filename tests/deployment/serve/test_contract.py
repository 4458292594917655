"""The server keeps to its own OpenAPI document, whatever it is sent."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fetalkd.deployment.serve import Limits, create_app

from .conftest import cine, png

schemathesis = pytest.importorskip("schemathesis")

TOKEN = "correct-horse-battery"
WHOLE = [png("left"), png(None), cine(["left", "top", None])]
CHECKED = {"suppress_health_check": list(HealthCheck), "deadline": None, "derandomize": True}


def damaged(upload: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes of an upload replaced, or its end cut off."""
    place = st.integers(0, len(upload) - 1)
    replaced = st.builds(lambda at, new: upload[:at] + new + upload[at + len(new) :], place, st.binary(max_size=8))
    return replaced | st.builds(lambda at: upload[:at], place)


schemathesis.openapi.media_type(
    "application/octet-stream", st.sampled_from(WHOLE) | st.sampled_from(WHOLE).flatmap(damaged) | st.binary()
)


@pytest.fixture(params=[None, TOKEN], ids=["open", "token"])
def contract(request, recognizer):
    app = create_app(recognizer, Limits(requests_per_minute=10**9), request.param)
    headers = {"host": "localhost"} | ({"authorization": f"Bearer {TOKEN}"} if request.param else {})
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
ASKED = [
    ("/predict", "POST", POSITIVE),
    ("/predict", "POST", NEGATIVE),
    ("/healthz", "GET", POSITIVE),  # it takes nothing that could be wrong
    ("/metrics", "GET", POSITIVE),
]


# schemathesis is used without its pytest plugin, which asks for what pytest 9.2 no longer has
def ask(contract, path, method, mode, examples):
    # most bytes are valid as far as the document goes, and no picture for all that
    excluded = [schemathesis.checks.positive_data_acceptance]

    @given(contract[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, **CHECKED)
    def keeps_to_the_document(case):
        case.call_and_validate(headers={"host": "localhost"}, excluded_checks=excluded)

    keeps_to_the_document()


@pytest.mark.parametrize(("path", "method", "mode"), ASKED)
def test_every_answer_is_one_of_the_document(contract, path, method, mode):
    ask(contract, path, method, mode, examples=15)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), ASKED)
def test_every_answer_is_one_of_the_document_however_long_one_asks(contract, path, method, mode):
    ask(contract, path, method, mode, examples=1000)


def test_the_document_names_all_that_programs_may_ask(client):
    document = client.get("/openapi.json").json()
    assert {path: list(methods) for path, methods in document["paths"].items()} == {
        "/predict": ["post"],
        "/healthz": ["get"],
        "/metrics": ["get"],
    }
    assert "securitySchemes" not in document["components"]
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "403", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert responses["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Prediction")
    for status in set(responses) - {"200"}:
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")


def test_the_document_tells_of_the_token(make_client):
    document = make_client(token=TOKEN).get("/openapi.json", headers={"authorization": f"Bearer {TOKEN}"}).json()
    schemes = {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()}
    assert schemes == {"bearer", "basic"}
    assert "401" in document["paths"]["/predict"]["post"]["responses"]
    assert "security" not in document["paths"]["/healthz"]["get"]
