"""Which kind of file it is: by its content, with its name as a witness."""

from __future__ import annotations

from pathlib import Path

from .frame import FrameError

__all__ = ["HEAD", "SUFFIXES", "UNKNOWN", "check_name", "sniff", "unsupported"]

HEAD = 352
"""How many bytes of a file ``sniff`` needs, which is the header of NIfTI-1."""

UNKNOWN = "it is neither a picture (PNG, JPEG, BMP, TIFF, GIF) nor DICOM, NIfTI or MetaImage"
"""Why a file of no kind at all is not read."""

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}

_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",  # BigTIFF
    b"MM\x00+": "TIFF",
    b"GIF8": "GIF",
    b"ObjectType": "MetaImage",
    b"NDims": "MetaImage",
    b"\x1f\x8b": "NIfTI",
    b"\x1c\x02\x00\x00n+2": "NIfTI",
    b"\x00\x00\x02\x1cn+2": "NIfTI",
}
# DICOM files without preamble begin with the group 0002 or 0008, written little or big endian, and a small element
_DICOM_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")

# what is met in folders of frames and not read: where its mark stands, the mark, what it is
_OTHERS = (
    (8, b"WEBP", "WebP"),
    *((4, b"ftyp" + brand, "HEIF (HEIC)") for brand in (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"NRRD", "NRRD"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"MATLAB", "MATLAB"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!", "RAR"),
    (257, b"ustar", "tar"),
)


def sniff(head: bytes) -> str | None:
    """The kind of a file, one of the values of ``SUFFIXES``, or None for none of them.

    Args:
        head: its first ``HEAD`` bytes.

    Example:
        >>> sniff(b"GIF89a"), sniff(b"image,label")
        ('GIF', None)
    """
    # a preamble may pose as another kind: a DICOM file that is a TIFF too is read as DICOM
    if head[128:132] == b"DICM" or (head[:2] in _DICOM_GROUPS and len(head) > 8 and b"\x00" in head[2:4]):
        return "DICOM"
    if head[344:347] in (b"n+1", b"ni1"):
        return "NIfTI"
    return next((kind for beginning, kind in _BEGINNINGS.items() if head.startswith(beginning)), None)


def unsupported(head: bytes) -> str | None:
    """Why a file of no known kind is not read, where its kind can be named: it is not damaged, only not supported.

    Args:
        head: its first ``HEAD`` bytes.

    Returns:
        The end of a sentence; None where its kind is not known either.

    Example:
        >>> unsupported(b"%PDF-1.4")
        'PDF is not supported: convert its frames to PNG'
    """
    for place, mark, name in _OTHERS:
        if head.startswith(mark, place):
            return f"{name} is not supported: convert its frames to PNG"
    return None


def check_name(path: str, kind: str) -> None:
    """Refuse a file whose name says that it is of another kind, since other programs will stumble on it.

    Raises:
        FrameError: when the suffix is known and belongs to another kind.
    """
    suffix = _suffix(path)
    if SUFFIXES.get(suffix, kind) != kind:
        raise FrameError(path, f"it is a {kind} file but its name ends in {suffix}: rename it")


def _suffix(path: str) -> str:
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
