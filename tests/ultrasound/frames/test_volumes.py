from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from monai_fetalkd.ultrasound.frames import FrameError, count_frames, iterate_frames, read_frame

from .make import anatomy, dataset

itk = pytest.importorskip("itk")
nib = pytest.importorskip("nibabel")

GREY = anatomy()
COLOURED = np.stack([anatomy(0), anatomy(1), anatomy(2)], axis=-1)
CINE = np.stack([anatomy(number) for number in range(5)])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_itk(picture, path, colours=False, direction=None, compression=False):
    image = itk.image_from_array(np.ascontiguousarray(picture), is_vector=colours)
    if direction is not None:
        image.SetDirection(itk.matrix_from_array(np.asarray(direction, dtype=float)))
    itk.imwrite(image, str(path), compression=compression)
    return str(path)


def write_nibabel(voxels, path, affine=LPS):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


def test_the_same_anatomy_looks_the_same_from_every_kind_of_file(write, tmp_path):
    files = [
        write(GREY, "a.png"),
        write(dataset(GREY), "a.dcm"),
        write_itk(GREY, tmp_path / "a.mha"),
        write_itk(GREY, tmp_path / "b.mha", compression=True),
        write_itk(GREY, tmp_path / "a.mhd"),
        write_itk(GREY, tmp_path / "a.nii"),
        write_itk(GREY, tmp_path / "a.nii.gz"),
        write_nibabel(GREY.T, tmp_path / "b.nii"),
        write_nibabel(GREY.T[..., None], tmp_path / "c.nii.gz"),
    ]
    for file in files:
        frame = read_frame(file)
        assert frame.pixels.dtype == np.float32
        np.testing.assert_array_equal(frame.pixels, GREY, err_msg=file)


def test_the_same_colours_look_the_same_from_every_kind_of_file(write, tmp_path):
    expected = read_frame(write(COLOURED, "a.png")).pixels
    for file in (
        write(dataset(COLOURED), "a.dcm"),
        write_itk(COLOURED, tmp_path / "a.mha", colours=True),
        write_itk(COLOURED, tmp_path / "a.nii.gz", colours=True),
    ):
        np.testing.assert_array_equal(read_frame(file).pixels, expected, err_msg=file)


@pytest.mark.parametrize("suffix", ["mha", "nii", "nii.gz"])
def test_the_slices_of_a_volume_are_its_frames(tmp_path, suffix):
    path = write_itk(CINE, tmp_path / f"a.{suffix}")
    assert count_frames(path) == 5
    frames = list(iterate_frames(path))
    assert [(frame.number, frame.time) for frame in frames] == [(number, None) for number in range(5)]
    np.testing.assert_array_equal([frame.pixels for frame in frames], CINE)
    np.testing.assert_array_equal(read_frame(path, 3).pixels, CINE[3])
    with pytest.raises(FrameError, match="it holds 5 frames"):
        read_frame(path)


@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("turned", [False, True])
def test_flips_and_turns_that_the_header_tells_are_undone(tmp_path, flips, turned):
    stored = GREY[:: flips[1], :: flips[0]]
    direction = np.diag([flips[0], flips[1], 1.0])
    if turned:
        stored, direction = stored.T, direction[:, [1, 0, 2]]
    for file in (
        write_itk(stored, tmp_path / "a.mha", direction=direction[:2, :2]),
        write_itk(stored[None], tmp_path / "b.mha", direction=direction),
        write_nibabel(
            stored.T[..., None], tmp_path / "a.nii", LPS @ np.block([[direction, np.zeros((3, 1))], [0, 0, 0, 1]])
        ),
    ):
        np.testing.assert_array_equal(read_frame(file).pixels, GREY, err_msg=file)


def test_a_plane_along_the_body_has_the_head_on_top(tmp_path):
    # the first axis runs to the patient's back, the second to the head
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    path = write_nibabel(GREY[::-1].T[..., None], tmp_path / "a.nii", affine)
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


def test_a_file_that_does_not_tell_its_orientation_is_taken_as_it_is(tmp_path):
    path = write_nibabel(GREY.T[..., None], tmp_path / "a.nii", None)
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (GREY.astype(np.int16), GREY),
        (GREY.astype(np.float32) * 0.5, GREY * 0.5),
        ((GREY / 255).astype(np.float32), GREY),
        (GREY.astype(np.float64) - 100, GREY),
        (GREY.astype(np.uint16) * 16, GREY),
    ],
    ids=["within 0 to 255", "halves", "fractions of 1", "negative", "12 bits"],
)
def test_values_become_levels_by_the_range_of_the_file(tmp_path, values, expected):
    for file in (
        write_itk(values, tmp_path / "a.mha"),
        write_nibabel(values.T, tmp_path / "a.nii"),
    ):
        np.testing.assert_allclose(read_frame(file).pixels, expected, atol=1e-3)


