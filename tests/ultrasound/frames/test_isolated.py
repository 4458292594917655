"""Files read in a process of its own: the same frames, and an end to what takes too long or too much."""

from __future__ import annotations

import gc
import os
import sys
import time

import numpy as np
import pytest
from PIL import Image

from monai_fetalkd.ultrasound.frames import FrameError, read_frame
from monai_fetalkd.ultrasound.frames.isolated import Decoder

from .make import anatomy, dataset


def soon(seconds=30.0):
    return time.perf_counter() + seconds


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder(seconds=30, memory=2**30)
    yield decoder
    decoder.close()


@pytest.fixture
def cine(tmp_path):
    path = tmp_path / "loop.dcm"
    dataset(np.stack([anatomy(number) for number in range(4)]), FrameTime="40").save_as(path, enforce_file_format=True)
    return str(path)


def test_the_frames_are_those_that_are_read_here(decoder, cine):
    with decoder.open(cine, soon()) as file:
        assert file.count == 4
        for number in (3, 0, 2):
            frame, here = file.frame(number), read_frame(cine, number)
            np.testing.assert_array_equal(frame.pixels, here.pixels)
            assert (frame.number, frame.time, frame.region) == (here.number, here.time, here.region)


def test_a_file_that_cannot_be_read_costs_no_other(decoder, cine, tmp_path):
    (tmp_path / "notes.txt").write_text("plane,label")
    with pytest.raises(FrameError, match="neither a picture"), decoder.open(str(tmp_path / "notes.txt"), soon()):
        pass
    with pytest.raises(FrameError), decoder.open(str(tmp_path / "nothing.png"), soon()):
        pass
    with decoder.open(cine, soon()) as file:
        with pytest.raises(FrameError):
            file.frame(17)
        assert file.frame(1).pixels.shape == (40, 56)


def test_an_error_of_whoever_reads_closes_the_file_only(decoder, cine):
    with pytest.raises(KeyError), decoder.open(cine, soon()):
        raise KeyError
    with decoder.open(cine, soon()) as file:
        assert file.count == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
@pytest.mark.parametrize("limit", ["seconds", "deadline"])
def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_read(cine, tmp_path, limit):
    os.mkfifo(tmp_path / "endless.png")  # opening it waits for a writer who never comes
    decoder = Decoder(seconds=0.5 if limit == "seconds" else 30, memory=2**30)
    start = time.perf_counter()
    with (
        pytest.raises(TimeoutError),
        decoder.open(str(tmp_path / "endless.png"), soon(30 if limit == "seconds" else 0.5)),
    ):
        pass
    assert time.perf_counter() - start < 10
    decoder._seconds = 30
    with decoder.open(cine, soon()) as file:
        assert file.count == 4
    decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_frame_that_takes_too_much_memory_is_refused_and_the_next_one_read(cine, tmp_path):
    Image.fromarray(np.tile(np.arange(4000, dtype=np.uint16), (4000, 1)).astype(np.uint8)).save(tmp_path / "large.png")
    decoder = Decoder(seconds=30, memory=60 * 10**6)
    with decoder.open(str(tmp_path / "large.png"), soon()) as file, pytest.raises(FrameError, match="60 MB"):
        file.frame(0)
    with decoder.open(cine, soon()) as file:
        assert file.frame(0).pixels.shape == (40, 56)
    decoder.close()


def test_a_process_that_dies_costs_one_file(cine):
    decoder = Decoder(seconds=30, memory=2**30)
    with decoder.open(cine, soon()) as file:
        decoder._process.kill()
        with pytest.raises(FrameError, match="decoder failed"):
            file.frame(0)
    with decoder.open(cine, soon()) as file:
        assert file.count == 4
    decoder.close()


def test_a_decoder_that_is_forgotten_ends_its_process(cine):
    decoder = Decoder(seconds=30, memory=2**30)
    with decoder.open(cine, soon()):
        process = decoder._process
    del decoder
    gc.collect()
    process.join(10)
    assert process.exitcode == 0
