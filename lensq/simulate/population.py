"""The lensed quasars: deflectors, sources and image configurations of an OM10-like population.

A lens is drawn on its own, by rejection, so that any worker can make any lens of a survey. The
density sampled is

    dn/dsigma x dV/dz_l x theta_E^2 x N_quasar(< limit; z_s)

with the source placed evenly around the caustic, and `limit` the faintest intrinsic magnitude at which
this image configuration is still selected: that is the magnification bias. Oguri & Marshall (2010) made
their mock catalogue so; Choi et al. (2007) give the velocity dispersions.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from lensq.simulate.cosmology import arcsec_from_kpc, distance_modulus, einstein_radius, volume_element
from lensq.simulate.lens_equation import SIEWithShear, magnification, solve
from lensq.simulate.parameters import COSMOLOGY, LENSES, SHAPES

_BATCH = 32  # candidates tried together
_SOURCE_BOX = 1.25  # sources are placed within this many Einstein radii, which covers the caustics
_DEEPEST = 27.5  # magnitude at which the rejection envelope of the quasar counts is taken
_FAINTEST_IMAGE = 0.05  # images with less magnification are not counted
_LARGEST_MAGNIFICATION = 60.0  # the accretion disk is not a point
_CELL = (4.0, 0.02, 0.05)  # width of the table's cells in sigma (km/s), z_lens, z_source


@dataclass(frozen=True)
class LensedQuasar:
    """One lens: deflector at the origin, angles in arcsec and radians, magnitudes in the i band.

    `x, y, magnification, magnitudes` are arrays over the images, brightest first; magnification is
    without sign.
    """

    lens: SIEWithShear
    sigma_v: float
    z_lens: float
    z_source: float
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
    def separation(self) -> float:
        """Largest distance between two images, arcsec."""
        return _separation(self.x, self.y)

    @property
    def flux_ratio(self) -> float:
        """Second image of two, or third of more, over the brightest."""
        return float(self.magnification[deciding_image(len(self.x))] / self.magnification[0])

    @property
    def magnitude_i(self) -> float:
        """All quasar images together."""
        return float(-2.5 * np.log10(np.sum(10 ** (-0.4 * self.magnitudes))))


def _separation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.max(np.hypot(x[:, None] - x, y[:, None] - y)))


def deciding_image(n_images: int) -> int:
    """Index of the image whose brightness decides on selection: the second of two, the third of more."""
    return 1 if n_images == 2 else 2


def break_magnitude(z):
    """Absolute i magnitude of the break of the quasar luminosity function; OM10, equation 11."""
    zeta, xi, star = LENSES.quasar_zeta, LENSES.quasar_xi, LENSES.quasar_z_star
    growth = np.exp(zeta * z) * (1 + np.exp(xi * star)) / (np.exp(xi * z / 2) + np.exp(xi * star / 2)) ** 2
    return LENSES.quasar_break_magnitude + 5 * np.log10(COSMOLOGY.hubble / 100) - 2.5 * np.log10(growth)


@cache
def _tables():
    """The proposal of the rejection, computed once a process.

    Returns:
        `(sigma, z_lens, z_source, cumulative, magnitudes, counts)`: the cells' centres, the cumulative
        weight over the flattened cells, and the quasars brighter than each magnitude for each z_source.
    """
    limits = (LENSES.sigma_limits, LENSES.z_lens_limits, LENSES.z_source_limits)
    cells = zip(limits, _CELL, strict=True)
    sigma, z_lens, z_source = (np.arange(low + step / 2, high, step) for (low, high), step in cells)
    magnitudes = np.arange(10.0, _DEEPEST + 0.05, 0.05)
    z = z_source[:, None]
    steps = 0.4 * (magnitudes - distance_modulus(z) + 1.25 * np.log10(1 + z) - break_magnitude(z))
    bright = np.where(z <= 3, LENSES.quasar_bright_slope, LENSES.quasar_bright_slope_high_z)
    density = 1 / (10 ** ((1 - bright) * steps) + 10 ** ((1 - LENSES.quasar_faint_slope) * steps))
    counts = np.cumsum(density, axis=1) * volume_element(z)
    scaled = sigma / LENSES.sigma_star
    dispersion = scaled**LENSES.sigma_alpha * np.exp(-(scaled**LENSES.sigma_beta)) / sigma
    theta = einstein_radius(sigma[:, None, None], z_lens[:, None], z_source)
    weight = dispersion[:, None, None] * volume_element(z_lens)[:, None] * counts[:, -1] * theta**2
    apparent = deflector_magnitude(sigma[:, None], z_lens)
    low, high = LENSES.deflector_limits
    reach = 5 * LENSES.deflector_scatter + 0.2
    weight[(apparent < low - reach) | (apparent > high + reach)] = 0
    weight[(theta < 0.2 * LENSES.separation_limits[0]) | (theta > LENSES.separation_limits[1])] = 0
    return sigma, z_lens, z_source, np.cumsum(weight.ravel()), magnitudes, counts


def deflector_magnitude(sigma_v, z):
    """Apparent i magnitude of an early-type deflector, OM10's relation without scatter."""
    absolute = LENSES.deflector_magnitude + LENSES.deflector_slope * np.log10(sigma_v / LENSES.sigma_star)
    absolute = absolute + LENSES.deflector_evolution * z
    return absolute + distance_modulus(z) + LENSES.deflector_k_correction * z


