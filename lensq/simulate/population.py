"""The lensed quasars: deflectors, sources and image configurations of an OM10-like population.

A lens is drawn on its own, by rejection, so that any worker can make any lens of a survey. The
density sampled is

    dn/dsigma (sigma/sigma*) x dV/dz_l x theta_E^2 x N_quasar(< m_lim; z_s)

with the source placed evenly around the caustic and m_lim the faintest intrinsic magnitude at which
this image configuration is still selected: that is the magnification bias of Oguri & Marshall
(2010). Choi et al. (2007) give the velocity dispersions.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from lensq.simulate.cosmology import (
    arcsec_from_kpc,
    distance_modulus,
    einstein_radius,
    volume_element,
)
from lensq.simulate.parameters import COSMOLOGY, LENSES

LENS_MODEL = LensModel(["SIE", "SHEAR"])
_SOLVER = LensEquationSolver(LENS_MODEL)
_SOURCE_BOX = 1.25  # sources are placed within this many Einstein radii, which covers the caustics
_DEEPEST = 28.0  # magnitude at which the rejection envelope of the quasar counts is taken
_FAINTEST_MAGNIFICATION = 0.05  # fainter images are not counted
_LARGEST_MAGNIFICATION = 60.0  # quasars are not points


@dataclass(frozen=True)
class LensedQuasar:
    """One lens: deflector at the origin, angles in arcsec and radians, magnitudes in the i band.

    `x, y, magnification, magnitudes` are arrays over the images, brightest first; `lens_model` holds
    the keyword arguments of lenstronomy's SIE and SHEAR.
    """

    sigma_v: float
    z_lens: float
    z_source: float
    einstein_radius: float
    ellipticity: float
    position_angle: float
    shear: float
    shear_angle: float
    source_x: float
    source_y: float
    source_magnitude: float
    x: np.ndarray
    y: np.ndarray
    magnification: np.ndarray
    magnitudes: np.ndarray
    deflector_magnitude: float
    deflector_radius: float
    deflector_axis_ratio: float
    deflector_angle: float

    @property
    def lens_model(self) -> list[dict]:
        """Keyword arguments of `LENS_MODEL`."""
        return lens_keywords(
            self.einstein_radius, self.ellipticity, self.position_angle, self.shear, self.shear_angle
        )

    @property
    def separation(self) -> float:
        """Largest distance between two images, arcsec."""
        return image_separation(self.x, self.y)

    @property
    def flux_ratio(self) -> float:
        """Second image of two, or third of three and more, over the brightest."""
        return float(self.magnification[deciding_image(len(self.x))] / self.magnification[0])

    @property
    def total_magnitude(self) -> float:
        """All quasar images together."""
        return float(-2.5 * np.log10(np.sum(10 ** (-0.4 * self.magnitudes))))


def lens_keywords(theta, ellipticity, angle, shear, shear_angle) -> list[dict]:
    """Keyword arguments of an SIE with external shear at the origin."""
    q = 1 - ellipticity
    modulus = (1 - q) / (1 + q)
    return [
        {
            "theta_E": theta,
            "e1": modulus * np.cos(2 * angle),
            "e2": modulus * np.sin(2 * angle),
            "center_x": 0.0,
            "center_y": 0.0,
        },
        {"gamma1": shear * np.cos(2 * shear_angle), "gamma2": shear * np.sin(2 * shear_angle)},
    ]


def image_separation(x: np.ndarray, y: np.ndarray) -> float:
    """Largest distance between any two images."""
    return float(np.max(np.hypot(x[:, None] - x, y[:, None] - y)))


def deciding_image(n_images: int) -> int:
    """Index of the image whose brightness decides on selection: the second of two, the third of more."""
    return 1 if n_images == 2 else 2


def solve(theta, ellipticity, angle, shear, shear_angle, source_x, source_y):
    """Images of a point source, brightest first.

    Returns:
        `(x, y, magnification)`, arrays over the images with magnification above 0.05.
    """
    keywords = lens_keywords(theta, ellipticity, angle, shear, shear_angle)
    x, y = _SOLVER.image_position_from_source(source_x, source_y, keywords, solver="analytical")
    if len(x) == 0:
        return x, y, x
    magnification = np.minimum(np.abs(LENS_MODEL.magnification(x, y, keywords)), _LARGEST_MAGNIFICATION)
    order = np.argsort(-magnification)
    order = order[magnification[order] > _FAINTEST_MAGNIFICATION]
    return x[order], y[order], magnification[order]


def quasar_counts(z, limit):
    """Quasars brighter than `limit` (intrinsic i) per unit redshift, up to a constant.

    Double power law of Oguri & Marshall (2010), their equations 8 to 10, with K(z) of a power-law
    spectrum of index -0.5. `z` is a number, `limit` a number or an array.
    """
    faint, counts = _quasar_counts_table(float(np.round(z, 2)))
    return np.interp(limit, faint, counts)


@cache
def _quasar_counts_table(z: float):
    grid = np.arange(10.0, _DEEPEST + 0.05, 0.1)
    absolute = grid - distance_modulus(z) + 1.25 * np.log10(1 + z)
    growth = np.exp(LENSES.quasar_zeta * z) * (1 + np.exp(LENSES.quasar_xi * LENSES.quasar_z_star))
    growth /= (np.exp(LENSES.quasar_xi * z / 2) + np.exp(LENSES.quasar_xi * LENSES.quasar_z_star / 2)) ** 2
    break_magnitude = (
        LENSES.quasar_break_magnitude + 5 * np.log10(COSMOLOGY.hubble / 100) - 2.5 * np.log10(growth)
    )
    bright = LENSES.quasar_bright_slope if z <= 3 else LENSES.quasar_bright_slope_high_z
    steps = 0.4 * (absolute - break_magnitude)
    density = 1 / (10 ** ((1 - bright) * steps) + 10 ** ((1 - LENSES.quasar_faint_slope) * steps))
    return grid, np.cumsum(density) * 0.1 * volume_element(z)


@cache
def _deflector_source_table():
    """Cumulative weight over cells of (sigma, z_lens, z_source), the proposal of the rejection."""
    sigma = np.arange(LENSES.sigma_limits[0] + 2, LENSES.sigma_limits[1], 4.0)
    z_lens = np.arange(LENSES.z_lens_limits[0] + 0.01, LENSES.z_lens_limits[1], 0.02)
    z_source = np.round(np.arange(LENSES.z_source_limits[0] + 0.025, LENSES.z_source_limits[1], 0.05), 3)
    scaled = sigma / LENSES.sigma_star
    dispersion = scaled**LENSES.sigma_alpha * np.exp(-(scaled**LENSES.sigma_beta)) / sigma
    counts = np.array([quasar_counts(z, _DEEPEST) for z in z_source])
    theta = einstein_radius(sigma[:, None, None], z_lens[:, None], z_source)
    weight = dispersion[:, None, None] * volume_element(z_lens)[:, None] * counts * theta**2
    weight[(theta < 0.2 * LENSES.separation_limits[0]) | (theta > LENSES.separation_limits[1])] = 0
    return sigma, z_lens, z_source, np.cumsum(weight.ravel())


def _draw_deflector(rng: np.random.Generator):
    sigma, z_lens, z_source, cumulative = _deflector_source_table()
    cell = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    i, j, k = np.unravel_index(cell, (len(sigma), len(z_lens), len(z_source)))
    jitter = rng.uniform(-0.5, 0.5, 3) * (4.0, 0.02, 0.05)
    return sigma[i] + jitter[0], z_lens[j] + jitter[1], z_source[k] + jitter[2]


def deflector_magnitude(sigma_v: float, z: float) -> tuple[float, float]:
    """Absolute and apparent i magnitude of an early-type deflector, OM10's relation without scatter."""
    absolute = LENSES.deflector_magnitude + LENSES.deflector_slope * np.log10(sigma_v / LENSES.sigma_star)
    absolute += LENSES.deflector_evolution * z
    return absolute, absolute + distance_modulus(z) + LENSES.deflector_k_correction * z


