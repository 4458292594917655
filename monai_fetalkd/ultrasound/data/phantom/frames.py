"""One frame of the phantom: a patient, a scanner set for her, and a plane met well or badly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from monai_fetalkd.ultrasound.data.phantom.anatomy import PLANES, limb_bundle
from monai_fetalkd.ultrasound.data.phantom.imaging import Scanner, beam_points, compress, receive, scan_convert
from monai_fetalkd.ultrasound.data.phantom.scene import AMNIOTIC_FLUID, BONE, FAT, MUSCLE, SKIN, SOFT_TISSUE, Scene

__all__ = ["PLANE_NAMES", "Patient", "phantom_frame", "phantom_scene"]

PLANE_NAMES = ("Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax", "Maternal cervix", "Other")

_WEEKS = (18, 20, 24, 28, 32, 36, 40)
# mean biparietal diameter, abdominal circumference and femur length in mm at these weeks, rounded, after Hadlock,
# Deter, Harrist and Park, Radiology 152(2), 497-501, 1984
_BIPARIETAL = np.array((41, 47, 59, 71, 81, 90, 96))
_ABDOMINAL = np.array((126, 150, 195, 238, 278, 320, 355))
_FEMORAL = np.array((27, 33, 43, 53, 62, 69, 75))
_CEPHALIC_INDEX = 0.79  # biparietal over occipitofrontal diameter
_SCALES = {
    "head": _BIPARIETAL / _CEPHALIC_INDEX / 2,
    "trunk": _ABDOMINAL / (2 * np.pi),
    "femur": _FEMORAL / 2,
    "adult": np.full(len(_WEEKS), 10.0),
}


@dataclass(frozen=True)
class Patient:
    """What all frames of one examination share, whatever plane they show.

    Args:
        age: gestational age in weeks.
        wall: maternal wall between probe and womb in mm.
        contrast: factor on the differences of backscatter between tissues, low in patients who are hard to scan.
        mottle: standard deviation of the backscatter within one tissue in dB.
        scanner: probe and settings. Depth and reverberation are set anew for each frame.
    """

    age: float
    wall: float
    contrast: float
    mottle: float
    scanner: Scanner

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """A random patient on a random scanner."""
        return cls(
            age=rng.uniform(18, 38),
            wall=rng.uniform(6, 22),
            contrast=rng.uniform(0.75, 1.0),
            mottle=rng.uniform(0.5, 2.5),
            scanner=Scanner(
                frequency=rng.uniform(2.5, 5.0),
                radius=rng.uniform(12, 60),
                sector=rng.uniform(55, 90),
                aperture=rng.uniform(14, 26),
                time_gain=rng.uniform(0.85, 1.0),
                gain=rng.uniform(-6, 8),
                dynamic_range=rng.uniform(45, 70),
                noise=rng.uniform(-95, -70),
                clutter=rng.uniform(-40, -20),
            ),
        )

    def length(self, scale: str) -> float:
        """A measure of the fetus.

        Args:
            scale: one of the scales of :class:`~monai_fetalkd.ultrasound.data.phantom.anatomy.Part`.

        Returns:
            Its length in mm at this gestational age.
        """
        return float(np.interp(self.age, _WEEKS, _SCALES[scale]))


def phantom_scene(
    plane: int, rng: np.random.Generator, size: int = 96, patient: Patient | None = None
) -> tuple[Scene, Scanner]:
    """What lies under the probe in one frame, and the scanner that looks at it.

    Args:
        plane: class of the frame, 0 to 5 in the order of :data:`PLANE_NAMES`.
        rng: source of pose, anatomy and disturbances.
        size: side of the frame in pixels.
        patient: whose frame it is; a random one by default.

    Returns:
        The tissue maps over the points of the beams, and the scanner set for this plane.

    Raises:
        ValueError: when there is no such plane or `size` is too small to show one.
    """
    if not 0 <= plane < len(PLANES):
        raise ValueError(f"plane is {plane}, but the planes are 0 to {len(PLANES) - 1}: {', '.join(PLANE_NAMES)}.")
    if size < 16:
        raise ValueError(f"size is {size}, but a frame needs at least 16 pixels a side.")
    patient = Patient.draw(rng) if patient is None else patient
    part = PLANES[plane][rng.integers(len(PLANES[plane]))]
    radius = part.size * patient.length(part.scale)
    zoom = rng.uniform(1.0, 1.4)
    scanner = replace(
        patient.scanner,
        depth=patient.wall + 2 * zoom * radius,
        gain=patient.scanner.gain + rng.normal(0, 2),
        reverberation=patient.wall * rng.uniform(0.5, 1.2),
    )
    x, z = beam_points(scanner, size)
    scene = Scene(x, z, SOFT_TISSUE)
    centre = (radius * rng.normal(0, 0.2), patient.wall + radius * rng.uniform(0.8, 2 * zoom - 0.8))
    fetal = part.scale != "adult"
    if fetal and rng.random() < 0.8:
        _womb(scene, centre, radius, rng)
    _wall(scene, scanner, patient.wall)
    backwards, upside_down = rng.random() < 0.5, fetal and rng.random() < 0.5
    angle = rng.uniform(-part.tilt, part.tilt) + 180 * backwards
    body = scene.body(centre, radius, angle, mirrored=backwards != upside_down).bent(rng, 0.04)
    clarity = 1 - rng.beta(0.5, 3.0)  # most planes are met well, few hardly at all
    part.draw(body, rng, clarity)
    if rng.random() < 0.15:
        _obstacle(scene, scanner, patient.wall, rng)
    scene.backscatter *= patient.contrast
    scene.backscatter += patient.mottle * _waves(scene, rng)
    return scene, scanner


def phantom_frame(
    plane: int, rng: np.random.Generator | int, size: int = 96, patient: Patient | None = None
) -> np.ndarray:
    """One B-mode frame of a plane, synthetic from first to last: for trying and testing, not clinical.

    Args:
        plane: class of the frame, 0 to 5 in the order of :data:`PLANE_NAMES`.
        rng: random generator, or a seed. The same seed gives the same pixels.
        size: side of the frame in pixels.
        patient: whose frame it is; a random one by default.

    Returns:
        Grey levels, uint8 [size, size], depth downwards, 0 outside the sector.

    Raises:
        ValueError: when there is no such plane or `size` is too small to show one.

    Example:
        >>> frame = phantom_frame(1, rng=0, size=64)
        >>> frame.shape, frame.dtype, bool((frame == phantom_frame(1, rng=0, size=64)).all())
        ((64, 64), dtype('uint8'), True)
    """
    rng = np.random.default_rng(rng)
    scene, scanner = phantom_scene(plane, rng, size, patient)
    return scan_convert(compress(receive(scene, scanner, rng), scanner), scanner, size)


def _womb(scene: Scene, centre: tuple[float, float], radius: float, rng: np.random.Generator) -> None:
    """Amniotic fluid around the part, and sometimes limbs in it that are not what the frame is about."""
    pocket = scene.body(centre, radius).bent(rng, 0.15)
    outline = pocket.ellipse(
        (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4)), (rng.uniform(1.0, 1.9), rng.uniform(1.0, 1.6))
    )
    scene.paint(outline < 1, AMNIOTIC_FLUID)
    if rng.random() < 0.35:
        limbs = pocket.part((rng.choice((-1, 1)) * rng.uniform(1.2, 1.5), rng.uniform(-0.8, 0.8)), 0.5)
        limb_bundle(limbs, rng, clarity=1.0)


def _wall(scene: Scene, scanner: Scanner, thickness: float) -> None:
    """Skin, fat and muscle of the mother, pressed to the face of the probe."""
    depth = np.hypot(scene.x, scene.z + scanner.radius) - scanner.radius
    scene.paint(depth < thickness, MUSCLE)
    scene.paint(depth < 0.6 * thickness, FAT)
    scene.paint(depth < 2.0, SKIN)


def _obstacle(scene: Scene, scanner: Scanner, depth: float, rng: np.random.Generator) -> None:
    """A bone or a bubble of gas in front of the part, which throws it into shadow."""
    bearing = math.radians(scanner.sector) * rng.uniform(-0.45, 0.45)
    reach = scanner.radius + 0.9 * depth
    obstacle = scene.body((reach * math.sin(bearing), reach * math.cos(bearing) - scanner.radius), radius=1.0)
    scene.paint(obstacle.ellipse((0, 0), (rng.uniform(3, 9), 2.0)) < 1, BONE, rng.uniform(0.3, 1.0))


def _waves(scene: Scene, rng: np.random.Generator, count: int = 6) -> np.ndarray:
    """A smooth random field of unit variance with structures of about 5 to 30 mm."""
    field = np.zeros_like(scene.backscatter)
    for _ in range(count):
        wave_number, bearing, phase = math.tau / rng.uniform(5, 30), rng.uniform(0, math.tau), rng.uniform(0, math.tau)
        field += np.sin(wave_number * (math.cos(bearing) * scene.x + math.sin(bearing) * scene.z) + phase)
    return field * math.sqrt(2 / count)