def draw_lens(rng: np.random.Generator) -> LensedQuasar:
    """Draw one lensed quasar from the population and its cuts."""
    while True:
        found = _try_batch(rng)
        if found is not None:
            return found


def _try_batch(rng: np.random.Generator) -> LensedQuasar | None:
    """The first of a batch of candidates that is selected, or None."""
    *centres, cumulative, magnitudes, counts = _tables()
    cell = np.searchsorted(cumulative, rng.random(_BATCH) * cumulative[-1], side="right")
    cell = np.unravel_index(cell, [len(centre) for centre in centres])
    jitter = rng.uniform(-0.5, 0.5, (3, _BATCH)) * np.array(_CELL)[:, None]
    place = np.stack([centre[i] for centre, i in zip(centres, cell, strict=True)]) + jitter
    theta = einstein_radius(*place)
    deflector = deflector_magnitude(*place[:2]) + rng.normal(0, LENSES.deflector_scatter, _BATCH)
    ellipticity = rng.normal(*LENSES.ellipticity, _BATCH)
    lens = SIEWithShear(
        theta,
        1 - np.clip(ellipticity, 0.005, 0.8),
        rng.uniform(0, np.pi, _BATCH),
        LENSES.shear[0] * 10 ** rng.normal(0, LENSES.shear[1], _BATCH),
        rng.uniform(0, np.pi, _BATCH),
    )
    source = rng.uniform(-_SOURCE_BOX, _SOURCE_BOX, (2, _BATCH)) * theta
    chance = rng.random(_BATCH)
    good = (ellipticity > 0) & (ellipticity < 0.8) & (theta > 0.2 * LENSES.separation_limits[0])
    good &= (LENSES.deflector_limits[0] < deflector) & (deflector < LENSES.deflector_limits[1])
    good = np.flatnonzero(good)
    row, x, y = solve(*source[:, good], lens[good], steps=12)
    rough = np.abs(magnification(x, y, lens[good[row]]))
    for i, b in enumerate(good):
        here = row == i
        seen_x, seen_y, strength = _seen(x[here], y[here], rough[here])
        if not _selected(seen_x, seen_y, strength):
            continue
        quasars = counts[cell[2][b]]
        selected = np.interp(_intrinsic_limit(strength), magnitudes, quasars)
        if chance[b] * quasars[-1] > selected:
            continue
        intrinsic = float(np.interp(rng.random() * selected, quasars, magnitudes))
        if intrinsic >= LENSES.total_limits[0] + 2.5 * np.log10(strength.sum()):
            return _lensed(lens[b], place[:, b], (*source[:, b], intrinsic), deflector[b], rng)
    return None


def _lensed(lens: SIEWithShear, place, source, deflector: float, rng: np.random.Generator) -> LensedQuasar:
    """A selected candidate with its exact images and the light of its deflector."""
    sigma, z_lens, _ = place
    _, x, y = solve(*np.reshape(source[:2], (2, 1)), lens[None])
    x, y, strength = _seen(x, y, np.abs(magnification(x, y, lens[None])))
    log_radius = np.polyval(SHAPES.deflector_size[2::-1], np.log10(sigma))
    radius = 10 ** (log_radius + rng.normal(0, SHAPES.deflector_size[3]))
    rounder, rotated = rng.normal(0, SHAPES.light_and_mass)
    return LensedQuasar(
        SIEWithShear(*(float(value) for value in vars(lens).values())),
        *(float(value) for value in (*place, *source)),
        x,
        y,
        strength,
        magnitudes=source[2] - 2.5 * np.log10(strength),
        deflector_magnitude=float(deflector),
        deflector_radius=float(np.clip(arcsec_from_kpc(radius, z_lens), 0.12, 2.5)),
        deflector_axis_ratio=float(np.clip(lens.axis_ratio + rounder, 0.35, 1)),
        deflector_angle=float(lens.angle + rotated),
    )


def _seen(x: np.ndarray, y: np.ndarray, strength: np.ndarray):
    """Images that are not too faint: (x, y, magnification), brightest first."""
    strength = np.minimum(strength, _LARGEST_MAGNIFICATION)
    order = np.argsort(-strength)
    order = order[strength[order] > _FAINTEST_IMAGE]
    return x[order], y[order], strength[order]


def _selected(x: np.ndarray, y: np.ndarray, strength: np.ndarray) -> bool:
    """Whether images, brightest first, pass the cuts on number, separation and flux ratio."""
    low, high = LENSES.separation_limits
    if len(strength) < 2 or not low < _separation(x, y) < high:
        return False
    return strength[deciding_image(len(strength))] > LENSES.smallest_flux_ratio * strength[0]


def _intrinsic_limit(strength: np.ndarray) -> float:
    """Faintest intrinsic magnitude at which images of these magnifications are selected."""
    return min(
        LENSES.faint_image_limit + 2.5 * np.log10(strength[deciding_image(len(strength))]),
        LENSES.total_limits[1] + 2.5 * np.log10(strength.sum()),
    )
