from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pydicom.data
import pydicom.examples
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut

from monai_fetalkd.ultrasound.frames import FrameError, count_frames, iterate_frames, read_frame
from monai_fetalkd.ultrasound.frames.dicom import machine, patient_id

from ..make import anatomy, compressed, dataset, region, transcoded

GREY = anatomy()
COLOURED = np.stack([anatomy(0), anatomy(1), anatomy(2)], axis=-1)
CINE = np.stack([anatomy(number) for number in range(5)])


def grey(colours):
    return np.asarray(Image.fromarray(colours).convert("L"))


@pytest.mark.parametrize("name", ["ybr_color", "rgb_color", "jpeg2k", "palette_color"])
def test_the_ultrasound_files_of_pydicom_show_what_its_own_pixel_array_holds(name):
    path = pydicom.examples.get_path(name)
    header = pydicom.dcmread(path)
    pixels = header.pixel_array
    if name == "palette_color":
        pixels = (apply_color_lut(pixels, header) >> 8).astype(np.uint8)
    expected = [grey(frame) for frame in (pixels if name == "ybr_color" else [pixels])]
    frames = list(iterate_frames(path))
    assert count_frames(path) == len(frames) == len(expected)
    for frame, levels in zip(frames, expected, strict=True):
        assert frame.pixels.dtype == np.float32
        np.testing.assert_array_equal(frame.pixels, levels)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_jpeg.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "ExplVR_BigEnd.dcm",
        "image_dfl.dcm",
    ],
)
def test_every_compression_that_pydicom_ships_shows_what_its_pixel_array_holds(name):
    path = pydicom.data.get_testdata_file(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(read_frame(path).pixels, grey(pixels) if pixels.ndim == 3 else pixels)


NATIVE = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]


@pytest.mark.parametrize("syntax", [*NATIVE, uid.DeflatedExplicitVRLittleEndian], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("picture", [GREY, COLOURED], ids=["grey", "colour"])
def test_uncompressed_files_are_what_was_written(write, syntax, picture):
    path = write(dataset(picture, syntax), "a.dcm")
    np.testing.assert_array_equal(read_frame(path).pixels, grey(picture) if picture.ndim == 3 else picture)


@pytest.mark.parametrize("picture", [GREY, COLOURED], ids=["grey", "colour"])
def test_lossless_compressions_are_what_was_written(write, tmp_path, picture):
    expected = grey(picture) if picture.ndim == 3 else picture
    run_length = dataset(picture)
    run_length.compress(uid.RLELossless, generate_instance_uid=False)
    files = {
        "rle": run_length,
        "jpeg2000": compressed(picture, uid.JPEG2000Lossless),
        "lossless": transcoded(dataset(picture), uid.JPEGLosslessSV1, tmp_path),
        "ls": transcoded(dataset(picture), uid.JPEGLSLossless, tmp_path),
    }
    for name, file in files.items():
        np.testing.assert_array_equal(read_frame(write(file, f"{name}.dcm")).pixels, expected, err_msg=name)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("picture", [GREY, COLOURED], ids=["grey", "colour"])
def test_lossy_compressions_look_like_what_was_written(write, syntax, picture):
    smooth = np.asarray(Image.fromarray(picture).resize((28, 20), Image.Resampling.BOX).resize((56, 40)))
    levels = read_frame(write(compressed(smooth, syntax), "a.dcm")).pixels
    expected = grey(smooth) if picture.ndim == 3 else smooth
    assert np.abs(levels - expected).mean() < 3


@pytest.mark.parametrize("syntax", [None, uid.RLELossless, uid.JPEGLosslessSV1], ids=["plain", "rle", "lossless"])
def test_sixteen_bits_become_levels_by_the_bits_stored(write, tmp_path, syntax):
    values = (GREY.astype(np.uint16) * 16 + 7).clip(0, 4095)
    file = dataset(values, BitsStored=12, HighBit=11)
    if syntax == uid.RLELossless:
        file.compress(syntax, generate_instance_uid=False)
    elif syntax:
        file = transcoded(file, syntax, tmp_path)
    levels = read_frame(write(file, "a.dcm")).pixels
    np.testing.assert_allclose(levels, values * (255 / 4095), atol=1e-4)


def test_signed_values_are_shifted_to_levels(write):
    values = GREY.astype(np.int16) - 128
    file = dataset(values, BitsStored=8, HighBit=7)
    np.testing.assert_allclose(read_frame(write(file, "a.dcm")).pixels, GREY, atol=1e-4)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, 255.0 - GREY),
        ({"PresentationLUTShape": "INVERSE"}, 255.0 - GREY),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, 255.0 - GREY),
        ({"RescaleSlope": 2, "RescaleIntercept": -100}, GREY),
        ({"WindowCenter": 100.5, "WindowWidth": 101}, np.clip((GREY - 50.0) * 2.55, 0, 255)),
        (
            {"WindowCenter": 100, "WindowWidth": 101, "RescaleSlope": 2, "RescaleIntercept": -0.5, "BitsStored": 8},
            np.clip((2.0 * GREY - 50.0) * 2.55, 0, 255),
        ),
    ],
    ids=["monochrome1", "inverse", "both", "rescale", "window", "window of rescaled"],
)
def test_grey_levels_are_those_that_a_viewer_displays(write, elements, expected):
    levels = read_frame(write(dataset(GREY, **elements), "a.dcm")).pixels
    np.testing.assert_allclose(levels, expected, atol=1e-3)