def draw_lens(rng: np.random.Generator) -> LensedQuasar:
    """Draw one lensed quasar from the population and its cuts."""
    while True:
        sigma_v, z_lens, z_source = _draw_deflector(rng)
        theta = einstein_radius(sigma_v, z_lens, z_source)
        absolute, apparent = deflector_magnitude(sigma_v, z_lens)
        scatter = rng.normal(0, LENSES.deflector_scatter)
        if not LENSES.deflector_limits[0] < apparent + scatter < LENSES.deflector_limits[1]:
            continue
        ellipticity = _truncated_normal(rng, *LENSES.ellipticity, 0.0, 0.8)
        shear = LENSES.shear[0] * 10 ** rng.normal(0, LENSES.shear[1])
        angle, shear_angle = rng.uniform(0, np.pi, 2)
        source_x, source_y = rng.uniform(-_SOURCE_BOX * theta, _SOURCE_BOX * theta, 2)
        x, y, magnification = solve(theta, ellipticity, angle, shear, shear_angle, source_x, source_y)
        if len(x) < 2:
            continue
        decisive = magnification[deciding_image(len(x))]
        if decisive < LENSES.smallest_flux_ratio * magnification[0]:
            continue
        if not LENSES.separation_limits[0] < image_separation(x, y) < LENSES.separation_limits[1]:
            continue
        limit = min(
            LENSES.faint_image_limit + 2.5 * np.log10(decisive),
            LENSES.total_limits[1] + 2.5 * np.log10(magnification.sum()),
        )
        brightest = LENSES.total_limits[0] + 2.5 * np.log10(magnification.sum())
        selected = quasar_counts(z_source, limit)
        if rng.random() * quasar_counts(z_source, _DEEPEST) > selected:
            continue
        magnitude = _draw_source_magnitude(rng, z_source, limit)
        if magnitude < brightest:
            continue
        radius = 10 ** (0.72 - 0.248 * (absolute + scatter + 22) + rng.normal(0, 0.12))
        return LensedQuasar(
            sigma_v=float(sigma_v),
            z_lens=float(z_lens),
            z_source=float(z_source),
            einstein_radius=float(theta),
            ellipticity=ellipticity,
            position_angle=float(angle),
            shear=float(shear),
            shear_angle=float(shear_angle),
            source_x=float(source_x),
            source_y=float(source_y),
            source_magnitude=magnitude,
            x=x,
            y=y,
            magnification=magnification,
            magnitudes=magnitude - 2.5 * np.log10(magnification),
            deflector_magnitude=float(apparent + scatter),
            deflector_radius=float(np.clip(arcsec_from_kpc(radius, z_lens), 0.12, 2.5)),
            deflector_axis_ratio=float(np.clip(1 - ellipticity + rng.normal(0, 0.08), 0.35, 1)),
            deflector_angle=float(angle + rng.normal(0, 0.15)),
        )


def _draw_source_magnitude(rng: np.random.Generator, z: float, limit: float) -> float:
    """Intrinsic magnitude brighter than `limit`, by inverting the cumulative counts."""
    grid, counts = _quasar_counts_table(float(np.round(z, 2)))
    return float(np.interp(rng.random() * np.interp(limit, grid, counts), counts, grid))


def _truncated_normal(rng: np.random.Generator, mean: float, sigma: float, low: float, high: float) -> float:
    while True:
        value = rng.normal(mean, sigma)
        if low <= value <= high:
            return float(value)
