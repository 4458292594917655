"""What each fetal plane shows, drawn in the axes of the body part it cuts.

Every function paints one plane on a :class:`Body` whose unit length is half the size of the part. `clarity`, 0 to 1, is
how well the plane is met: the organs that define it fade with it, as organs do that a slice only grazes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from monai_fetalkd.ultrasound.data.phantom.scene import (
    AMNIOTIC_FLUID,
    BLOOD,
    BONE,
    BRAIN,
    CARTILAGE,
    CERVIX,
    GLANDS,
    LIVER,
    LUNG,
    MEMBRANE,
    MUSCLE,
    PLACENTA,
    SKIN,
    SKULL,
    SOFT_TISSUE,
    THALAMUS,
    VERTEBRA,
    Body,
    Tissue,
)

__all__ = ["PLANES", "Part", "limb_bundle"]

Rng = np.random.Generator


class Part(NamedTuple):
    """One way to show a plane.

    Args:
        draw: paints it on a body, given a random generator and the clarity of the plane.
        size: unit length of the body in multiples of `scale`.
        scale: the measure that it grows with: ``"head"`` (half the occipitofrontal diameter), ``"trunk"`` (radius of
            the abdomen), ``"femur"`` (half the length of the shaft) or ``"adult"`` (10 mm at any age).
        tilt: largest turn of its first axis from the horizontal in degrees.
    """

    draw: Callable[[Body, Rng, float], None]
    size: float
    scale: str
    tilt: float


def abdomen(body: Body, rng: Rng, clarity: float) -> None:
    """Transverse abdomen: liver, stomach bubble, intrahepatic umbilical vein, spine, aorta."""
    _trunk(body, rng, LIVER, rib_opacity=rng.uniform(0.0, 0.35))
    vein = [(0.62, 0.0), (0.3, 0.0), (0.1, 0.1), (0.02, 0.26)]
    body.paint(body.stroke(vein, 0.11) < 1, MEMBRANE, 0.5 * clarity)
    body.paint(body.stroke(vein, 0.07) < 1, BLOOD, clarity)
    size = rng.uniform(0.7, 1.2)
    stomach = body.ellipse(
        (rng.uniform(-0.15, 0.1), -rng.uniform(0.42, 0.55)), (0.34 * size, 0.24 * size), rng.uniform(-40, 40)
    )
    body.paint(stomach < 1, AMNIOTIC_FLUID, clarity)


def thorax(body: Body, rng: Rng, clarity: float) -> None:
    """Four-chamber view: heart in the left chest with its apex to the front, lungs, ribs that cast shadows."""
    _trunk(body, rng, LUNG, rib_opacity=rng.uniform(0.5, 1.0))
    heart = body.part((0.12, -0.12), rng.uniform(0.5, 0.64), angle=-rng.uniform(25, 60))
    pericardium = heart.ellipse((0.0, 0.0), (1.0, 0.78))
    heart.paint(pericardium < 1.06, MEMBRANE, clarity)
    heart.paint(pericardium < 0.96, MUSCLE, clarity)
    systole = rng.uniform(0.85, 1.1)
    for side in (-1, 1):
        heart.paint(heart.ellipse((0.3, 0.29 * side), (0.46 * systole, 0.22 * systole), -16 * side) < 1, BLOOD, clarity)
        heart.paint(heart.ellipse((-0.5, 0.31 * side), (0.32 / systole, 0.26 / systole)) < 1, BLOOD, clarity)
    heart.paint(heart.stroke([(-0.85, 0.0), (0.9, 0.0)], 0.05) < 1, MEMBRANE, 0.6 * clarity)
    heart.paint(heart.stroke([(-0.16, -0.55), (-0.16, 0.55)], 0.04) < 1, MEMBRANE, 0.7 * clarity)


def brain(body: Body, rng: Rng, clarity: float) -> None:
    """Head at the level of thalami, ventricles or cerebellum: midline, cavum septi pellucidi, marks of the level."""
    _skull(body, rng)
    level = rng.integers(3)
    if level == 0:  # thalami
        for side in (-1, 1):
            body.paint(body.ellipse((-0.02, 0.13 * side), (0.22, 0.1), 20 * side) < 1, THALAMUS, clarity)
    elif level == 1:  # lateral ventricles with choroid plexus
        for side in (-1, 1):
            body.paint(body.ellipse((-0.38, 0.36 * side), (0.4, 0.14), -15 * side) < 1, AMNIOTIC_FLUID, 0.7 * clarity)
            body.paint(body.ellipse((-0.32, 0.34 * side), (0.27, 0.1), -15 * side) < 1, SOFT_TISSUE, clarity)
    else:  # cerebellum and cisterna magna
        body.paint(body.ellipse((-0.75, 0.0), (0.16, 0.34)) < 1, AMNIOTIC_FLUID, 0.8 * clarity)
        for side in (-1, 1):
            body.paint(body.ellipse((-0.6, 0.2 * side), (0.17, 0.21)) < 1, MEMBRANE, 0.6 * clarity)
            body.paint(body.ellipse((-0.6, 0.2 * side), (0.13, 0.17)) < 1, BRAIN, clarity)
    body.paint(body.stroke([(-0.45, 0.0), (0.92, 0.0)], 0.025) < 1, MEMBRANE, clarity)
    body.paint(body.ellipse((0.45, 0.0), (0.17, 0.1)) < 1, MEMBRANE, clarity)
    body.paint(body.ellipse((0.45, 0.0), (0.14, 0.065)) < 1, AMNIOTIC_FLUID, clarity)
    for side in (-1, 1):
        body.paint(body.stroke([(-0.15, 0.5 * side), (0.3, 0.46 * side)], 0.03) < 1, MEMBRANE, 0.6 * clarity)


def femur(body: Body, rng: Rng, clarity: float) -> None:
    """Thigh cut along the femur: one bowed shaft, its unossified ends, the shadow it casts."""
    _limb(body, [(-1.25, 0.1), (0.0, 0.0), (1.25, 0.1)], rng.uniform(0.45, 0.75))
    bow = rng.uniform(-0.04, 0.14)
    for end in (-1, 1):
        body.paint(body.ellipse((1.1 * end, 0.0), (0.17, 0.19)) < 1, CARTILAGE, clarity)
    _shaft(body, [(-1.0, 0.0), (-0.4, -bow), (0.4, -bow), (1.0, 0.0)], 0.055, 0.35 + 0.65 * clarity)


def cervix(body: Body, rng: Rng, clarity: float) -> None:
    """Sagittal cervix: canal between two lips, the amniotic sac with a fetal head at its inner end, bladder above."""
    funnel = rng.uniform(0.0, 0.5)
    bow = rng.uniform(-0.2, 0.2)
    canal = [(-0.75, 0.0), (-0.2, bow), (0.35, bow), (0.85, 0.0)]
    lips = body.stroke(canal, rng.uniform(0.38, 0.5))
    body.paint(lips < 1.1, MEMBRANE, 0.6)
    body.paint(lips < 1.0, CERVIX)
    sac = body.ellipse((-1.55, 0.15), (0.72, 0.95))
    body.paint(sac < 1.06, MEMBRANE, 0.6)
    body.paint(sac < 1.0, AMNIOTIC_FLUID)
    body.paint(body.stroke([(-0.95, 0.0), (-0.75 + funnel, 0.4 * bow)], 0.1) < 1, AMNIOTIC_FLUID, clarity)
    if rng.random() < 0.6:
        head = body.ellipse((-1.85, 0.2), (0.62, 0.7))
        body.paint(head < 1.0, SKULL, 0.8)
        body.paint(head < 0.9, BRAIN)
    body.paint(body.stroke(canal, 0.14) < 1, GLANDS, clarity)
    body.paint(body.stroke(canal, 0.05) < 1, MEMBRANE, clarity)
    if rng.random() < 0.7:
        bladder = body.ellipse((rng.uniform(-0.6, 0.0), -0.85), (rng.uniform(0.4, 0.7), rng.uniform(0.12, 0.28)), 8)
        body.paint(bladder < 1, AMNIOTIC_FLUID)


def limb_bundle(body: Body, rng: Rng, clarity: float) -> None:
    """Several limbs cut across: round sections with one or two bones each."""
    for _ in range(rng.integers(2, 5)):
        radius = rng.uniform(0.28, 0.45)
        limb = body.part((rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)), radius, rng.uniform(0, 360))
        outline = limb.ellipse((0.0, 0.0), (1.0, 0.85))
        limb.paint(outline < 1.0, SKIN)
        limb.paint(outline < 0.85, MUSCLE)
        for side in (-1, 1) if rng.random() < 0.5 else (0,):
            limb.paint(limb.ellipse((0.3 * side, 0.0), (0.17, 0.17)) < 1, BONE, clarity)


def forearm(body: Body, rng: Rng, clarity: float) -> None:
    """Forearm or lower leg cut along its two bones, of which one may leave the plane."""
    _limb(body, [(-1.25, 0.0), (1.25, 0.0)], rng.uniform(0.45, 0.65))
    gap = rng.uniform(0.18, 0.26)
    # half of the slice misses these thin bones, so the far one shows through the shadow of the near one
    _shaft(body, [(-0.95, -gap), (0.0, -gap - 0.03), (0.95, -gap)], 0.05, 0.4)
    _shaft(body, [(-0.8, gap), (0.0, gap + 0.03), (0.85, gap)], 0.05, 0.2 + 0.3 * clarity)


def profile(body: Body, rng: Rng, clarity: float) -> None:
    """Sagittal face: forehead, nasal bone, lips and chin against amniotic fluid."""
    brow = body.ellipse((-0.45, -0.35), (0.85, 0.8))
    face = body.stroke([(-0.35, 0.2), (0.1, 0.3), (-0.15, 0.75)], 0.38) < 1
    for bump, radius in (((0.52, 0.12), 0.15), ((0.45, 0.38), 0.1), ((0.4, 0.56), 0.09), ((0.2, 0.86), 0.17)):
        face |= body.ellipse(bump, (radius, radius)) < 1
    body.paint(face | (brow < 1), SOFT_TISSUE)
    body.paint((brow < 0.96) & (brow > 0.86) & (body.v < 0.1), SKULL, clarity)
    body.paint((brow < 0.86) & (body.v < 0.05), BRAIN, clarity)
    for bone in ([(0.38, 0.0), (0.5, 0.1)], [(0.05, 0.38), (0.32, 0.36)], [(-0.1, 0.72), (0.15, 0.78)]):
        _shaft(body, bone, 0.05, clarity)


def placenta(body: Body, rng: Rng, clarity: float) -> None:
    """Placenta on the wall of a fluid pocket, with loops of umbilical cord."""
    body.paint(body.ellipse((0.0, 0.1), (1.3, 1.0)) < 1, AMNIOTIC_FLUID)
    plate = [(-1.2, 0.75), (0.0, rng.uniform(0.4, 0.7)), (1.2, 0.75)]
    body.paint(body.stroke(plate, 0.42) < 1, MEMBRANE, 0.5)
    body.paint(body.stroke(plate, 0.38) < 1, PLACENTA)
    for _ in range(rng.integers(1, 4)):
        cord = body.part((rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.1)), 0.2, rng.uniform(0, 360))
        cord.paint(cord.ellipse((0.0, 0.0), (1.0, 1.0)) < 1, SOFT_TISSUE, clarity)
        cord.paint(cord.ellipse((0.35, 0.0), (0.4, 0.4)) < 1, BLOOD, clarity)
        for side in (-1, 1):
            cord.paint(cord.ellipse((-0.4, 0.4 * side), (0.25, 0.25)) < 1, BLOOD, clarity)


def vessel(body: Body, rng: Rng, clarity: float) -> None:
    """A maternal vessel cut lengthwise: a dark lumen between two bright walls."""
    course = [(-3.0, rng.uniform(-0.4, 0.4)), (0.0, rng.uniform(-0.2, 0.2)), (3.0, rng.uniform(-0.3, 0.3))]
    radius = rng.uniform(0.18, 0.34)
    body.paint(body.stroke(course, radius + 0.2) < 1, MUSCLE)
    body.paint(body.stroke(course, radius + 0.08) < 1, MEMBRANE, clarity)
    body.paint(body.stroke(course, radius) < 1, BLOOD, clarity)


def orbits(body: Body, rng: Rng, clarity: float) -> None:
    """Head at the level of the eyes: two round orbits instead of midline and cavum."""
    _skull(body, rng)
    for side in (-1, 1):
        orbit = body.ellipse((0.55, 0.34 * side), (0.24, 0.24))
        body.paint(orbit < 1.0, BONE, 0.6 * clarity)
        body.paint(orbit < 0.75, AMNIOTIC_FLUID, clarity)
        body.paint(body.stroke([(-0.1, 0.15 * side), (-0.5, 0.55 * side)], 0.06) < 1, SKULL, clarity)


def long_spine(body: Body, rng: Rng, clarity: float) -> None:
    """Trunk cut lengthwise: two rows of vertebral ossification centres and their shadows."""
    outline = body.ellipse((0.0, 0.15), (1.4, 0.6))
    body.paint(outline < 1.0, SKIN)
    body.paint(outline < 0.93, LIVER)
    pitch = rng.uniform(0.2, 0.26)
    for along in np.arange(-1.1, 1.1, pitch):
        for across in (-0.24, -0.06):
            vertebra = body.ellipse((along, across + 0.12 * along**2), (0.34 * pitch, 0.055))
            body.paint(vertebra < 1, VERTEBRA, clarity)


def _trunk(body: Body, rng: Rng, inside: Tissue, rib_opacity: float) -> None:
    """What abdomen and thorax have in common: a round wall with ribs, the spine at -u, the aorta in front of it."""
    outline = body.ellipse((0.0, 0.0), (1.0, rng.uniform(0.82, 1.0)))
    body.paint(outline < 1.05, SKIN)
    body.paint(outline < 0.99, MUSCLE)
    body.paint(outline < 0.86, inside)
    # ribs run obliquely through the slice, so it cuts each to an arc
    arcs = np.sin(rng.integers(3, 6) * np.arctan2(body.v, body.u) + rng.uniform(0, 2 * np.pi)) > 0.2
    body.paint((np.abs(outline - 0.91) < 0.04) & arcs, BONE, 0.5 * rib_opacity)
    for centre in ((-0.68, 0.0), (-0.86, -0.14), (-0.86, 0.14)):
        body.paint(body.ellipse(centre, (0.085, 0.075)) < 1, VERTEBRA)
    body.paint(body.ellipse((-0.46, -0.1), (0.08, 0.08)) < 1, BLOOD)


def _skull(body: Body, rng: Rng) -> None:
    """What every cut through the head has in common: scalp, skull and the dark brain in it."""
    outline = body.ellipse((0.0, 0.0), (1.0, rng.uniform(0.74, 0.88)))
    body.paint(outline < 1.06, SOFT_TISSUE)
    body.paint(outline < 1.0, SKULL, rng.uniform(0.6, 1.0))
    body.paint(outline < 0.93, BRAIN)


def _limb(body: Body, axis: Sequence[tuple[float, float]], half_width: float) -> None:
    outline = body.stroke(axis, half_width)
    body.paint(outline < 1.0, SKIN, 0.6)
    body.paint(outline < 0.92, MUSCLE)


def _shaft(body: Body, axis: Sequence[tuple[float, float]], half_width: float, opacity: float) -> None:
    body.paint(body.stroke(axis, half_width) < 1, BONE, opacity)


PLANES: tuple[tuple[Part, ...], ...] = (
    (Part(abdomen, 1.0, "trunk", 60),),
    (Part(brain, 1.0, "head", 45),),
    (Part(femur, 1.0, "femur", 40),),
    (Part(thorax, 0.9, "trunk", 60),),
    (Part(cervix, 2.0, "adult", 35),),
    (
        Part(limb_bundle, 1.0, "trunk", 180),
        Part(forearm, 0.9, "femur", 40),
        Part(profile, 1.0, "head", 60),
        Part(placenta, 1.0, "trunk", 180),
        Part(vessel, 2.0, "adult", 35),
        Part(orbits, 1.0, "head", 45),
        Part(long_spine, 1.0, "trunk", 35),
    ),
)