def test_a_lut_of_grey_levels_is_applied(write):
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.linspace(65535, 0, 256).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    table["LUTDescriptor"].VR = "US"
    levels = read_frame(write(dataset(GREY, VOILUTSequence=[table]), "a.dcm")).pixels
    np.testing.assert_allclose(levels, 255.0 - GREY, atol=0.01)


@pytest.mark.parametrize(("bits", "kind"), [(8, "u1"), (16, "<u2")])
def test_a_colour_table_gives_the_luma_of_its_colours(write, bits, kind):
    table = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 90)], axis=-1).astype(np.uint8)
    file = dataset(GREY, PhotometricInterpretation="PALETTE COLOR")
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        entries = table[:, channel].astype(kind)
        setattr(file, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        file[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(file, f"{colour}PaletteColorLookupTableData", (entries << (bits - 8)).tobytes())
    np.testing.assert_array_equal(read_frame(write(file, "a.dcm")).pixels, grey(table[GREY]))


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTime": 40}, [0, 40, 80, 120, 160]),
        ({"FrameTimeVector": [0, 10, 30, 20, 40]}, [0, 10, 40, 60, 100]),
        ({"CineRate": 25}, [0, 40, 80, 120, 160]),
        ({"RecommendedDisplayFrameRate": 50}, [0, 20, 40, 60, 80]),
        ({"FrameTimeVector": [0, 10, 30, 20, 40], "FrameTime": 5, "CineRate": 7}, [0, 10, 40, 60, 100]),
        ({}, [None] * 5),
    ],
)
def test_a_cine_tells_the_number_and_time_of_each_frame(write, elements, times):
    frames = list(iterate_frames(write(dataset(CINE, **elements), "cine.dcm")))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == times
    np.testing.assert_array_equal([frame.pixels for frame in frames], CINE)


@pytest.mark.parametrize("syntax", [None, uid.RLELossless, uid.JPEG2000Lossless], ids=["plain", "rle", "jpeg2000"])
def test_one_frame_of_a_cine_is_read_by_its_number(write, syntax):
    file = compressed(CINE, syntax) if syntax == uid.JPEG2000Lossless else dataset(CINE)
    if syntax == uid.RLELossless:
        file.compress(syntax, generate_instance_uid=False)
    path = write(file, "cine.dcm")
    np.testing.assert_array_equal(read_frame(path, 3).pixels, CINE[3])
    with pytest.raises(FrameError, match=r"it holds 5 frames: name one by its number \(key 'frame'\)"):
        read_frame(path)
    for number in (5, -1):
        with pytest.raises(FrameError, match=f"it has no frame {number}, its frames are 0 to 4"):
            read_frame(path, number)