def test_the_frames_of_a_volume_share_their_range(tmp_path):
    path = write_itk(np.stack([GREY * 4.0, GREY * 2.0]).astype(np.float32), tmp_path / "a.mha")
    np.testing.assert_allclose(read_frame(path, 1).pixels, GREY / 2, atol=1e-3)


def test_the_slope_and_intercept_of_nifti_are_applied(tmp_path):
    image = nib.Nifti1Image(GREY.T, LPS)
    image.header.set_slope_inter(0.5, 10)
    path = tmp_path / "a.nii"
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([0.5, 10], dtype="<f4").tobytes()
    path.write_bytes(data)
    expected = np.asarray(nib.load(path).dataobj).T
    np.testing.assert_allclose(read_frame(path).pixels, expected, atol=1e-4)


MHA = b"ObjectType = Image\nNDims = 2\nDimSize = 56 40\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ((b"LOCAL", b"LOCAL"), GREY.tobytes()[:99], "it is cut short: it holds 99 of 2,240 bytes of voxels"),
        ((b"MET_UCHAR", b"MET_STRING"), b"", "its voxels are neither binary grey levels nor binary RGB"),
        ((b"56 40", b"56 forty"), b"", "its MetaImage header is damaged or cut short"),
        ((b"56 40", b"0 40"), b"", "it holds no frame, its size is (0, 40)"),
        ((b"56 40", b"56 40 0"), b"", "it holds no frame, its size is (56, 40, 0)"),
        ((b"56 40", b"60000 40000"), b"", "60000 x 40000 pixels are too many, 32,000,000 are the most"),
        ((b"56 40", b"560 400 99999"), b"", "its voxels take 22,399,776,000 bytes, 1,073,741,824 are the most"),
        ((b"LOCAL", b"../a.raw"), b"", "its voxels must lie in one file beside it, not in '../a.raw'"),
        ((b"LOCAL", b"/etc/hosts"), b"", "its voxels must lie in one file beside it, not in '/etc/hosts'"),
        ((b"LOCAL", b"none.raw"), b"", "the file of its voxels, 'none.raw', is missing"),
        ((b"LOCAL", b"LOCAL"), bytes(2240), "it holds one grey level only"),
        ((b"ElementType", b"CompressedData = True\nElementType"), b"no zlib", "its voxels are damaged or cut short"),
    ],
)
def test_what_is_wrong_with_a_metaimage_is_told(write, header, data, reason):
    path = write(MHA.replace(*header) + data, "a.mha")
    with pytest.raises(FrameError, match=re.escape(reason)):
        read_frame(path, 0)


def nifti(voxels=GREY.T, **changes):
    image = nib.Nifti1Image(voxels, LPS)
    for name, value in changes.items():
        image.header[name] = value
    return image.header.binaryblock + bytes(4) + np.asfortranarray(voxels).tobytes(order="F")


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (nifti()[:200] + bytes(200), "a.nii", "it is neither a picture"),
        (nifti()[:900], "a.nii", "is cut short"),
        (gzip.compress(nifti())[:-300], "a.nii.gz", "damaged or cut short"),
        (gzip.compress(b"text"), "a.nii.gz", "it is compressed .gzip. and holds something else"),
        (nifti(magic=b"ni1"), "a.nii", "it is half of a NIfTI pair: convert it to one .nii file"),
        (nifti(dim=[2, 0, 40, 1, 1, 1, 1, 1]), "a.nii", "it holds no frame"),
        (nifti(dim=[3, 9000, 9000, 9000, 1, 1, 1, 1]), "a.nii", "9000 x 9000 pixels are too many"),
        (nifti(dim=[3, 900, 900, 9000, 1, 1, 1, 1]), "a.nii", "bytes, 1,073,741,824 are the most"),
        (nifti(GREY.T * np.float32(np.nan)), "a.nii", "it holds values that are not finite numbers"),
        (nifti(GREY.T.astype(np.complex64)), "a.nii", "voxels of type complex64 are no grey levels"),
    ],
)
def test_what_is_wrong_with_a_nifti_is_told(write, content, name, reason):
    with pytest.raises(FrameError, match=reason):
        read_frame(write(content, name), 0)


def header(**fields):
    lines = {"ObjectType": "Image", "NDims": 3, "DimSize": "56 40 5", "ElementType": "MET_UCHAR", **fields}
    return "".join(f"{name} = {value}\n" for name, value in lines.items()).encode()


LOCAL = b"ElementDataFile = LOCAL\n"


