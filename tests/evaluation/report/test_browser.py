"""The report in a real browser; skipped where there is none."""

from __future__ import annotations

import pytest

from monai_fetalkd.evaluation.report.page import LABELS, number


@pytest.fixture
def uri(page_path) -> str:
    return page_path.as_uri()


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1366])
def test_it_opens_without_an_error_or_a_request_and_fits_the_screen(browser, uri, width, colors):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colors)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(uri)
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [uri]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth)")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.close()


def test_text_stands_out_in_light_and_in_dark(browser, uri):
    for colors in ("light", "dark"):
        page = browser.new_page(color_scheme=colors)
        page.goto(uri)
        back, text, axis = page.evaluate(
            """["body", "h1", "#curves svg text"].map((selector, index) => {
                const style = getComputedStyle(document.querySelector(selector))
                return index == 0 ? style.backgroundColor : index == 1 ? style.color : style.fill
            })"""
        )
        assert _contrast(back, text) > 7
        assert _contrast(back, axis) > 7
        page.close()


def test_the_numbers_are_those_of_the_evaluation(browser, finished, uri):
    page = browser.new_page()
    page.goto(uri)
    for name, network in finished.content["networks"].items():
        row = page.locator(f'#summary tr[data-network="{name}"]')
        for metric in LABELS:
            found = network["metrics"][metric]
            shown = row.locator(f'[data-metric="{metric}"]').inner_text().split()
            assert shown == [number(found["value"]), number(found["low"]), "to", number(found["high"])]
    sections = {
        section: page.locator(f"#{section}").text_content()
        for section in ("summary", "confusion", "calibration", "cost", "classes", "sources", "provenance")
    }
    pair = finished.content["comparisons"][0]
    assert number(pair["differences"]["accuracy"]["value"], sign=True) in sections["summary"]
    for network in finished.content["networks"].values():
        assert all(str(count) in sections["confusion"] for row in network["confusion"] for count in row if count)
        assert number(network["temperature"]["value"]) in sections["calibration"]
        for time in ("before", "after"):
            for score in network["temperature"][time].values():
                assert _written(score) in sections["calibration"]
        assert number(network["cost"]["parameters"], 0) in sections["cost"]
        assert number(network["cost"]["milliseconds"]["p95"], 2) in sections["cost"]
        for scores in network["classes"].values():
            for metric in ("precision", "recall", "f1", "auroc", "average_precision"):
                assert _written(scores[metric]) in sections["classes"]
        for part in network["sources"].values():
            assert all(_written(part["metrics"][metric]) in sections["sources"] for metric in LABELS)
    for value in ("run <it>", "versions.torch", "2.99"):
        assert value in sections["provenance"]
    page.close()


@pytest.mark.parametrize("section", ["attention", "grad-cam"])
def test_heat_is_shown_when_asked_for_and_on_paper(browser, uri, section):
    page = browser.new_page()
    page.goto(uri)
    heat = page.locator(f"#{section} .maps img").last
    assert not heat.is_visible()
    page.emulate_media(media="print")
    assert heat.is_visible()
    page.emulate_media(media="screen")
    page.locator(f"#{section} summary").click()
    assert heat.is_visible()
    page.close()


def test_it_prints_on_white(browser, uri):
    page = browser.new_page(color_scheme="dark")
    page.goto(uri)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def _written(score: dict[str, float | None]) -> str:
    text = number(score["value"])
    return text if score["low"] is None else f"{text} {number(score['low'])} to {number(score['high'])}"


def _contrast(first: str, second: str) -> float:
    """Ratio of two colours, as the Web Content Accessibility Guidelines define it."""
    light = []
    for color in (first, second):
        channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)
