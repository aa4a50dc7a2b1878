"""Building blocks of a scene: points, Sersic galaxies, spirals, mergers and lensed arcs.

Everything is a GalSim object with flux in counts at the survey's zero point and positions in arcsec,
before the PSF. Profiles are made once at unit size and then dilated, which is what makes GalSim fast.
"""

import galsim
import numpy as np
from lenstronomy.LightModel.light_model import LightModel

from lensq.simulate.lens_equation import ray_shooting
from lensq.simulate.parameters import INSTRUMENT, LIGHT
from lensq.simulate.population import LensedQuasar

ACCURACY = galsim.GSParams(folding_threshold=1e-2, maximum_fft_size=16384)
_INDICES = np.array([0.5, 0.8, 1, 1.3, 1.6, 2, 2.5, 3, 3.5, 4, 4.5, 5])
_SERSIC = [galsim.Sersic(n=n, half_light_radius=1.0, trunc=6.0, gsparams=ACCURACY) for n in _INDICES]
_SERSIC_SOURCE = LightModel(["SERSIC_ELLIPSE"])


def counts(magnitude):
    """Counts of an i magnitude."""
    return 10 ** (-0.4 * (np.asarray(magnitude) - INSTRUMENT.zero_point))


def magnitude(flux):
    """i magnitude of a flux in counts."""
    return INSTRUMENT.zero_point - 2.5 * np.log10(flux)


def draw_magnitude(rng: np.random.Generator, low: float, high: float, slope: float) -> float:
    """Draw from number counts that rise as 10^(slope m) between `low` and `high`."""
    a, b = 10 ** (slope * low), 10 ** (slope * high)
    return float(np.log10(a + rng.random() * (b - a)) / slope)


def point(mag: float, x: float = 0.0, y: float = 0.0) -> galsim.GSObject:
    """A star or quasar."""
    return galsim.DeltaFunction(flux=float(counts(mag))).shift(float(x), float(y))


def sersic(mag, radius, index, axis_ratio, angle, x=0.0, y=0.0) -> galsim.GSObject:
    """A Sersic profile cut at six half-light radii; the index is rounded to the tabulated ones."""
    unit = _SERSIC[int(np.argmin(np.abs(_INDICES - index)))]
    profile = unit.dilate(float(radius)).withFlux(float(counts(mag)))
    return profile.shear(q=float(np.clip(axis_ratio, 0.15, 1)), beta=angle * galsim.radians).shift(
        float(x), float(y)
    )


def galaxy_radius(mag: float, rng: np.random.Generator, early: bool) -> float:
    """Half-light radius in arcsec of a galaxy of the field."""
    centre = LIGHT.early_size if early else LIGHT.late_size
    log_radius = np.log10(centre) + LIGHT.size_slope * (mag - 21) + rng.normal(0, LIGHT.size_scatter)
    return float(np.clip(10**log_radius, 0.12, 2.6))