@pytest.mark.parametrize("has_table", [True, False])
def test_frames_are_found_with_and_without_a_table_of_their_offsets(write, has_table):
    file = compressed(CINE, uid.JPEG2000Lossless)
    frames = list(generate_frames(file.PixelData, number_of_frames=5))
    file.PixelData = encapsulate(frames, has_bot=has_table)
    path = write(file, "cine.dcm")
    np.testing.assert_array_equal([frame.pixels for frame in iterate_frames(path)], CINE)
    file.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=has_table)
    np.testing.assert_array_equal(read_frame(write(file, "pieces.dcm"), 4).pixels, CINE[4])


def test_a_damaged_frame_is_named_and_those_after_it_are_still_read(write):
    file = compressed(CINE, uid.JPEG2000Lossless)
    data = bytearray(file.PixelData)
    third = [i for i in range(len(data)) if data[i : i + 4] == b"\xff\x4f\xff\x51"][2]
    data[third : third + 4] = b"\x00\x00\x00\x00"
    file.PixelData = bytes(data)
    path = write(file, "cine.dcm")
    frames = iterate_frames(path)
    np.testing.assert_array_equal([next(frames).pixels, next(frames).pixels], CINE[:2])
    with pytest.raises(FrameError, match=r"cine\.dcm'.*frame 2"):
        next(frames)
    np.testing.assert_array_equal(read_frame(path, 3).pixels, CINE[3])


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([], None),
        ([region(4, 2, 43, 33)], (2, 4, 34, 44)),
        ([region(0, 0, 55, 39)], (0, 0, 40, 56)),
        ([region(0, 0, 56, 40)], (0, 0, 40, 56)),  # the first beyond in place of the last
        ([region(4, 2, 90, 33)], None),
        ([region(4, 2, 8, 6)], None),
        ([region(40, 30, 4, 2)], None),
        ([region(4, 2, 43, 33, data_type=2)], None),  # colour flow
        ([region(4, 2, 43, 33, spatial_format=3)], None),  # a spectrum
        ([region(0, 0, 20, 20), region(4, 2, 43, 33), region(0, 0, 20, 30)], (2, 4, 34, 44)),
    ],
)
def test_the_region_is_that_of_the_largest_b_mode_picture_inside_the_frame(write, regions, expected):
    file = dataset(GREY, SequenceOfUltrasoundRegions=regions)
    assert read_frame(write(file, "a.dcm")).region == expected


@pytest.mark.parametrize("name", ["ybr_color", "palette_color"])
def test_regions_that_do_not_fit_the_pixels_are_left_out(name):
    assert read_frame(pydicom.examples.get_path(name), 0).region is None


@pytest.mark.parametrize("name", ["IM_0001", "1.2.840.113619.2", "a.dcm"])
def test_files_are_known_without_a_suffix_and_without_a_preamble(write, tmp_path, name):
    for syntax in NATIVE:
        file = dataset(GREY, syntax)
        del file.file_meta
        path = tmp_path / name
        file.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        assert path.read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(read_frame(path).pixels, GREY)


