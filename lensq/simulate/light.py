"""Building blocks of a scene: points, Sersic galaxies, spirals, mergers and lensed arcs.

Everything is a GalSim object with flux in counts at the survey's zero point and positions in arcsec,
before the PSF. Profiles are made once at unit size and then transformed in one step, and accuracy
parameters are not propagated again through each composition: both are what makes GalSim fast here.
"""

from dataclasses import dataclass

import galsim
import numpy as np
from lenstronomy.LightModel.light_model import LightModel

from lensq.simulate.lens_equation import ray_shooting
from lensq.simulate.parameters import INSTRUMENT, LIGHT, SHAPES
from lensq.simulate.population import LensedQuasar

ACCURACY = galsim.GSParams(folding_threshold=1e-2, maximum_fft_size=16384)
QUICK: dict = {"gsparams": ACCURACY, "propagate_gsparams": False}
_INDICES = np.array([0.5, 0.8, 1, 1.3, 1.6, 2, 2.5, 3, 3.5, 4, 4.5, 5])
_SERSIC = [galsim.Sersic(n=n, half_light_radius=1.0, trunc=6.0, gsparams=ACCURACY) for n in _INDICES]
_POINT = galsim.DeltaFunction(gsparams=ACCURACY)
_GAUSSIAN = galsim.Gaussian(sigma=1.0, gsparams=ACCURACY)
_HALF_LIGHT = np.sqrt(2 * np.log(2))  # half-light radius of that Gaussian
_SERSIC_SOURCE = LightModel(["SERSIC_ELLIPSE"])


@dataclass(frozen=True)
class Galaxy:
    """A galaxy with the shape that was drawn for it.

    Attributes:
        light: the GalSim object.
        radius: half-light radius at the geometric mean of the axes, arcsec; of the disk where there is one.
        axis_ratio: minor over major axis.
        angle: of the major axis, radians from x towards y, 0 to pi.
        kind: whose spectrum it has; see `lensq.simulate.colours`.
    """

    light: galsim.GSObject
    radius: float
    axis_ratio: float
    angle: float
    kind: str = "late"

    def truth(self, prefix: str) -> dict[str, float]:
        """The shape as columns of the truth table, each with the prefix."""
        shape = {"radius": self.radius, "ellipticity": 1 - self.axis_ratio, "angle": self.angle}
        return {f"{prefix}_{name}": float(value) for name, value in shape.items()}


def counts(magnitude):
    """Counts of an i magnitude."""
    return 10 ** (-0.4 * (np.asarray(magnitude) - INSTRUMENT.zero_point))


def magnitude(flux):
    """i magnitude of a flux in counts."""
    return INSTRUMENT.zero_point - 2.5 * np.log10(flux)


def add(parts: list[galsim.GSObject]) -> galsim.GSObject:
    """The sum of objects that have the accuracy of this module already."""
    return galsim.Add(parts, **QUICK)


def _place(unit, flux, size=1.0, axis_ratio=1.0, angle=0.0, x=0.0, y=0.0) -> galsim.GSObject:
    """A unit profile with this flux and size, of this elongation at constant area, at (x, y)."""
    along, across = size / np.sqrt(axis_ratio), size * np.sqrt(axis_ratio)
    c, s = np.cos(angle), np.sin(angle)
    mixed = (along - across) * c * s
    jacobian = [along * c * c + across * s * s, mixed, mixed, along * s * s + across * c * c]
    return scaled(unit, float(flux) / size**2, x, y, jacobian)


def scaled(part: galsim.GSObject, factor, x=0.0, y=0.0, jacobian=None) -> galsim.GSObject:
    """An object with `factor` times the flux, moved by (x, y), distorted before by a `jacobian`."""
    offset = galsim.PositionD(float(x), float(y))
    return galsim.Transform(part, jac=jacobian, offset=offset, flux_ratio=float(factor), **QUICK)


def point(mag: float, x: float = 0.0, y: float = 0.0) -> galsim.GSObject:
    """A star or quasar."""
    return _place(_POINT, counts(mag), x=x, y=y)


def gaussian(flux: float, sigma: float, x: float = 0.0, y: float = 0.0) -> galsim.GSObject:
    """A round clump."""
    return _place(_GAUSSIAN, flux, sigma, x=x, y=y)


