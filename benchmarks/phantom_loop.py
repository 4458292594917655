"""Write a cine loop of the phantom as DICOM: an examination that passes from plane to plane.

python benchmarks/phantom_loop.py loop.dcm

It shows each of the six planes for two seconds, at 25 frames a second, the probe held almost still, and moves on in
half a second, through frames that show no plane well. The frames are compressed as JPEG, as scanners do it. They are
drawings, not patients.
"""

from __future__ import annotations

import argparse
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, UltrasoundMultiFrameImageStorage, generate_uid
from scipy import ndimage

from monai_fetalkd.ultrasound.data.phantom import PLANE_NAMES, Patient, phantom_frame

FPS = 25
HELD, MOVED = 50, 12  # frames of a plane, frames on the way to the next


def loop_frames(size: int, seed: int) -> np.ndarray:
    """The frames of the examination.

    Args:
        size: side of a frame in pixels.
        seed: of patient and planes.

    Returns:
        Grey levels, uint8 of shape (frames, size, size).
    """
    rng = np.random.default_rng(seed)
    patient = Patient.draw(rng)
    planes = [phantom_frame(plane, rng, size, patient).astype(np.float32) for plane in range(len(PLANE_NAMES))]
    frames = []
    for number, plane in enumerate(planes):
        following = planes[min(number + 1, len(planes) - 1)]
        for step in range(HELD + MOVED):
            share = max(0, step + 1 - HELD) / (MOVED + 1)
            frame = (1 - share) * plane + share * following
            drift = size / 100 * np.sin(2 * np.pi * np.array([step / 40, step / 25]))
            frame = ndimage.shift(frame, drift, order=1, mode="constant")
            frames.append(frame + (frame > 0) * rng.normal(0, 3, frame.shape))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def cine(frames: np.ndarray, fps: float = FPS) -> Dataset:
    """Frames as a DICOM file.

    Args:
        frames: grey levels, uint8 of shape (frames, height, width).
        fps: frames a second.

    Returns:
        The dataset, to be saved.
    """
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.Modality = "US"
    file.PatientName = "Phantom"
    file.NumberOfFrames, file.Rows, file.Columns = frames.shape
    file.FrameTime = 1000 / fps
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelData = encapsulate([jpeg(frame) for frame in frames])
    file["PixelData"].VR = "OB"
    file["PixelData"].is_undefined_length = True
    return file


def jpeg(frame: np.ndarray) -> bytes:
    """One frame, compressed."""
    stream = BytesIO()
    Image.fromarray(frame).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="FILE")
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS", help="side of a frame (256)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another patient (0)")
    arguments = parser.parse_args()
    frames = loop_frames(arguments.size, arguments.seed)
    cine(frames).save_as(arguments.output, enforce_file_format=True)
    print(f"{len(frames)} frames of {arguments.size} x {arguments.size} pixels in {arguments.output}")


if __name__ == "__main__":
    main()