def damaged(**changes):
    file = dataset(CINE)
    for name, value in changes.items():
        setattr(file, name, value)
    return file


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (damaged(NumberOfFrames=400_000_000), "its header tells of 400000000 frames, its pixel data is too short"),
        (damaged(Rows=60_000, Columns=60_000), "60000 x 60000 pixels are too many, 32,000,000 are the most"),
        (damaged(Rows=3), "56 x 3 pixels are too few, 16 a side are the least"),
        (damaged(BitsAllocated=24), "pixels of 8 bits in 24"),
        (dataset(CINE[:1] * 0), "it holds one grey level only"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(write, file, reason):
    with pytest.raises(FrameError, match=reason):
        read_frame(write(file, "a.dcm"), 0)


def test_what_holds_no_picture_or_cannot_be_decoded_is_told(write):
    report = dataset(GREY)
    del report.PixelData
    with pytest.raises(FrameError, match="it is a DICOM file without a picture"):
        read_frame(write(report, "report.dcm"))
    video = compressed(CINE, uid.JPEGBaseline8Bit)
    video.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    with pytest.raises(FrameError, match=r"its compression is not supported \(MPEG-4 AVC/H.264"):
        read_frame(write(video, "video.dcm"), 0)
    with pytest.raises(FrameError, match="it is a DICOM file without a picture|header is damaged"):
        read_frame(write(b"\0" * 128 + b"DICM", "nothing.dcm"))


def test_a_compressed_frame_of_another_size_than_its_header_tells_is_not_decoded(write):
    file = compressed(anatomy().repeat(50, 0).repeat(50, 1), uid.JPEGBaseline8Bit)
    file.Rows, file.Columns = GREY.shape
    with pytest.raises(FrameError, match=r"header tells of \(40, 56\) rows and columns, .* \(2000, 2800\)"):
        read_frame(write(file, "a.dcm"))


def test_what_inflates_beyond_the_limit_is_not_inflated(write, monkeypatch):
    monkeypatch.setattr("monai_fetalkd.ultrasound.frames.frame.MAX_BYTES", 10_000)
    path = write(dataset(CINE, uid.DeflatedExplicitVRLittleEndian), "a.dcm")
    with pytest.raises(FrameError, match="it inflates to more than 10,000 bytes"):
        read_frame(path, 0)


def test_twelve_bits_of_jpeg_extended_are_told_to_be_unsupported():
    with pytest.raises(FrameError, match=r"its compression is not supported \(JPEG Extended .*, 12 bits\)"):
        read_frame(pydicom.data.get_testdata_file("JPGExtended.dcm"))


def test_the_patient_and_the_machine_have_one_door_each(write):
    path = write(dataset(GREY, PatientID=" 4711 ", ManufacturerModelName="Voluson E10"), "a.dcm")
    assert (patient_id(path), machine(path)) == ("4711", "Voluson E10")
    path = write(dataset(GREY), "b.dcm")
    assert (patient_id(path), machine(path)) == (None, None)
    assert patient_id(write(GREY, "a.png")) is None
    with pytest.raises(FileNotFoundError, match="The frame 'none.dcm' does not exist"):
        patient_id("none.dcm")


def test_nothing_of_a_person_reaches_an_error_a_warning_or_a_log(write, caplog, capfd):
    secret = "Planted^Name"
    file = compressed(CINE, uid.JPEGBaseline8Bit, PatientName=secret, PatientID=secret, InstitutionName=secret)
    file.add_new(0x00080020, "DA", secret)  # not a date: pydicom warns and quotes it
    file.add_new(0x00101010, "AS", secret)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(file, "a.dcm")
    whole = Path(path).read_bytes()
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for length in range(200, len(whole), 97):
            try:
                list(iterate_frames(write(whole[:length], "cut.dcm")))
            except FrameError as error:
                told.append(f"{error}{error.__cause__}{'' if error.__suppress_context__ else error.__context__}")
        read_frame(path, 0)
    assert len(told) > 20
    shown = "".join([*told, *(str(warning.message) for warning in caught), caplog.text, *capfd.readouterr()])
    assert "Planted" not in shown
    assert not caught


def test_reading_in_threads_leaves_warnings_and_loggers_as_they_were(write):
    path = write(dataset(CINE), "cine.dcm")
    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    threads = [threading.Thread(target=lambda: [list(iterate_frames(path)) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == filters
    assert logging.getLogger("pydicom").level == level
