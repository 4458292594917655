from __future__ import annotations

import json
import re

import pytest

from .test_report import read

NAMES = ("brain & head", "<b>femur</b>")


def line(number, plane, dropped=0, time_ms=40.0):
    smoothed = dict(zip(NAMES, (0.9, 0.1) if plane == NAMES[0] else (0.3, 0.7), strict=True))
    fields = {"probability": max(smoothed.values()), "probabilities": smoothed, "smoothed": smoothed, "ms": 1.0}
    time_ms = None if time_ms is None else number * time_ms
    return {"frame": number, "time_ms": time_ms, "plane": plane, "dropped": dropped, **fields}


SUMMARY = {
    "summary": {
        **{"seen": 1234, "answered": 40, "dropped": 1190, "undecodable": 4, "median_ms": 2.34, "p95_ms": 5.67},
        "best": {
            NAMES[0]: {"frame": 11, "time_ms": 4560.0, "probability": 0.98765, "file": "/hospital/secret.png"},
            NAMES[1]: {"frame": 31, "time_ms": None, "probability": 0.87654, "file": None},
        },
    }
}


def lines(**changes):
    planes = [NAMES[0]] * 20 + [None] * 5 + [NAMES[1]] * 15
    return [line(number, plane, max(0, number - 30), **changes) for number, plane in enumerate(planes)]


@pytest.fixture
def answers(tmp_path):
    def write(*rows):
        path = tmp_path / "answers.jsonl"
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


@pytest.mark.parametrize(("time_ms", "axis"), [(40.0, "time in s"), (None, "frame")])
def test_a_stream_gets_a_timeline_its_counts_and_its_best_frames(drawn_run, answers, time_ms, axis):
    output = drawn_run.report(streams={"loop <1>": answers(*lines(time_ms=time_ms), SUMMARY)})()
    page = read(output)
    text = re.sub(r"\s+", " ", page.text["streams"])
    assert any("loop <1>" in drawing["aria-label"] for drawing in page.drawings)
    assert re.search(r"1,234 .*\b40 .*1,190 .*\b4 .*2\.3 ms .*5\.7 ms", text)
    assert f"{NAMES[0]}114.560.988" in text
    assert f"{NAMES[1]}31\N{EN DASH}0.877" in text
    assert axis in text  # of the figure
    assert "smoothed probability" in text
    assert "secret" not in output.read_text(encoding="utf-8")
    assert len(set(page.identifiers)) == len(page.identifiers)


def test_a_stream_without_its_end_is_shown_as_far_as_it_went(run, answers):
    page = read(run.report(streams={"loop": answers(*lines())})())
    assert "summary" in page.text["streams"]


def test_a_report_without_streams_does_not_speak_of_any(page_path):
    page = read(page_path)
    assert "streams" not in page.text
    assert "#streams" not in page.links


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*lines(), "nonsense"], "Line 41 of .* is no answer of a stream"),
        ([*lines(), "[1]"], "Line 41 of"),
        ([{"frame": 0}], "Line 1 of"),
        ([line(0, NAMES[0]), line(1, "of another network")], "Line 2 of"),
        ([{**line(0, None), "frame": "first"}], "Line 1 of"),
        ([SUMMARY], "holds no answer"),
        ([], "holds no answer"),
    ],
    ids=["no JSON", "no object", "no plane", "another class", "no number", "no frame decoded", "empty"],
)
def test_what_is_no_answer_is_named_and_nothing_is_written(run, answers, rows, message):
    report = run.report(output=run.folder / "new.html", streams={"loop": answers(*rows)})
    with pytest.raises(ValueError, match=message):
        report()
    assert not (run.folder / "new.html").exists()


def test_answers_that_are_not_there_are_named(run):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run.report(streams={"loop": run.folder / "nowhere.jsonl"})()


def test_an_answer_withheld_is_undecided_and_other_is_no_plane(run, answers):
    best = {**SUMMARY["summary"]["best"], "Other": {"frame": 5, "time_ms": 200.0, "probability": 0.77, "file": None}}
    summary = {"summary": {**SUMMARY["summary"], "best": best}}
    text = read(run.report(streams={"loop": answers(*lines(), summary)})()).text["streams"]
    assert "undecided" in text
    assert "0.770" not in text
    assert "0.988" in text
