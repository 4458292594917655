"""From tissue maps to a B-mode frame: echoes along beams, then log compression and scan conversion.

What happens along a beam is a cumulative sum over depth in beam space, so shadows behind bone and enhancement behind
fluid need no rule of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from monai_fetalkd.ultrasound.data.phantom.scene import Scene

__all__ = ["SPEED_OF_SOUND", "Scanner", "beam_points", "compress", "receive", "scan_convert"]

SPEED_OF_SOUND = 1.54  # mm/us, the 1540 m/s that scanners assume for soft tissue
_PULSE_CYCLES = 2.0
_SPECULAR_GAIN = 26.0  # amplitude of a total reflector over the rms amplitude of soft tissue speckle
_WHITE_LEVEL = 24.0  # dB over soft tissue that shows as white at 0 dB gain
_REVERBERATION = 0.02  # amplitude of the first repetition between probe and wall
_FWHM = 2.355  # full width at half maximum of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Scanner:
    """A curved array and the knobs of its console.

    Args:
        frequency: centre frequency in MHz.
        depth: deepest point shown, in mm from the face of the probe.
        radius: radius of curvature of the probe in mm.
        sector: opening angle in degrees.
        aperture: active aperture in mm. The beam is about wavelength / aperture radians wide.
        time_gain: share of the loss with depth that the sliders make good, taken from the clearer beams.
        gain: receiver gain in dB.
        dynamic_range: dB between black and white.
        noise: electronic noise in dB relative to soft tissue speckle at the face of the probe.
        clutter: side lobes and multiple scattering, dB relative to the echoes they come from.
        reverberation: distance in mm at which echoes repeat themselves once between probe and wall.
    """

    frequency: float = 4.0
    depth: float = 110.0
    radius: float = 50.0
    sector: float = 70.0
    aperture: float = 16.0
    time_gain: float = 0.95
    gain: float = 0.0
    dynamic_range: float = 60.0
    noise: float = -70.0
    clutter: float = -30.0
    reverberation: float = 10.0

    @property
    def wavelength(self) -> float:
        """Wavelength in mm."""
        return SPEED_OF_SOUND / self.frequency

    @property
    def face(self) -> float:
        """Distance in mm from the centre of curvature to the outer elements' level, the top of the frame."""
        return self.radius * math.cos(math.radians(self.sector / 2))


