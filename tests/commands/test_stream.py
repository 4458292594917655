from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from monai_fetalkd.__main__ import main
from monai_fetalkd.deployment.runtime import SHIPPED_STUDENT, Recognizer
from monai_fetalkd.deployment.stream import Stream, open_source
from monai_fetalkd.ultrasound.frames import read_frame

from ..deployment.runtime.model import write_model
from ..deployment.runtime.torch_free import run_without_torch
from ..deployment.stream.make import Halves, encoded, half
from ..ultrasound.frames.make import compressed, dataset

SIDES = ["left"] * 10 + ["right"] * 10
CINE = np.stack([half(side, number) for number, side in enumerate(SIDES)])


@pytest.fixture
def model(tmp_path):
    return str(write_model(tmp_path / "student.onnx"))


@pytest.fixture
def loop(tmp_path):
    dataset(CINE, FrameTime="40").save_as(tmp_path / "loop.dcm", enforce_file_format=True)
    return str(tmp_path / "loop.dcm")


def lines(out):
    """The answers and the summary."""
    *answers, last = map(json.loads, out.splitlines())
    return answers, last["summary"]


def test_without_a_model_the_shipped_student_answers(loop, capsys):
    assert main(["stream", loop, "--backend", "onnxruntime"]) == 0
    answers, summary = lines(capsys.readouterr().out)
    assert summary["answered"] == len(answers) == 20
    assert tuple(answers[0]["probabilities"]) == Recognizer(SHIPPED_STUDENT).class_names


def test_a_model_without_a_source_is_told(model, capsys):
    assert main(["stream", model]) == 1
    assert f"'{model}' is a network" in capsys.readouterr().err


def test_a_cine_is_answered_frame_by_frame_and_its_best_frames_are_kept(model, loop, tmp_path, capsys):
    assert main(["stream", model, loop, "--smoothing", "2", "--best", str(tmp_path / "best")]) == 0
    captured = capsys.readouterr()
    answers, summary = lines(captured.out)
    assert [answer["frame"] for answer in answers] == list(range(20))
    assert [answer["time_ms"] for answer in answers] == [40.0 * number for number in range(20)]
    assert [answer["plane"] for answer in answers] == ["left"] * 12 + ["right"] * 8
    assert [max(answer["probabilities"], key=answer["probabilities"].get) for answer in answers] == SIDES
    assert (summary["seen"], summary["answered"], summary["dropped"], summary["undecodable"]) == (20, 20, 0, 0)
    for plane, frames in (("left", range(10)), ("right", range(12, 20))):
        best = max(frames, key=lambda number, plane=plane: answers[number]["probabilities"][plane])
        assert summary["best"][plane]["frame"] == best
        np.testing.assert_array_equal(np.asarray(Image.open(summary["best"][plane]["file"])), CINE[best])
    assert captured.err.splitlines()[0].startswith("20 frames: 20 answered, 0 dropped, 0 undecodable")


@pytest.mark.parametrize(
    ("chosen", "options", "unsure"),
    [("null", [], False), ("0.999", [], True), ("0.999", ["--threshold", "0"], False)],
)
def test_the_threshold_is_that_of_the_model_unless_one_is_given(tmp_path, loop, capsys, chosen, options, unsure):
    model = write_model(tmp_path / "student.onnx", threshold=chosen)
    assert main(["stream", str(model), loop, *options]) == 0
    answers, summary = lines(capsys.readouterr().out)
    assert {answer["plane"] is None for answer in answers} == {unsure}
    assert (summary["best"] == {}) == unsure


