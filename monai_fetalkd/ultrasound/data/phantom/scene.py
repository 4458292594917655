"""Tissue maps of a scan plane and the shapes that anatomy is painted with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

__all__ = [
    "AMNIOTIC_FLUID",
    "BLOOD",
    "BONE",
    "BRAIN",
    "CARTILAGE",
    "CERVIX",
    "FAT",
    "GLANDS",
    "LIVER",
    "LUNG",
    "MEMBRANE",
    "MUSCLE",
    "PLACENTA",
    "SKIN",
    "SKULL",
    "SOFT_TISSUE",
    "THALAMUS",
    "VERTEBRA",
    "Body",
    "Scene",
    "Tissue",
]

Point = tuple[float, float]


class Tissue(NamedTuple):
    """Acoustic properties of one tissue.

    Attenuation and impedance are rounded textbook values (Szabo 2014, appendix B), lowered for fetal bone, which is
    only partly mineralised. Backscatter is set by eye, from how bright a tissue looks beside liver.

    Args:
        backscatter: mean scattered level in dB relative to average soft tissue.
        attenuation: one-way attenuation in dB/cm/MHz.
        impedance: characteristic acoustic impedance in MRayl.

    References:
        Szabo, T. L. Diagnostic Ultrasound Imaging: Inside Out, 2nd ed., Academic Press, 2014.
    """

    backscatter: float
    attenuation: float
    impedance: float


AMNIOTIC_FLUID = Tissue(-45.0, 0.01, 1.52)
BLOOD = Tissue(-34.0, 0.18, 1.66)
SOFT_TISSUE = Tissue(0.0, 0.5, 1.63)
LIVER = Tissue(-3.0, 0.5, 1.65)
LUNG = Tissue(-1.0, 0.5, 1.65)
PLACENTA = Tissue(2.0, 0.5, 1.65)
CERVIX = Tissue(-10.0, 0.6, 1.64)
GLANDS = Tissue(-20.0, 0.6, 1.62)
BRAIN = Tissue(-13.0, 0.5, 1.58)
THALAMUS = Tissue(-20.0, 0.5, 1.58)
MUSCLE = Tissue(-9.0, 0.7, 1.68)
FAT = Tissue(-4.0, 0.5, 1.42)
SKIN = Tissue(8.0, 0.8, 1.75)
MEMBRANE = Tissue(12.0, 0.6, 1.72)
CARTILAGE = Tissue(-20.0, 0.8, 1.70)
SKULL = Tissue(20.0, 5.0, 3.0)
VERTEBRA = Tissue(22.0, 8.0, 3.0)
BONE = Tissue(26.0, 16.0, 3.8)


class Scene:
    """Tissue maps over the points of a scan plane, painted from back to front.

    Args:
        x: lateral position of every point in mm, 0 under the middle of the probe.
        z: depth of every point in mm below the middle of the probe, same shape as `x`.
        background: tissue everywhere until something is painted over it.

    Example:
        >>> x, z = np.meshgrid(np.linspace(-20, 20, 41), np.linspace(0, 40, 41))
        >>> scene = Scene(x, z, SOFT_TISSUE)
        >>> cyst = scene.body(centre=(0, 20), radius=5)
        >>> cyst.paint(cyst.ellipse((0, 0), (1, 1)) < 1, AMNIOTIC_FLUID)
        >>> float(scene.backscatter[20, 20]), float(scene.backscatter[0, 0])
        (-45.0, 0.0)
    """

    def __init__(self, x: np.ndarray, z: np.ndarray, background: Tissue) -> None:
        self.x, self.z = x, z
        self.backscatter, self.attenuation, self.impedance = (
            np.full(x.shape, value, dtype=np.float32) for value in background
        )

    def paint(self, where: np.ndarray, tissue: Tissue, opacity: float = 1.0) -> None:
        """Put a tissue at the points of a mask.

        Args:
            where: mask of the points, bool, same shape as `x`.
            tissue: what is there.
            opacity: share of the slice thickness that it fills, 0 to 1. Less than 1 is partial volume: an organ that
                the plane only grazes.
        """
        for values, value in zip((self.backscatter, self.attenuation, self.impedance), tissue, strict=True):
            values[where] += opacity * (value - values[where])

    def body(self, centre: Point, radius: float, angle: float = 0.0, mirrored: bool = False) -> Body:
        """Axes of a body part, see :meth:`Body.part`, with `centre` and `radius` in mm."""
        return Body(self, self.x, self.z).part(centre, radius, angle, mirrored)


@dataclass(frozen=True)
class Body:
    """A body part with its own axes, in which its organs have the same places whatever its size and pose.

    Shapes come back as levels: below 1 inside, 1 on the contour, above 1 outside.

    Args:
        scene: the maps to paint on.
        u: first coordinate of every point of the scene, in units of the part's radius.
        v: second coordinate, likewise.
    """

    scene: Scene
    u: np.ndarray
    v: np.ndarray

    def part(self, centre: Point, radius: float, angle: float = 0.0, mirrored: bool = False) -> Body:
        """Axes of a part of this part.

        Args:
            centre: its origin in these axes.
            radius: its unit length in units of these axes.
            angle: turn of its first axis in degrees, from the first towards the second axis.
            mirrored: whether its second axis is turned over, left for right.

        Returns:
            The part.
        """
        cosine, sine = math.cos(math.radians(angle)) / radius, math.sin(math.radians(angle)) / radius
        u, v = self.u - centre[0], self.v - centre[1]
        across = cosine * v - sine * u
        return Body(self.scene, cosine * u + sine * v, -across if mirrored else across)

    def bent(self, rng: np.random.Generator, amount: float) -> Body:
        """The same part with softly bent axes, as no living thing is an exact ellipse.

        Args:
            rng: source of the bends.
            amount: largest shift of a point, in units of the part's radius.

        Returns:
            The bent part.
        """
        shifts = []
        for _ in range(2):
            along, across, phase = rng.normal(0.0, 1.5), rng.normal(0.0, 1.5), rng.uniform(0.0, math.tau)
            shifts.append(amount * np.sin(along * self.u + across * self.v + phase))
        return Body(self.scene, self.u + shifts[0], self.v + shifts[1])

    def ellipse(self, centre: Point, semi_axes: Point, angle: float = 0.0) -> np.ndarray:
        """Level of an ellipse.

        Args:
            centre: its centre.
            semi_axes: its half diameters.
            angle: turn of its first axis in degrees.

        Returns:
            The level at every point, float32.
        """
        own = self.part(centre, 1.0, angle)
        return np.sqrt((own.u / semi_axes[0]) ** 2 + (own.v / semi_axes[1]) ** 2)

    def stroke(self, points: Sequence[Point], half_width: float) -> np.ndarray:
        """Level of a line drawn with a round pen.

        Args:
            points: corners of the line, two or more.
            half_width: radius of the pen.

        Returns:
            The level at every point, float32.
        """
        squared = np.full(self.u.shape, np.inf, dtype=np.float32)
        for (u0, v0), (u1, v1) in pairwise(points):
            du, dv = u1 - u0, v1 - v0
            along = np.clip(((self.u - u0) * du + (self.v - v0) * dv) / (du * du + dv * dv), 0.0, 1.0)
            np.minimum(squared, (self.u - u0 - along * du) ** 2 + (self.v - v0 - along * dv) ** 2, out=squared)
        return np.sqrt(squared) / half_width

    def paint(self, where: np.ndarray, tissue: Tissue, opacity: float = 1.0) -> None:
        """Put a tissue at the points of a mask, see :meth:`Scene.paint`."""
        self.scene.paint(where, tissue, opacity)
