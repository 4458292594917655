"""Frames as they come, recognised one after the other. Nothing here needs torch or MONAI."""

from __future__ import annotations

from .answers import Answer, StreamSummary
from .arrivals import Arrival, FrameStream, Latest, paced
from .best import BestFrame, BestFrames, is_plane
from .heads import FrameSegmenter, HeadAnswer, HeadOverlay, HeadStream
from .loop import FrameLoop
from .movies import Movie, open_movie
from .overlay import Overlay
from .smoothing import Smoothing
from .sources import open_source
from .stream import FrameRecognizer, Stream

__all__ = [
    "Answer",
    "Arrival",
    "BestFrame",
    "BestFrames",
    "FrameLoop",
    "FrameRecognizer",
    "FrameSegmenter",
    "FrameStream",
    "HeadAnswer",
    "HeadOverlay",
    "HeadStream",
    "Latest",
    "Movie",
    "Overlay",
    "Smoothing",
    "Stream",
    "StreamSummary",
    "is_plane",
    "open_movie",
    "open_source",
    "paced",
]