def beam_points(scanner: Scanner, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples along every beam.

    Args:
        scanner: geometry.
        size: side of the frame in pixels. There is one beam a pixel and there are 1.5 samples a pixel.

    Returns:
        lateral position and depth in mm, float32 [samples, beams], depth 0 at the middle of the probe's face.

    Example:
        >>> x, z = beam_points(Scanner(depth=100.0, radius=50.0, sector=60.0), size=64)
        >>> x.shape, round(float(z.max())), round(float(np.hypot(x, z + 50.0).max()))
        ((96, 64), 100, 150)
    """
    angles = np.radians(np.linspace(-scanner.sector / 2, scanner.sector / 2, size, dtype=np.float32))
    ranges = scanner.radius + np.linspace(0.0, scanner.depth, size * 3 // 2, dtype=np.float32)[:, None]
    return ranges * np.sin(angles), ranges * np.cos(angles) - scanner.radius


def receive(scene: Scene, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    r"""Envelope of the echoes of a scene, after time-gain compensation.

    Scatterers are dense and random, so the baseband echo is circular complex noise times the backscatter amplitude,
    blurred by the pulse (axially) and the beam (laterally, a constant angle, so wider with depth): fully developed
    speckle with a Rayleigh envelope. Interfaces add a coherent echo :math:`\tfrac12 |\partial_r \ln Z|\,dr`, the
    reflection coefficient of a small step of impedance, which is why walls along the beam drop out. Both lose
    :math:`2 f \int_0^r \alpha\,dr` dB on the way.

    Args:
        scene: tissue maps over the points of :func:`beam_points`.
        scanner: frequency, aperture and gains.
        rng: source of the scatterers and the noise.

    Returns:
        linear envelope, 1 = rms amplitude of unattenuated soft tissue, float [samples, beams].

    References:
        Wagner, R. F., Smith, S. W., Sandrik, J. M., Lopez, H. Statistics of speckle in ultrasound B-scans.
        IEEE Transactions on Sonics and Ultrasonics 30(3), 156-163, 1983.

        Jensen, J. A. Field: a program for simulating ultrasound systems. Medical and Biological Engineering and
        Computing 34(Suppl. 1), 351-353, 1996 (the idea of scatterers weighted by a map).
    """
    samples, beams = len(scene.backscatter), len(scene.backscatter[0])
    step = scanner.depth / (samples - 1)
    pitch = math.radians(scanner.sector) / (beams - 1)
    # standard deviations of pulse and beam in samples and beams; neither is sharper than the grid can show
    pulse = math.hypot(0.6, _PULSE_CYCLES * scanner.wavelength / 2 / _FWHM / step)
    beam = math.hypot(0.6, scanner.wavelength / scanner.aperture / _FWHM / pitch)

    scatterers = _complex_noise(rng, samples, beams) * 10 ** (scene.backscatter / 20)
    scatterers *= math.sqrt(4 * math.pi * pulse * beam)  # the Gaussian filter below takes this much of their amplitude
    log_impedance = np.log(scene.impedance)
    interfaces = _SPECULAR_GAIN / 2 * np.abs(np.diff(log_impedance, axis=0, prepend=log_impedance[:1]))
    loss = 2 * scanner.frequency * np.cumsum(scene.attenuation, axis=0) * step / 10
    loss = ndimage.gaussian_filter1d(loss, beam, axis=1)  # an obstacle narrower than the aperture casts half a shadow
    echo = (scatterers + interfaces) * 10 ** (-loss / 20)
    echo = ndimage.gaussian_filter(echo, (pulse, beam))
    echo += 10 ** (scanner.clutter / 20) * ndimage.uniform_filter1d(np.abs(echo), beams // 4, axis=1)
    delay = max(1, round(scanner.reverberation / step))
    echo[delay:] += _REVERBERATION * echo[:-delay]
    echo += 10 ** (scanner.noise / 20) * _complex_noise(rng, samples, beams)

    # a sonographer sets the sliders on the beams that get through, so that they are even and not white behind fluid
    sliders = scanner.time_gain * np.quantile(loss, 0.3, axis=1, keepdims=True)
    return np.abs(echo) * 10 ** (sliders / 20)


def compress(envelope: np.ndarray, scanner: Scanner) -> np.ndarray:
    r"""Log compression of an envelope: :math:`1 + (20 \log_{10} e + \text{gain} - 24) / \text{dynamic range}`, clipped.

    Args:
        envelope: linear envelope, 1 = soft tissue.
        scanner: gain and dynamic range.

    Returns:
        Grey levels from 0 to 1, same shape.

    Example:
        >>> compress(np.array([1e-9, 1.0, 1e9]), Scanner(gain=0.0, dynamic_range=60.0)).round(2).tolist()
        [0.0, 0.6, 1.0]
    """
    level = 20 * np.log10(np.maximum(envelope, 1e-12)) + scanner.gain - _WHITE_LEVEL
    return np.clip(1 + level / scanner.dynamic_range, 0.0, 1.0)


def scan_convert(beams: np.ndarray, scanner: Scanner, size: int) -> np.ndarray:
    """Resample beams onto the square frame of the screen, black outside the sector.

    The frame's height is the imaged depth. Sectors wider than that are cropped at the sides, as on a zoomed screen.

    Args:
        beams: grey levels from 0 to 1, [samples, beams].
        scanner: geometry.
        size: side of the frame in pixels.

    Returns:
        uint8 [size, size], depth downwards.
    """
    height = scanner.radius + scanner.depth - scanner.face
    pixel = height / size
    x = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * pixel
    z = scanner.face + (np.arange(size, dtype=np.float32)[:, None] + 0.5) * pixel
    sample = (np.hypot(x, z) - scanner.radius) / scanner.depth * (beams.shape[0] - 1)
    beam = (np.degrees(np.arctan2(x, z)) / scanner.sector + 0.5) * (beams.shape[1] - 1)
    frame = ndimage.map_coordinates(beams, np.stack([sample, beam]), order=1, cval=0.0)
    return np.round(255 * frame).astype(np.uint8)


def _complex_noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Circular complex Gaussian noise of unit power."""
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    return (parts[0] + 1j * parts[1]) / math.sqrt(2)
