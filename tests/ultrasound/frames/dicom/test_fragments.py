from __future__ import annotations

import struct
import time
from itertools import accumulate

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import generate_frames

from monai_fetalkd.ultrasound.frames import FrameError, iterate_frames, read_frame

from ..make import anatomy, dataset, encoded, with_codestreams

CINE = np.stack([anatomy(number) for number in range(3)])
WHOLE = [code + b"\0" * (len(code) % 2) for code in (encoded(frame, "JPEG2000") for frame in CINE)]
HALVES = [half for code in WHOLE for half in (code[:400], code[400:])]
LENGTHS = [len(code) + 8 for code in WHOLE]
OFFSETS = [0, *accumulate(LENGTHS[:-1])]


def written(write, codestreams, table=(), syntax=uid.JPEG2000Lossless, **elements):
    return write(with_codestreams(dataset(CINE, syntax, **elements), codestreams, list(table)), "cine.dcm")


@pytest.mark.parametrize(
    "table",
    [[], OFFSETS, [0, 0, 0], OFFSETS[:2], [n - 8 * k for k, n in enumerate(OFFSETS)], [n + 900 for n in OFFSETS]],
    ids=["none", "right", "zeros", "short", "without headers", "absolute"],
)
@pytest.mark.parametrize("codestreams", [WHOLE, HALVES], ids=["whole", "halves"])
def test_the_data_tells_where_a_frame_is_and_not_the_table(write, codestreams, table):
    path = written(write, codestreams, table)
    np.testing.assert_array_equal([read_frame(path, number).pixels for number in range(3)], CINE)


def test_a_wrong_extended_table_is_not_looked_at(write):
    tables = {name: struct.pack("<3Q", 5, 5, 5) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")}
    path = written(write, WHOLE, **tables)
    np.testing.assert_array_equal([frame.pixels for frame in iterate_frames(path)], CINE)


def test_frames_that_are_missing_do_not_move_the_others(write):
    path = written(write, HALVES[:4])
    np.testing.assert_array_equal([read_frame(path, number).pixels for number in (0, 1)], CINE[:2])
    with pytest.raises(FrameError, match="frame 2 is damaged or cut short"):
        read_frame(path, 2)


def test_the_table_is_asked_where_the_codestreams_tell_nothing(write):
    run_length = dataset(CINE)
    run_length.compress(uid.RLELossless, generate_instance_uid=False)
    items = list(generate_frames(run_length.PixelData, number_of_frames=3))
    halves = [part for item in items for part in (item[:64], item[64:])]
    offsets = [0, *accumulate(len(item) + 16 for item in items[:-1])]
    path = written(write, halves, offsets, uid.RLELossless)
    np.testing.assert_array_equal([read_frame(path, number).pixels for number in range(3)], CINE)
    with pytest.raises(FrameError, match="damaged"):
        read_frame(written(write, halves, [], uid.RLELossless), 0)


def test_frames_of_several_fragments_take_no_longer_with_their_number(write):
    def seconds(codestreams):
        path = written(write, codestreams * 100, NumberOfFrames=300)
        start = time.perf_counter()
        assert sum(1 for _ in iterate_frames(path)) == 300
        return time.perf_counter() - start

    assert seconds(HALVES) < 3 * seconds(WHOLE) + 0.5