def sersic(mag, radius, index, axis_ratio, angle, x=0.0, y=0.0) -> galsim.GSObject:
    """A Sersic profile cut at six half-light radii; the index is rounded to the tabulated ones."""
    unit = _SERSIC[int(np.argmin(np.abs(_INDICES - index)))]
    return _place(unit, counts(mag), radius, float(np.clip(axis_ratio, 0.15, 1)), angle, x, y)


def draw_magnitude(rng: np.random.Generator, low: float, high: float, slope: float) -> float:
    """Draw from number counts that rise as 10^(slope m) between `low` and `high`."""
    a, b = 10 ** (slope * low), 10 ** (slope * high)
    return float(np.log10(a + rng.random() * (b - a)) / slope)


def galaxy_radius(mag: float, rng: np.random.Generator, early: bool) -> float:
    """Half-light radius in arcsec of a galaxy of the field."""
    centre = LIGHT.early_size if early else LIGHT.late_size
    log_radius = np.log10(centre) + LIGHT.size_slope * (mag - 21) + rng.normal(0, LIGHT.size_scatter)
    return float(np.clip(10**log_radius, 0.12, 2.6))


def elliptical(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> Galaxy:
    """An early-type galaxy."""
    radius, index = galaxy_radius(mag, rng, early=True), rng.normal(*SHAPES.elliptical_index)
    q, angle = rng.uniform(*SHAPES.elliptical_axis_ratio), rng.uniform(0, np.pi)
    return Galaxy(sersic(mag, radius, index, q, angle, x, y), radius, q, angle, "early")


def disk(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> Galaxy:
    """An exponential disk, seen at any inclination, with a bulge."""
    bulge = rng.beta(*SHAPES.disk_bulge)
    radius = galaxy_radius(mag, rng, early=False)
    angle = rng.uniform(0, np.pi)
    q = np.sqrt(rng.uniform(0.04, 1))
    outer = sersic(mag - 2.5 * np.log10(1 - bulge), radius, 1, q, angle, x, y)
    inner = sersic(mag - 2.5 * np.log10(bulge + 1e-6), 0.3 * radius, 2.5, max(q, 0.6), angle, x, y)
    return Galaxy(add([outer, inner]), radius, float(q), angle)


def galaxy(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> Galaxy:
    """A galaxy of the field, early or late."""
    early = rng.random() < LIGHT.early_share
    return elliptical(mag, rng, x, y) if early else disk(mag, rng, x, y)


def faint_galaxy(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> Galaxy:
    """A galaxy so faint that only its size is seen: a Gaussian of the same half-light radius."""
    early = rng.random() < LIGHT.early_share
    radius = galaxy_radius(mag, rng, early)
    q, angle = float(np.sqrt(rng.uniform(0.1, 1))), rng.uniform(0, np.pi)
    light = _place(_GAUSSIAN, counts(mag), radius / _HALF_LIGHT, q, angle, x, y)
    return Galaxy(light, radius, q, angle, "early" if early else "late")


def host(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> Galaxy:
    """The host galaxy of a quasar."""
    at_21, slope, scatter = LIGHT.host_size
    radius = np.clip(at_21 * 10 ** (slope * (mag - 21) + rng.normal(0, scatter)), 0.1, 3.0)
    index, q = rng.uniform(*SHAPES.host_index), rng.uniform(*SHAPES.host_axis_ratio)
    angle = rng.uniform(0, np.pi)
    return Galaxy(sersic(mag, radius, index, q, angle, x, y), float(radius), q, angle, "host")


def spiral(mag: float, rng: np.random.Generator) -> Galaxy:
    """A disk with two or three logarithmic arms, drawn as chains of Gaussians."""
    flux = float(counts(mag))
    radius = max(galaxy_radius(mag, rng, early=False), 0.8) * rng.uniform(1.0, 1.6)
    arms, bulge = rng.uniform(*SHAPES.spiral_arms), rng.uniform(*SHAPES.spiral_bulge)
    pitch, start = np.radians(rng.uniform(*SHAPES.spiral_pitch)), rng.uniform(0, 2 * np.pi)
    n_arms, per_arm = rng.choice([2, 2, 2, 3]), 11
    theta = np.tile(np.linspace(0, 4.2, per_arm), n_arms)
    phase = np.repeat(2 * np.pi * np.arange(n_arms) / n_arms, per_arm) + start
    r = 0.35 * radius * np.exp(np.tan(pitch) * theta) * rng.normal(1, 0.05, len(theta))
    weight = np.exp(-r / radius / 1.2) * (r + 0.2 * radius) * rng.lognormal(0, 0.4, len(theta))
    weight *= arms * flux / weight.sum()
    x, y = r * np.cos(theta + phase), r * np.sin(theta + phase)
    parts = [gaussian(*knot) for knot in zip(weight, 0.1 * radius + 0.09 * r, x, y, strict=True)]
    parts.append(sersic(magnitude(flux * (1 - arms - bulge)), radius, 1, 1, 0))
    parts.append(sersic(magnitude(flux * bulge), 0.2 * radius, 2, 1, 0))
    q, angle = rng.uniform(0.45, 1), rng.uniform(0, np.pi)
    return Galaxy(_inclined(add(parts), q, angle), radius, q, angle)


def clumpy(mag: float, rng: np.random.Generator) -> Galaxy:
    """An irregular galaxy: a faint disk and a handful of knots."""
    flux = float(counts(mag))
    radius = 1.2 * max(galaxy_radius(mag, rng, early=False), 0.4)
    share = rng.uniform(*SHAPES.clump_light)
    q, angle = rng.uniform(0.35, 1), rng.uniform(0, np.pi)
    base = sersic(magnitude(flux * (1 - share)), radius, 1, q, angle, *rng.normal(0, 0.15 * radius, 2))
    weights = rng.dirichlet(np.full(rng.integers(*SHAPES.clump_number), 1.2)) * share * flux
    knots = [gaussian(w, rng.uniform(*SHAPES.clump_width), *rng.normal(0, 0.9 * radius, 2)) for w in weights]
    clumps = _inclined(add(knots), rng.uniform(0.3, 1), rng.uniform(0, np.pi))
    return Galaxy(add([base, clumps]), radius, q, angle, "irregular")


def _inclined(part: galsim.GSObject, axis_ratio: float, angle: float) -> galsim.GSObject:
    return part.shear(q=float(axis_ratio), beta=angle * galsim.radians)


def tidal_arm(flux: float, rng: np.random.Generator) -> list[galsim.GSObject]:
    """A curved tail of `flux` counts around the origin."""
    n, start = rng.integers(6, 14), rng.uniform(0, 2 * np.pi)
    reach, turn = rng.uniform(1, 2.5), rng.choice([-1, 1])
    t = np.arange(n) / n
    weight = (1.4 - t) / np.sum(1.4 - t) * flux
    angle, r = start + turn * 1.8 * t, reach * (0.4 + t)
    x, y = r * np.cos(angle), r * np.sin(angle)
    return [gaussian(*knot) for knot in zip(weight, 0.22 + 0.15 * t, x, y, strict=True)]


def arcs(lens: LensedQuasar, host_magnitude: float, rng: np.random.Generator) -> Galaxy:
    """The quasar's host galaxy, lensed: ray-traced on a grid of 0.08 arcsec.

    `host_magnitude` and the shape are intrinsic; the light is the magnified one.
    """
    n, step = 100, 0.08
    axis = (np.arange(n) - (n - 1) / 2) * step
    x, y = np.meshgrid(axis, axis)
    source_x, source_y = ray_shooting(x.ravel(), y.ravel(), lens.lens)
    q, angle = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
    modulus = (1 - q) / (1 + q)
    profile = {"R_sersic": rng.uniform(*LIGHT.host_arc_size), "n_sersic": 1.0}
    profile |= {"e1": modulus * np.cos(2 * angle), "e2": modulus * np.sin(2 * angle)}
    profile |= {"center_x": lens.source_x, "center_y": lens.source_y}
    amplitude = counts(host_magnitude) / _SERSIC_SOURCE.total_flux([{"amp": 1.0, **profile}])[0]
    light = _SERSIC_SOURCE.surface_brightness(source_x, source_y, [{"amp": amplitude, **profile}])
    image = galsim.Image(light.reshape(n, n) * step**2, scale=step)
    lensed = galsim.InterpolatedImage(
        image,
        x_interpolant="linear",
        flux=float(image.array.sum()),
        normalization="flux",
        calculate_stepk=False,  # the PSF limits the resolution, not these
        calculate_maxk=False,
        gsparams=ACCURACY,
    )
    return Galaxy(lensed, profile["R_sersic"], q, angle, "host")
