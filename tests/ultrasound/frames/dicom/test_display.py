from __future__ import annotations

import warnings

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from monai_fetalkd.ultrasound.frames import FrameError, FrameWarning, read_frame

from ..make import anatomy, dataset, functional_group, lut

GREY = anatomy()
CINE = np.stack([GREY] * 3)
WHOLE = {"WindowCenter": "128", "WindowWidth": "256"}
UNUSABLE_WINDOWS = [
    {"WindowCenter": None, "WindowWidth": None},
    {"WindowCenter": "128"},
    {"WindowCenter": "128", "WindowWidth": "0"},
    {"WindowCenter": "128", "WindowWidth": "-256"},
    {"WindowCenter": "-5000", "WindowWidth": "10"},
]


@pytest.mark.parametrize("elements", UNUSABLE_WINDOWS)
def test_a_window_that_cannot_be_used_is_left_out_with_one_warning(write, elements):
    path = write(dataset(GREY, **elements), "a.dcm")
    with pytest.warns(FrameWarning, match=r"a\.dcm.*WindowCenter"):
        np.testing.assert_array_equal(read_frame(path).pixels, GREY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_frame(path)


def test_words_in_place_of_numbers_are_left_out(write):
    path = write(dataset(GREY, WindowCenter="111111", WindowWidth="222222", RescaleSlope="333333"), "a.dcm")
    with open(path, "rb+") as file:
        content = file.read().replace(b"111111", b"centre").replace(b"333333", b"slope ")
        file.seek(0)
        file.write(content)
    with pytest.warns(FrameWarning):
        np.testing.assert_array_equal(read_frame(path).pixels, GREY)


@pytest.mark.parametrize(
    "elements",
    [
        {**WHOLE, "VOILUTFunction": ""},
        {**WHOLE, "VOILUTFunction": "NONSENSE"},
        {"WindowCenter": ["", "128"], "WindowWidth": ["", "256"]},
        {**WHOLE, "RescaleSlope": "0", "RescaleIntercept": "0"},
        {**WHOLE, "RescaleSlope": None, "RescaleIntercept": None},
    ],
    ids=["no function", "unknown function", "the second of two", "slope 0", "no rescale"],
)
@pytest.mark.filterwarnings("ignore::monai_fetalkd.ultrasound.frames.FrameWarning")
def test_what_can_be_used_of_a_window_is(write, elements):
    np.testing.assert_allclose(read_frame(write(dataset(GREY, **elements), "a.dcm")).pixels, GREY, atol=1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR", np.clip((GREY - 99.5) / 100 + 0.5, 0, 1) * 255),
        ("LINEAR_EXACT", np.clip((GREY - 100.0) / 101 + 0.5, 0, 1) * 255),
        ("SIGMOID", 255 / (1 + np.exp(-4 * (GREY - 100.0) / 101))),
    ],
)
def test_each_function_of_a_window_is_that_of_the_standard(write, function, expected):
    file = dataset(GREY, WindowCenter="100", WindowWidth="101", VOILUTFunction=function)
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, expected, atol=1e-3)


def test_a_window_narrower_than_one_is_taken_exactly(write):
    file = dataset(GREY, RescaleSlope="0.001", RescaleIntercept="0", WindowCenter="0.128", WindowWidth="0.256")
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, GREY / 0.256 * 0.255, atol=0.01)


def test_a_negative_slope_turns_black_to_white(write):
    file = dataset(GREY, RescaleSlope="-1", RescaleIntercept="255")
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, 255.0 - GREY, atol=1e-3)


def test_the_functional_groups_of_a_frame_count_before_the_shared_and_these_before_the_header(write):
    def window(factor):
        return functional_group(FrameVOILUTSequence={"WindowCenter": 128 * factor, "WindowWidth": 256 * factor})

    rescale = functional_group(PixelValueTransformationSequence={"RescaleSlope": 2, "RescaleIntercept": 0})
    file = dataset(
        CINE,
        **{"WindowCenter": "1", "WindowWidth": "2"},
        SharedFunctionalGroupsSequence=[window(8)],
        PerFrameFunctionalGroupsSequence=[window(1), rescale, functional_group()],
    )
    path = write(file, "a.dcm")
    for number, factor in enumerate([1, 2 / 8, 1 / 8]):
        np.testing.assert_allclose(read_frame(path, number).pixels, GREY * factor, atol=0.5)


RAMP = np.arange(256)


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian], ids=lambda syntax: syntax.name
)
@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(
    ("entries", "bits"),
    [(RAMP * 257, 16), (RAMP * 4095 // 255, 16), (RAMP, 8), (RAMP, "packed")],
    ids=["16 bits", "12 of 16 bits", "8 bits in words", "8 bits packed"],
)
def test_a_table_has_the_width_and_byte_order_of_its_file(write, syntax, sequence, entries, bits):
    order = "<" if syntax.is_little_endian else ">"
    if bits == "packed":
        words = entries.astype("u1").view("<u2").astype(f"{order}u2")
        item = lut(words, 8)
        item.LUTDescriptor = [256, 0, 8]
    else:
        item = lut(entries.astype(f"{order}u2"), bits)
    file = dataset(GREY, syntax, **{sequence: [item]})
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, GREY, atol=1)


@pytest.mark.parametrize("sequence", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_table_without_values_is_left_out(write, sequence):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", None)
    item.add_new("LUTData", "OW", None)
    with pytest.warns(FrameWarning, match=sequence):
        levels = read_frame(write(dataset(GREY, **{sequence: [item]}), "a.dcm")).pixels
    np.testing.assert_array_equal(levels, GREY)


def palette(syntax, data, bits, segmented=False):
    file = dataset(GREY, syntax, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        file.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        file.add_new(f"{'Segmented' * segmented}{colour}PaletteColorLookupTableData", "OW", data.tobytes())
    return file


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("factor", [256, 257, 1], ids=["shifted", "repeated", "as they are"])
def test_the_entries_of_a_palette_have_the_byte_order_of_its_file(write, order, factor):
    syntax = uid.ExplicitVRLittleEndian if order == "<" else uid.ExplicitVRBigEndian
    file = palette(syntax, (RAMP * factor).astype(f"{order}u2"), 16)
    np.testing.assert_array_equal(read_frame(write(file, "a.dcm")).pixels, GREY)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_segments_of_a_palette_are_expanded(write, order):
    syntax = uid.ExplicitVRLittleEndian if order == "<" else uid.ExplicitVRBigEndian
    segments = np.array([0, 2, 0, 256, 1, 254, 65280], dtype=f"{order}u2")  # two entries, and a line to the last
    file = palette(syntax, segments, 16, segmented=True)
    np.testing.assert_array_equal(read_frame(write(file, "a.dcm")).pixels, GREY)


@pytest.mark.parametrize(
    "segments",
    [[1, 5, 9], [0, 1, 7, 2, 1, 6, 0], [3, 1, 1], [0, 0] * 9, [0, 1, 7, *[1, 65535, 9] * 9000]],
    ids=["no start", "points at itself", "unknown", "empty", "more than any table"],
)
def test_segments_that_cannot_be_are_refused_at_once(write, segments):
    file = palette(uid.ExplicitVRLittleEndian, np.array(segments, dtype="<u2"), 16, segmented=True)
    with pytest.raises(FrameError):
        read_frame(write(file, "a.dcm"))


def test_a_missing_palette_is_named(write):
    with pytest.raises(FrameError, match="RedPaletteColorLookupTable"):
        read_frame(write(dataset(GREY, PhotometricInterpretation="PALETTE COLOR"), "a.dcm"))
