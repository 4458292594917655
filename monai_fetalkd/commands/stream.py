"""Recognise frames as they come: a cine loop, a video, a folder, standard input, a capture device.

MODEL is an exported network (ONNX); unless given, it is the student that comes with the package. SOURCE is one of

  a file      multi-frame DICOM, or any other file of frames; every frame gets a prediction
  a video     AVI, MP4, MOV, MKV, WebM, MPEG and others that OpenCV reads; every frame gets a prediction
  a folder    of frames, in natural order of their names; every frame gets a prediction
  -           standard input: PNG or JPEG files one behind the other, or bare grey levels (--raw); the latest frame wins
  0, 1, ...   a capture device, by its number; the latest frame wins

Where the latest frame wins, those that come while inference is busy are dropped and counted. A frame that cannot be
decoded is counted and skipped.

Each frame gives one JSON line on standard output: frame, time_ms (in the loop), plane (null: undecided), probability
(smoothed, of the plane), probabilities (of this frame), smoothed, ms (decoding and inference), dropped (frames before
it). The last line, {"summary": ...}, counts the frames and names the best one of each plane; it is on standard error as
text too. That files can be written is checked before the first frame, and files of an earlier stream are removed then:
they may show another patient.

Where MODEL is a segmentation network of the fetal head, each line tells frame, time_ms, circumference, unit (mm, or
pixels where the file does not tell the size of a pixel), ellipse (in pixels; null: no head), ms and dropped, and the
overlay shows mask and ellipse. The options of planes (--best, --timeline, --threshold) are refused then.

Ctrl-C, SIGTERM and a closed pipe (| head) end the stream after the current frame, and all files are written.
The exit status is 0 at the end of the source, 130, 143 and 141 for these three, and 1 when no frame could be decoded or
a file could not be written.

For example

  python -m monai_fetalkd stream loop.dcm
  python -m monai_fetalkd stream student.onnx loop.dcm --best planes --timeline loop.png --overlay loop.mp4
  ffmpeg -i rtsp://probe/1 -f rawvideo -pix_fmt gray - | python -m monai_fetalkd stream student.onnx - --raw 960x720
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from monai_fetalkd.deployment.stream import BestFrames, HeadOverlay, HeadStream, Overlay, Stream

from monai_fetalkd.commands.values import add_model, path

__all__ = ["add_arguments", "run"]

_SIGPIPE = 13  # Windows has the exit status, but not the signal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_model(parser)
    parser.add_argument("source", type=path, metavar="SOURCE", help="where the frames come from, see above")
    parser.add_argument("--fps", type=_rate, metavar="N", help="frames a second, whatever the source says")
    parser.add_argument(
        "--raw", type=_size, metavar="WIDTHxHEIGHT", help="standard input is bare grey levels, one byte a pixel"
    )
    parser.add_argument(
        "--realtime", action="store_true", help="play a file at its own pace, as if it were live: the latest frame wins"
    )
    parser.add_argument("--best", type=path, metavar="FOLDER", help="write the best frame of each plane here, as PNG")
    parser.add_argument(
        "--overlay", type=path, metavar="FILE", help="write the frames with the predictions: .mp4 or .gif"
    )
    parser.add_argument("--timeline", type=path, metavar="PNG", help="write a figure of the predictions over time")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="smoothed probability under which no plane is decided on (that of MODEL, if it has one; 0 for none)",
    )
    parser.add_argument(
        "--smoothing",
        type=int,
        default=3,
        metavar="FRAMES",
        help="by how many frames the prediction may lag behind a change of plane; 0 for no smoothing (3)",
    )
    parser.add_argument(
        "--backend", choices=("auto", "onnxruntime", "openvino"), default="auto", help="what runs the network (auto)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of inference (1)")


def run(arguments: argparse.Namespace) -> int:
    """Recognise the frames of a source.

    Args:
        arguments: what :func:`add_arguments` defines.

    Returns:
        The exit status, see the module.
    """
    from monai_fetalkd.deployment.runtime import SHIPPED_STUDENT, Recognizer, Segmenter, is_segmentation
    from monai_fetalkd.deployment.stream import BestFrames, HeadStream, Smoothing, Stream, open_source, paced

    best = BestFrames()
    network: Recognizer | Segmenter
    if arguments.model is None and arguments.source.endswith(".onnx"):
        raise ValueError(f"'{arguments.source}' is a network: name the source of the frames after it.")
    model = arguments.model or os.fspath(SHIPPED_STUDENT)
    if is_segmentation(model):
        _refuse_planes(arguments)
        network = Segmenter(model, backend=arguments.backend, threads=arguments.threads)
    else:
        network = Recognizer(model, backend=arguments.backend, threads=arguments.threads)
    written = [path for path in (arguments.best, arguments.timeline, arguments.overlay) if path]
    _check_apart(arguments.source, model, written)
    with open_source(arguments.source, fps=arguments.fps, raw=arguments.raw) as source:
        pace = arguments.realtime and not source.live
        frames, live = paced(source) if pace else source, source.live or pace
        stream: Stream | HeadStream
        if isinstance(network, Segmenter):
            stream = HeadStream(network, frames, live=live)
            outputs = list(_head_outputs(arguments, source.fps))
        else:
            threshold = network.threshold if arguments.threshold is None else arguments.threshold
            stream = Stream(network, frames, live, Smoothing(arguments.smoothing), threshold)
            outputs = list(_outputs(arguments, network.class_names, source.fps, best))
        with _stopped_by_signals(stream) as signals:
            problem = _answer_all(stream, outputs)
            problems = [problem, *(_try(output.write) for output in outputs)]
        problems.append(_try(lambda: _print({"summary": _summary(stream, best)})))
    _tell(_summary_text(stream, best))
    if not (stream.summary.seen or signals or any(problems)):
        problems.append(_nothing(arguments.source, arguments.raw is not None))
    if any(isinstance(problem, BrokenPipeError) for problem in problems):
        return 128 + _SIGPIPE
    for told in filter(None, problems):
        _tell(f"error: {told}")
    if signals:
        return 128 + signals[0]
    return 0 if stream.summary.answered and not any(problems) else 1


@dataclass(frozen=True)
class _Output:
    """A file that is made of the answers: it looks at each, and is written at the end."""

    add: Callable[[Any], object]
    write: Callable[[], object]


def _outputs(
    arguments: argparse.Namespace, class_names: Sequence[str], fps: float | None, best: BestFrames
) -> Iterator[_Output]:
    """What is made of the answers; that it can be written is known before the first of them."""
    from monai_fetalkd.deployment.stream import Overlay
    from monai_fetalkd.evaluation.timeline import Timeline
    from monai_fetalkd.utils.files import prepare_file

    if arguments.best:
        best.prepare(arguments.best)
    yield _Output(best.add, lambda: best.write(arguments.best) if arguments.best else None)
    if arguments.timeline:
        if not arguments.timeline.lower().endswith(".png"):
            raise ValueError(f"A timeline is a .png file, not '{arguments.timeline}'.")
        timeline = Timeline(class_names)
        prepare_file(arguments.timeline)
        yield _Output(lambda answer: timeline.add(answer.to_dict()), lambda: timeline.write(arguments.timeline))
    if arguments.overlay:
        yield _movie(arguments, fps, Overlay(class_names))


def _head_outputs(arguments: argparse.Namespace, fps: float | None) -> Iterator[_Output]:
    """The same of measured heads."""
    from monai_fetalkd.deployment.stream import HeadOverlay

    if arguments.overlay:
        yield _movie(arguments, fps, HeadOverlay())


def _movie(arguments: argparse.Namespace, fps: float | None, overlay: Overlay | HeadOverlay) -> _Output:
    from monai_fetalkd.deployment.stream import open_movie
    from monai_fetalkd.utils.files import prepare_file

    movie, draw = open_movie(arguments.overlay, fps), cast(Callable[[Any], Any], overlay.draw)
    prepare_file(arguments.overlay)
    return _Output(lambda answer: movie.add(draw(answer), answer.number, answer.time_ms), movie.close)


def _refuse_planes(arguments: argparse.Namespace) -> None:
    for option in ("best", "timeline", "threshold"):
        if getattr(arguments, option) is not None:
            raise ValueError(f"'{arguments.model}' segments and tells no planes: leave out --{option}.")


def _check_apart(source: str, model: str, outputs: Sequence[str]) -> None:
    """Refuse to write over the frames and the network that are read, and to write two outputs into one place."""
    read, seen = Path(source).resolve(), {Path(model).resolve()}
    for output in outputs:
        written = Path(output).resolve()
        is_inside = read.is_dir() and read in written.parents and written.exists()
        if written == read or is_inside or (written == read.parent and read.suffix.lower() == ".png"):
            raise ValueError(
                f"The output '{output}' would replace frames of the source '{source}': choose another place."
            )
        if written in seen:
            raise ValueError(
                f"The output '{output}' would replace the network, or another output: choose another place."
            )
        seen.add(written)


def _answer_all(stream: Stream | HeadStream, outputs: Sequence[_Output]) -> Exception | None:
    """Print all answers; what has ended the stream before its time, so that what is there by then can be written."""

    def answer_all() -> None:
        for answer in stream:
            for output in outputs:
                output.add(answer)
            _print(answer.to_dict())

    return _try(answer_all)


def _try(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except (ValueError, OSError) as problem:
        return problem
    return None


@contextmanager
def _stopped_by_signals(stream: Stream | HeadStream) -> Iterator[list[int]]:
    """Let the first signal end the stream, and the second do what it always does.

    Yields:
        The signals that came.
    """
    received: list[int] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def stop(number: int, _: object) -> None:
        received.append(number)
        restore()
        stream.stop()

    for number in former:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        restore()


def _print(content: dict[str, Any]) -> None:
    from monai_fetalkd.utils.files import told_if_unwritten

    try:
        with told_if_unwritten("standard output"):
            print(json.dumps(content, allow_nan=False), flush=True)
    except OSError as error:
        # what follows, and what Python flushes as it ends, would fail and be told again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        raise


def _tell(text: str) -> None:
    if sys.stderr is not None:  # where it is closed, print would take standard output
        print(text, file=sys.stderr)


def _summary(stream: Stream | HeadStream, best: BestFrames) -> dict[str, Any]:
    frames = {
        plane: {
            "frame": frame.number,
            "time_ms": frame.time_ms,
            "probability": round(frame.probability, 6),
            "file": str(best.files[plane]) if plane in best.files else None,
        }
        for plane, frame in best.frames.items()
    }
    return {**stream.summary.to_dict(), "best": frames}


def _summary_text(stream: Stream | HeadStream, best: BestFrames) -> str:
    lines = [
        f"best {plane}: frame {frame.number}, {frame.probability:.3f}" for plane, frame in sorted(best.frames.items())
    ]
    return "\n".join([str(stream.summary), *lines])


def _nothing(source: str, raw: bool) -> ValueError:
    """Why there was no frame where nothing else has been told."""
    if source != "-":
        return ValueError(f"'{source}' holds no frame.")
    kinds = (
        "no byte" if raw else "no PNG or JPEG file; other kinds are read from files, and bare grey levels with --raw"
    )
    return ValueError(f"Standard input has held {kinds}.")


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"a frame rate is above 0, not {text}")
    return rate


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"a size is WIDTHxHEIGHT such as 960x720, not {text}")
    return int(width), int(height)
