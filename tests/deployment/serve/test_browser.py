"""The page in a real browser; skipped where there is none."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from PIL import Image

from monai_fetalkd.deployment.runtime import Segmenter
from monai_fetalkd.deployment.serve import Limits, create_app

from . import test_heads as heads
from .conftest import cine, png

playwright = pytest.importorskip("playwright.sync_api")

LOOP = ["left"] * 20 + [None] * 15 + ["top"] * 20


@contextmanager
def served(model) -> Iterator[str]:
    """Address of a server with this network, and a megabyte of upload at most."""
    config = uvicorn.Config(create_app(model, Limits(megabytes=1)), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(recognizer) -> Iterator[str]:
    with served(recognizer) as address:
        yield address


@pytest.fixture
def make_page(browser, address):
    """An open page, which has said nothing on its console and asked no one else by the end of the test."""
    contexts, messages, requests, addresses = [], [], [], []

    def make(width=1200, colors="light", address=address) -> playwright.Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=colors)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        addresses.append(address)
        return page

    yield make
    for context in contexts:
        context.close()
    assert [text for text in messages if "the server responded with a status of 4" not in text] == []
    own = tuple(f"{address}/" for address in addresses)
    assert [url for url in requests if not url.startswith((*own, "data:"))] == []


@pytest.fixture
def page(make_page) -> playwright.Page:
    return make_page()


def upload(page, data: bytes, name: str = "Jane Doe.dcm") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    page.wait_for_selector("#answer:not([hidden]), #alert:not([hidden])")


def shown(page, selector: str) -> np.ndarray:
    """What a part of the page looks like, as RGB."""
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")).astype(int)


def test_a_frame_gets_its_plane_and_the_probabilities_of_all(page):
    upload(page, png("left"))
    assert page.inner_text("#verdict") == "left"
    assert page.inner_text("#explanation").startswith("with a probability of ")
    assert page.locator("#bars .name").all_inner_texts() == ["left", "right", "top"]
    assert page.locator("#bars .answer .name").all_inner_texts() == ["left"]
    values = [float(text.strip("> %")) for text in page.locator("#bars .value").all_inner_texts()]
    assert sum(values) == pytest.approx(100, abs=0.2)
    assert not page.is_visible("#timeline")
    assert page.evaluate("document.activeElement.id") == "verdict"  # a screen reader goes on there


def test_a_frame_without_a_plane_is_told_as_such(page):
    upload(page, png(None))
    assert re.fullmatch(r"Undecided \((left|right|top) \d+\.\d %\)", page.inner_text("#verdict"))
    assert page.locator("#bars .answer").count() == 0


def test_the_page_says_what_it_is_for_and_which_model_answers(page):
    assert "Not a medical device" in page.inner_text("#notice")
    assert "student" in page.inner_text("#model")


def test_attention_lies_over_the_frame_only_where_it_is_asked_for(page):
    upload(page, png("left"))
    assert np.ptp(shown(page, ".frame"), axis=-1).max() < 12
    assert re.search("32 . 32 positions", page.inner_text("#attend"))
    page.check("#overlay")
    attended = shown(page, ".frame")
    colour = np.ptp(attended, axis=-1)
    middle = colour.shape[1] // 2
    assert colour[:, :middle].mean() > colour[:, middle:].mean() + 20  # the network of the tests attends to brightness


def test_a_cine_gets_the_best_frame_of_each_plane_and_a_timeline(page):
    upload(page, cine(LOOP))
    assert page.inner_text("#verdict") == "Best frames"
    assert page.locator("figcaption b").all_inner_texts() == ["left", "top"]
    assert page.locator("#pictures img").count() == 2
    assert page.locator(".row.found > span").all_inner_texts() == ["left", "top"]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.inner_text("#status").startswith("55 frames in ")
    assert page.inner_text("#missing") == "Not found: right."


def test_the_slider_shows_its_frame(page):
    upload(page, cine(LOOP))
    halves = []
    for number in (0, 54):
        page.evaluate(
            """number => {
                const slider = document.querySelector("#position")
                slider.value = number
                slider.dispatchEvent(new Event("input"))
            }""",
            number,
        )
        page.wait_for_function("document.querySelector('#viewer img').complete")
        levels = shown(page, "#viewer img").mean(axis=-1)
        rows, columns = np.nonzero(levels > 30)  # without the black beside the frame
        levels = levels[rows.min() : rows.max(), columns.min() : columns.max()]
        height, width = levels.shape
        halves.append((levels[:, : width // 2].mean() > 150, levels[: height // 2].mean() > 150))
    assert halves == [(True, False), (False, True)]  # left, top
    assert "top" in page.inner_text("#viewer figcaption")


def test_a_frame_of_the_timeline_is_chosen_with_slider_pointer_and_picture(page):
    upload(page, cine(LOOP))
    page.focus("#position")
    page.keyboard.press("End")
    assert page.inner_text("#selected") == "Frame 54, 2.16 s"
    assert "top" in page.inner_text("#reading")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#selected") == "Frame 53, 2.12 s"
    chart = page.locator(".chart").first.bounding_box()
    page.locator(".chart").first.click(position={"x": chart["width"] * 10.5 / 55, "y": 10})
    assert page.inner_text("#selected") == "Frame 10, 0.40 s"
    page.locator("figcaption button").nth(1).click()
    assert (
        page.inner_text("#selected").split(",")[0].lower()
        == page.locator("figcaption button").nth(1).inner_text().split(",")[0]
    )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"plane,label", "neither a picture"),
        (png("left")[:-40], "damaged or cut short"),
        (bytes(1_000_001), "larger than 1 MB"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_next_upload_works(page, data, sentence):
    upload(page, png("left"))
    upload(page, data)
    assert sentence in page.inner_text("#alert")
    assert not page.is_visible("#answer")
    upload(page, png("right"))
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#verdict") == "right"
    assert not page.is_visible("#alert")


def test_a_frame_may_be_dropped_anywhere(page):
    page.evaluate(
        """bytes => {
            const data = new DataTransfer()
            data.items.add(new File([new Uint8Array(bytes)], "a.png"))
            document.querySelector("#notice").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}))
        }""",
        list(png("right")),
    )
    page.wait_for_selector("#answer:not([hidden])")
    assert page.inner_text("#verdict") == "right"


def test_the_name_of_a_file_stays_in_the_browser(page):
    page.evaluate(
        """() => {
            const fetched = window.fetch
            window.fetch = (url, options) => {
                window.sent = [...options.body.entries()].map(([key, file]) => [url, key, file.name])
                return fetched(url, options)
            }
        }"""
    )
    upload(page, png("left"), name="Jane Doe.png")
    assert page.evaluate("window.sent") == [["predict?pictures=true", "file", "upload"]]


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1200])
@pytest.mark.parametrize("data", [png("left"), cine(LOOP)], ids=["frame", "cine"])
def test_it_fits_the_screen_and_can_be_read(make_page, width, colors, data):
    page = make_page(width, colors)
    upload(page, data)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    back, *texts = page.evaluate(
        """["body", "h1", "#verdict", ".muted", "#notice", "#drop b"].map((selector, index) => {
            const style = getComputedStyle(document.querySelector(selector))
            return index == 0 ? style.backgroundColor : style.color
        })"""
    )
    assert min(_contrast(back, text) for text in texts) > 4.5


def _contrast(first: str, second: str) -> float:
    """Ratio of two colours, as the Web Content Accessibility Guidelines define it."""
    light = []
    for color in (first, second):
        channels = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.fixture
def head_page(make_page, tmp_path) -> Iterator[playwright.Page]:
    segmenter = Segmenter(heads.write_segmenter(tmp_path / "head.onnx"), backend="onnxruntime")
    with served(segmenter) as address:
        yield make_page(address=address)


def test_the_head_of_a_frame_is_marked_and_measured(head_page):
    upload(head_page, heads.png(heads.frame()))
    assert re.fullmatch(r"Head circumference 2\d\d\.\d pixels", head_page.inner_text("#verdict"))
    assert "does not tell the size of a pixel" in head_page.inner_text("#explanation")
    marked = shown(head_page, ".frame")
    head_page.uncheck("#overlay")
    changed = np.abs(marked - shown(head_page, ".frame")).max(axis=2) > 20
    rows, columns = np.argwhere(changed).T
    scale = changed.shape[1] / heads.SHAPE[1]
    assert np.hypot(rows / scale - heads.CENTER[0], columns / scale - heads.CENTER[1]).max() < heads.RADIUS + 4


def test_a_cine_of_heads_gets_a_median_and_a_timeline(head_page):
    frames = [heads.frame(radius) for radius in (40, 0, 30)]
    upload(head_page, heads.cine(*frames, **heads.IN_MM))
    assert "mm" in head_page.inner_text("#verdict")
    assert "2 frames" in head_page.inner_text("#explanation")
    assert head_page.inner_text("#caption").startswith("Frame 0")
    head_page.focus("#position")
    head_page.keyboard.press("ArrowRight")
    assert head_page.inner_text("#caption") == "Frame 1, 0.04 s: no head"


def test_a_frame_without_a_head_says_so_on_the_page(head_page):
    upload(head_page, heads.png(heads.frame(0)))
    assert head_page.inner_text("#verdict") == "No head"