def test_a_header_with_lines_for_each_frame_may_be_long_and_tells_the_times(write):
    count = 400
    lines = {f"Seq_Frame{n:04}_ProbeToTrackerTransform": " ".join(["0.123456"] * 16) for n in range(count)}
    stamps = {f"Seq_Frame{n:04}_Timestamp": 7 + n * 0.04 for n in range(count)}
    content = header(DimSize=f"56 40 {count}", Comment="Ger\u00e4t", **lines, **stamps) + LOCAL
    assert len(content) > 65_536
    path = write(content + np.tile(CINE, (count // 5, 1, 1)).tobytes(), "a.mha")
    frame = read_frame(path, count - 1)
    np.testing.assert_array_equal(frame.pixels, CINE[4])
    assert frame.time == pytest.approx((count - 1) * 40)


def test_a_header_without_an_end_is_not_read_for_ever(write, monkeypatch):
    monkeypatch.setattr("monai_fetalkd.ultrasound.frames.metaimage._LONGEST_HEADER", 10_000)
    with pytest.raises(FrameError, match="10,000 bytes"):
        read_frame(write(header() + b"Comment = x\n" * 1000 + LOCAL, "a.mha"), 0)


@pytest.mark.parametrize(("size", "before"), [(7, bytes(7)), (-1, bytes(300))])
def test_what_stands_before_the_voxels_is_skipped(write, size, before):
    write(before + CINE.tobytes(), "a.raw")
    path = write(header(HeaderSize=size) + b"ElementDataFile = a.raw\n", "a.mhd")
    np.testing.assert_array_equal([frame.pixels for frame in iterate_frames(path)], CINE)


def test_voxels_that_are_not_square_are_made_so(write, tmp_path):
    # half as wide as high, as in sequences of CAMUS; the last is stored column by column
    spacing = np.diag([-0.15, -0.3, 1, 1])
    for path in (
        write(header(ElementSpacing="0.15 0.3 1") + LOCAL + CINE.tobytes(), "a.mha"),
        write_nibabel(CINE.T, tmp_path / "a.nii", spacing),
        write_nibabel(CINE.transpose(1, 2, 0), tmp_path / "b.nii", spacing[:, [1, 0, 2, 3]]),
    ):
        assert read_frame(path, 0).pixels.shape == (80, 56)


def test_what_is_no_finite_number_is_black_or_white_and_no_reason_to_refuse(tmp_path):
    values = CINE.astype(np.float32)
    values[0, :5] = np.nan
    values[1, :5], values[2, :5] = np.inf, -np.inf
    values[4] = np.nan
    expected = CINE.astype(np.float32)
    expected[[0, 2], :5], expected[1, :5] = 0, 255
    for path in (write_nibabel(values.T, tmp_path / "a.nii"), write_itk(values, tmp_path / "a.mha")):
        np.testing.assert_array_equal([read_frame(path, number).pixels for number in range(4)], expected[:4])
        with pytest.raises(FrameError, match="not finite"):
            read_frame(path, 4)


def test_the_fourth_axis_of_nifti_is_time(tmp_path):
    image = nib.Nifti1Image(np.stack([CINE.T, CINE.T], axis=-1), LPS)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0.02
    nib.save(image, tmp_path / "a.nii")
    times = [frame.time for frame in iterate_frames(tmp_path / "a.nii")]
    assert times == pytest.approx([0] * 5 + [20] * 5)


@pytest.mark.parametrize(
    "changes", [{"scl_slope": np.inf}, {"qform_code": 1, "quatern_b": 5}, {"pixdim": [1, 0, np.nan, 1, 1, 1, 1, 1]}]
)
@pytest.mark.filterwarnings("ignore::monai_fetalkd.ultrasound.frames.FrameWarning")
def test_attributes_of_nifti_that_cannot_be_used_cost_no_frame(write, changes):
    path = write(nifti(**{"sform_code": 0, **changes}), "a.nii")
    np.testing.assert_array_equal(read_frame(path).pixels, GREY)


@pytest.mark.parametrize("content", [b"text", bytes(128) + b"DICM" + bytes(300)])
def test_what_is_compressed_and_no_nifti_is_told_to_be_decompressed(write, content):
    with pytest.raises(FrameError, match="decompress it") as caught:
        read_frame(write(gzip.compress(content), "a.dcm.gz"))
    assert "damaged" not in caught.value.reason


def test_a_small_file_does_not_become_gigabytes(write):
    voxels = nifti(dim=[3, 4000, 4000, 60, 1, 1, 1, 1])
    for name, content in (
        ("a.nii.gz", gzip.compress(voxels)),
        ("a.mha", header(DimSize="4000 4000 60", CompressedData=True) + LOCAL + bytes(99)),
    ):
        with pytest.raises(FrameError, match="960,000,000 bytes, 134,217,728 are the most"):
            read_frame(write(content, name), 0)