def test_overlay_and_timeline_are_written(model, loop, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    film, figure = tmp_path / "out" / "loop.gif", tmp_path / "out" / "loop.png"
    assert main(["stream", model, loop, "--overlay", str(film), "--timeline", str(figure)]) == 0
    assert Image.open(film).n_frames == 20
    assert Image.open(figure).format == "PNG"
    assert sorted(path.name for path in film.parent.iterdir()) == ["loop.gif", "loop.png"]


def test_played_in_real_time_every_frame_is_answered_dropped_or_undecodable(model, loop, capsys):
    assert main(["stream", model, loop, "--realtime"]) == 0
    answers, summary = lines(capsys.readouterr().out)
    assert summary["seen"] == 20
    assert summary["answered"] == len(answers) == 20 - summary["dropped"]
    assert answers[-1]["frame"] == 19


def test_corrupt_frames_are_skipped_and_the_others_answered(model, tmp_path, capsys):
    file = compressed(CINE, uid.JPEGBaseline8Bit)
    frames = list(generate_frames(file.PixelData, number_of_frames=20))
    frames[5] = frames[15] = b"\xff\xd8" + bytes(300)
    file.PixelData = encapsulate(frames)
    file.save_as(tmp_path / "loop.dcm", enforce_file_format=True)
    assert main(["stream", model, str(tmp_path / "loop.dcm")]) == 0
    answers, summary = lines(capsys.readouterr().out)
    assert [answer["frame"] for answer in answers] == [n for n in range(20) if n not in (5, 15)]
    assert (summary["answered"], summary["undecodable"]) == (18, 2)


def test_where_no_frame_can_be_decoded_the_status_is_1(model, tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["stream", model, str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("3 frames: 0 answered, 0 dropped, 3 undecodable")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing.dcm"], "There is no file, folder or device"),
        (["LOOP", "--raw", "56x40"], "standard input"),
        (["LOOP", "--smoothing", "-1"], "0 or more"),
        (["LOOP", "--threshold", "2"], "from 0 to 1"),
        (["LOOP", "--overlay", "loop.mov"], r".mp4 or .gif"),
        (["LOOP", "--timeline", "loop.pdf"], ".png"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(model, loop, capsys, options, message):
    assert main(["stream", model, *(loop if option == "LOOP" else option for option in options)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(("options", "told"), [((), "PNG or JPEG"), (("--raw", "56x40"), "no byte")])
def test_standard_input_without_a_frame_is_told(model, options, told):
    data = b"" if options else b"DICM or whatever it is"
    process = run_without_torch(["stream", model, "-", *options], input=data, text=False)
    assert process.returncode == 1
    assert told in process.stderr.decode()


@pytest.mark.parametrize("option", [("--fps", "0"), ("--fps", "nan"), ("--raw", "960"), ("--raw", "axb")])
def test_wrong_rates_and_sizes_are_arguments_that_are_refused(model, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["stream", model, "-", *option])


@pytest.mark.parametrize("raw", [True, False])
def test_frames_come_from_standard_input_and_the_last_is_answered(model, raw):
    data = CINE.tobytes() if raw else b"".join(encoded(frame, "PNG") for frame in CINE)
    process = run_without_torch(["stream", model, "-", *(("--raw", "56x40") if raw else ())], input=data, text=False)
    assert process.returncode == 0, process.stderr
    answers, summary = lines(process.stdout)
    assert (summary["seen"], summary["answered"]) == (20, len(answers))
    assert answers[-1]["frame"] == 19
    assert answers[-1]["probabilities"]["right"] > 0.5


def test_it_runs_without_torch(model, loop, tmp_path):
    process = run_without_torch(["stream", model, loop, "--best", tmp_path / "best"])
    assert process.returncode == 0, process.stderr
    assert lines(process.stdout)[1]["answered"] == 20
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["left.png", "right.png"]


def start(*arguments, **options):
    command = [sys.executable, "-m", "monai_fetalkd", "stream", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, **pipes)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_stream_that_waits_and_its_files_are_written(model, tmp_path, number, status):
    best = tmp_path / "best"
    with start(model, "-", "--raw", "56x40", "--best", best, stdin=subprocess.PIPE) as process:
        process.stdin.write(CINE[0].tobytes())
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(timeout=30) == status  # while standard input is still open
        rest, errors = process.stdout.read(), process.stderr.read()
    assert first["plane"] == "left"
    assert json.loads(rest)["summary"]["answered"] == 1
    assert b"Traceback" not in errors
    np.testing.assert_array_equal(np.asarray(Image.open(best / "left.png")), CINE[0])


def test_a_reader_that_leaves_ends_the_stream_and_its_files_are_written(model, tmp_path):
    cine = np.concatenate([CINE] * 200)
    dataset(cine).save_as(tmp_path / "long.dcm", enforce_file_format=True)
    with start(model, tmp_path / "long.dcm", "--best", tmp_path / "best") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        errors = process.stderr.read()
    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors
    assert (tmp_path / "best" / "left.png").exists()
    assert int(errors.split()[0]) < len(cine)


def test_what_the_best_frame_holds_is_what_the_file_holds(model, tmp_path, capsys):
    file = compressed(CINE, uid.JPEGBaseline8Bit)
    file.save_as(tmp_path / "loop.dcm", enforce_file_format=True)
    assert main(["stream", model, str(tmp_path / "loop.dcm"), "--best", str(tmp_path)]) == 0
    _, summary = lines(capsys.readouterr().out)
    best = summary["best"]["left"]
    expected = read_frame(tmp_path / "loop.dcm", best["frame"]).pixels
    np.testing.assert_array_equal(np.asarray(Image.open(best["file"])), expected)
    assert not os.path.exists(f"{best['file']}.part")


@pytest.mark.parametrize("option", ["--timeline", "--overlay", "--best"])
def test_a_file_that_cannot_be_written_is_told_before_the_first_frame(model, loop, tmp_path, capsys, option):
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / ("loop.png" if option == "--timeline" else "loop.gif"))
    assert main(["stream", model, loop, option, path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert path in captured.err


@pytest.mark.parametrize("option", ["--timeline", "--overlay"])
def test_a_figure_of_an_earlier_loop_does_not_outlive_a_stream_without_answers(model, tmp_path, option):
    path = tmp_path / ("loop.png" if option == "--timeline" else "loop.gif")
    path.write_text("of an earlier patient")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["stream", model, str(tmp_path / "frames"), option, str(path)]) == 1
    assert not path.exists()


def test_a_disk_that_fills_up_is_told_and_the_other_files_and_the_summary_are_written(
    model, loop, tmp_path, capsys, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    figure, film = tmp_path / "loop.png", tmp_path / "loop.gif"
    assert main(["stream", model, loop, "--timeline", str(figure), "--overlay", str(film)]) == 1
    captured = capsys.readouterr()
    assert lines(captured.out)[1]["answered"] == 20
    assert film.exists()
    assert not figure.exists()
    [told] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert str(figure) in told
    assert "No space left" in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_standard_output_on_a_full_disk_is_told_and_the_files_are_written(model, loop, tmp_path):
    with open("/dev/full", "wb") as full, start(model, loop, "--best", tmp_path / "best", stdout=full) as process:
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert b"standard output" in errors
    assert errors.count(b"error: ") == 1
    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors
    assert (tmp_path / "best" / "left.png").exists()


def test_closed_standard_input_is_told(model):
    command = [sys.executable, "-m", "monai_fetalkd", "stream", model, "-"]
    process = subprocess.run(command, preexec_fn=lambda: os.close(0), capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    assert "Standard input is closed" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_system_without_sigpipe_ends_in_the_same_way(model, tmp_path):
    dataset(np.concatenate([CINE] * 200)).save_as(tmp_path / "long.dcm", enforce_file_format=True)
    code = "import signal, sys; del signal.SIGPIPE; from monai_fetalkd.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "stream", model, str(tmp_path / "long.dcm")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("option", ["--timeline", "--overlay", "--best"])
@pytest.mark.parametrize("source", ["frames", "frames/0.gif"])
def test_what_is_read_is_not_written_over(model, tmp_path, capsys, option, source):
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = [Image.fromarray(frame) for frame in CINE[:3]]
    frames[0].save(folder / "0.gif", save_all=True, append_images=frames[1:])
    before = (folder / "0.gif").read_bytes()
    output = folder if option == "--best" and source == "frames" else folder / "0.gif"
    assert main(["stream", model, str(tmp_path / source), option, str(output)]) == 1
    assert "choose another" in capsys.readouterr().err
    assert (folder / "0.gif").read_bytes() == before


def test_a_file_that_vanishes_from_a_folder_costs_no_other(tmp_path):
    for number in range(4):
        Image.fromarray(CINE[number]).save(tmp_path / f"{number}.png")
    with open_source(str(tmp_path)) as source:
        came = list(source)
        (tmp_path / "2.png").unlink()
        stream = Stream(Halves(), came)
        assert [answer.number for answer in stream] == [0, 1, 3]
    assert stream.summary.undecodable == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_streams_that_are_closed_at_the_start_do_no_harm(model, loop, number):
    command = [sys.executable, "-m", "monai_fetalkd", "stream", model, loop]
    process = subprocess.run(command, preexec_fn=lambda: os.close(number), capture_output=True, text=True, timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
    if number != 1:
        assert lines(process.stdout)[1]["answered"] == 20


@pytest.mark.parametrize("written", [("--timeline", "student.png"), ("--timeline", "a.gif", "--overlay", "a.gif")])
def test_no_output_replaces_the_network_or_another_output(model, loop, tmp_path, capsys, written):
    network = tmp_path / "student.png"
    network.write_bytes((tmp_path / "student.onnx").read_bytes())
    arguments = [str(tmp_path / part) if "." in part else part for part in written]
    assert main(["stream", str(network), loop, *arguments]) == 1
    assert "would replace" in capsys.readouterr().err
    assert network.read_bytes() == (tmp_path / "student.onnx").read_bytes()


def test_a_folder_without_frames_and_threads_by_the_thousand_are_told(model, loop, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").touch()
    for arguments, told in (([str(tmp_path / "none")], "none"), ([loop, "--threads", "100000"], "thread")):
        assert main(["stream", model, *arguments]) == 1
        assert told in capsys.readouterr().err