def elliptical(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> galsim.GSObject:
    """An early-type galaxy."""
    return sersic(
        mag,
        galaxy_radius(mag, rng, early=True),
        rng.normal(3.7, 0.8),
        rng.uniform(0.5, 1),
        rng.uniform(0, np.pi),
        x,
        y,
    )


def disk(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> galsim.GSObject:
    """An exponential disk, seen at any inclination, with a bulge."""
    bulge = rng.beta(1.2, 4)
    radius = galaxy_radius(mag, rng, early=False)
    angle = rng.uniform(0, np.pi)
    q = np.sqrt(rng.uniform(0.04, 1))
    outer = sersic(mag - 2.5 * np.log10(1 - bulge), radius, 1, q, angle, x, y)
    inner = sersic(mag - 2.5 * np.log10(bulge + 1e-6), 0.3 * radius, 2.5, max(q, 0.6), angle, x, y)
    return outer + inner


def galaxy(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> galsim.GSObject:
    """A galaxy of the field: 35% early, 65% late."""
    return elliptical(mag, rng, x, y) if rng.random() < 0.35 else disk(mag, rng, x, y)


def host(mag: float, rng: np.random.Generator, x=0.0, y=0.0) -> galsim.GSObject:
    """The host galaxy of a quasar."""
    at_21, slope, scatter = LIGHT.host_size
    radius = np.clip(at_21 * 10 ** (slope * (mag - 21) + rng.normal(0, scatter)), 0.1, 3.0)
    return sersic(mag, radius, rng.uniform(1, 4), rng.uniform(0.55, 1), rng.uniform(0, np.pi), x, y)


def spiral(mag: float, rng: np.random.Generator) -> galsim.GSObject:
    """A disk with two or three logarithmic arms, drawn as chains of Gaussians."""
    flux = float(counts(mag))
    radius = max(galaxy_radius(mag, rng, early=False), 0.5) * rng.uniform(1.0, 1.6)
    arms, bulge = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.3)
    pitch, start = np.radians(rng.uniform(12, 28)), rng.uniform(0, 2 * np.pi)
    n_arms, per_arm = rng.choice([2, 2, 2, 3]), 11
    theta = np.tile(np.linspace(0, 4.2, per_arm), n_arms)
    phase = np.repeat(2 * np.pi * np.arange(n_arms) / n_arms, per_arm) + start
    r = 0.35 * radius * np.exp(np.tan(pitch) * theta) * rng.normal(1, 0.05, len(theta))
    weight = np.exp(-r / radius / 1.2) * (r + 0.2 * radius) * rng.lognormal(0, 0.4, len(theta))
    weight *= arms * flux / weight.sum()
    knots = [
        galsim.Gaussian(sigma=s, flux=w).shift(a, b)
        for s, w, a, b in zip(
            0.1 * radius + 0.09 * r, weight, r * np.cos(theta + phase), r * np.sin(theta + phase), strict=True
        )
    ]
    body = [
        sersic(magnitude(flux * (1 - arms - bulge)), radius, 1, 1, 0),
        sersic(magnitude(flux * bulge), 0.2 * radius, 2, 1, 0),
    ]
    return galsim.Add(body + knots).shear(q=rng.uniform(0.45, 1), beta=rng.uniform(0, np.pi) * galsim.radians)


def clumpy(mag: float, rng: np.random.Generator) -> galsim.GSObject:
    """An irregular galaxy: a faint disk and a handful of knots."""
    flux = float(counts(mag))
    radius = 1.2 * max(galaxy_radius(mag, rng, early=False), 0.4)
    share = rng.uniform(0.25, 0.6)
    base = sersic(
        magnitude(flux * (1 - share)),
        radius,
        1,
        rng.uniform(0.35, 1),
        rng.uniform(0, np.pi),
        *rng.normal(0, 0.15 * radius, 2),
    )
    weights = rng.dirichlet(np.full(rng.integers(3, 9), 1.2)) * share * flux
    knots = galsim.Add(
        [
            galsim.Gaussian(sigma=rng.uniform(0.05, 0.2), flux=w).shift(*rng.normal(0, 0.9 * radius, 2))
            for w in weights
        ]
    )
    return base + knots.shear(q=rng.uniform(0.3, 1), beta=rng.uniform(0, np.pi) * galsim.radians)


def tidal_arm(flux: float, rng: np.random.Generator) -> list[galsim.GSObject]:
    """A curved tail of `flux` counts around the origin."""
    n, start = rng.integers(6, 14), rng.uniform(0, 2 * np.pi)
    reach, turn = rng.uniform(1, 2.5), rng.choice([-1, 1])
    t = np.arange(n) / n
    weight = (1.4 - t) / np.sum(1.4 - t) * flux
    angle = start + turn * 1.8 * t
    r = reach * (0.4 + t)
    return [
        galsim.Gaussian(sigma=0.22 + 0.15 * a, flux=w).shift(b, c)
        for a, w, b, c in zip(t, weight, r * np.cos(angle), r * np.sin(angle), strict=True)
    ]


def arcs(lens: LensedQuasar, host_magnitude: float, rng: np.random.Generator) -> galsim.GSObject:
    """The quasar's host galaxy, lensed: ray-traced on a grid of 0.08 arcsec.

    `host_magnitude` is intrinsic; the object's flux is the magnified one.
    """
    n, step = 100, 0.08
    axis = (np.arange(n) - (n - 1) / 2) * step
    x, y = np.meshgrid(axis, axis)
    source_x, source_y = ray_shooting(x.ravel(), y.ravel(), lens.lens)
    q, angle = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
    modulus = (1 - q) / (1 + q)
    profile = {
        "R_sersic": rng.uniform(0.15, 0.4),
        "n_sersic": 1.0,
        "e1": modulus * np.cos(2 * angle),
        "e2": modulus * np.sin(2 * angle),
        "center_x": lens.source_x,
        "center_y": lens.source_y,
    }
    amplitude = counts(host_magnitude) / _SERSIC_SOURCE.total_flux([{"amp": 1.0, **profile}])[0]
    light = _SERSIC_SOURCE.surface_brightness(source_x, source_y, [{"amp": amplitude, **profile}])
    image = galsim.Image(light.reshape(n, n) * step**2, scale=step)
    return galsim.InterpolatedImage(
        image, x_interpolant="linear", flux=float(image.array.sum()), normalization="flux"
    )
