"""Which spectrum each part of a scene has: drawn from a stream of its own, after the scene in the i band.

A part of a scene is of one of these kinds: "star"; "point", a star or a quasar; "quasar"; "image" of a
lensed quasar; "early", "late" and "irregular" galaxies of the field, which share a redshift in one scene;
"deflector" and "host", at the redshifts of the truth; "tail", coloured as the first part. The images of a
quasar have one spectrum, which dust in the deflector and microlensing change from image to image.
"""

from collections.abc import Sequence

import numpy as np

from lensq.simulate.parameters import BAND, COLOURS, LIGHT
from lensq.simulate.spectra import BANDS, REFERENCE, TILT, colours, draw_star, reddening, star_colours

_BETWEEN = {"late": ("Sbc", "Scd"), "irregular": ("Scd", "Im"), "host": ("Scd", "Im")}  # the others are "E"
_FIELD = ("early", "late", "irregular")
_LARGEST_REDSHIFT = 1.6  # of galaxies of the field
_REDDER = 2.5 * np.log10(BAND.wavelength[REFERENCE] / BAND.wavelength[0])  # of g - i, by a slope of 1 in f_nu


def draw_quasar(z, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes relative to i of quasars at redshifts `z` (any shape): (..., 5). Their slopes differ."""
    z = np.asarray(z, float)
    slope = COLOURS.quasar_slope * rng.normal(size=z.shape)
    return colours("quasar", z) + slope[..., None] * TILT * _REDDER


def draw_changes(z_lens, n: int, rng: np.random.Generator, scatter: float = 1.0):
    """How dust and microlensing change the colours of the images of lensed quasars.

    Args:
        z_lens: Redshifts of the deflectors, of any shape.
        n: Images of each.
        rng: Draws.
        scatter: Factor on both.

    Returns:
        E(B - V) and the change of g - i by microlensing, each (..., n) in mag, and the magnitudes relative
        to i that the two add (..., n, 5).
    """
    z_lens = np.asarray(z_lens, float)
    dusty = rng.random((*z_lens.shape, 1)) < COLOURS.reddened_share
    dust = scatter * COLOURS.reddening * dusty * rng.exponential(size=(*z_lens.shape, n))
    redder = scatter * COLOURS.microlensing * rng.normal(size=(*z_lens.shape, n))
    return dust, redder, dust[..., None] * reddening(z_lens)[..., None, :] + redder[..., None] * TILT


def draw_stars(n: int | None, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes relative to i of `n` stars (n, 5), or of one (5,)."""
    scatter = COLOURS.star_scatter * rng.normal(size=n)
    return star_colours(draw_star(rng, n)) + np.multiply.outer(scatter, TILT)


def draw_unrelated(z_quasars: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spectra of sources that have nothing to do with each other: quasars, stars, compact galaxies.

    Args:
        z_quasars: Redshifts of those that turn out to be quasars, of any shape.
        rng: Draws.

    Returns:
        Magnitudes relative to i, the shape of `z_quasars` with one more axis of 5. The share of quasars is
        that of unrelated pairs; of the others one half are stars, the others early or irregular galaxies.
    """
    shape = z_quasars.shape
    z = draw_field_redshift(21, rng, shape)
    galaxies = np.where(rng.random((*shape, 1)) < LIGHT.early_share, colours("E", z), colours("Im", z))
    stars = draw_stars(int(np.prod(shape)), rng).reshape(*shape, len(BANDS))
    others = np.where(rng.random((*shape, 1)) < 0.5, stars, galaxies)
    is_quasar = rng.random((*shape, 1)) < COLOURS.pair_quasars
    return np.where(is_quasar, draw_quasar(z_quasars, rng), others)


def draw_quasar_redshift(rng: np.random.Generator) -> float:
    """Redshift of a quasar that no lens magnifies."""
    while True:
        redshift = float(rng.normal(*LIGHT.quasar_redshift))
        if LIGHT.quasar_redshift_limits[0] < redshift < LIGHT.quasar_redshift_limits[1]:
            return redshift


def draw_field_redshift(magnitude: float, rng: np.random.Generator, shape=None):
    """Redshifts, up to 1.6, of galaxies of this i magnitude, one or of a shape.

    They follow z^2 exp(-z/z0), with z0 as in LSST Science Collaboration (2009), equation 3.8.
    """
    slope, zero, least = COLOURS.field_redshift
    return np.minimum(max(slope * magnitude + zero, least) * rng.gamma(3, size=shape), _LARGEST_REDSHIFT)


def draw_galaxy(kind: str, z: float, rng: np.random.Generator) -> np.ndarray:
    """(5,) magnitudes relative to i of a galaxy at redshift `z`."""
    first, second = _BETWEEN.get(kind, ("E", "E"))
    share, scatter = rng.random(), COLOURS.galaxy_scatter * rng.normal()
    return (1 - share) * colours(first, z) + share * colours(second, z) + scatter * TILT


def draw_colours(
    kinds: Sequence[str], magnitudes: Sequence[float], truth: dict, rng: np.random.Generator, scatter: float
) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Draw the spectra of the parts of a scene.

    Args:
        kinds: What each part is; see the module.
        magnitudes: In i, of each part.
        truth: `z_lens` and `z_source` of the scene, where it has them.
        rng: Draws.
        scatter: Factor on the dust and the microlensing of lensed images.

    Returns:
        (parts, 5) magnitudes in g, r, i, z, y minus that in i, and columns of the truth table: E(B - V) and
        the change of g - i by microlensing of each lensed image.
    """
    steps = np.zeros((len(kinds), len(BANDS)))
    columns: dict[str, list[float]] = {}
    field = quasar = None
    if "z_source" in truth:
        quasar = draw_quasar(truth["z_source"], rng)
    images = [i for i, kind in enumerate(kinds) if kind == "image"]
    if images:
        dust, redder, changes = draw_changes(truth["z_lens"], len(images), rng, scatter)
        steps[images] = quasar + changes
        columns = {"image_reddening": dust.tolist(), "image_microlensing": redder.tolist()}
    for i, kind in enumerate(kinds):
        if kind == "quasar":
            steps[i] = quasar
        elif kind == "star" or (kind == "point" and rng.random() > COLOURS.pair_quasars):
            steps[i] = draw_stars(None, rng)
        elif kind == "point":
            steps[i] = draw_quasar(draw_quasar_redshift(rng), rng)
        elif kind == "tail":
            steps[i] = steps[0]
        elif kind in _FIELD:
            field = draw_field_redshift(magnitudes[i], rng) if field is None else field
            steps[i] = draw_galaxy(kind, field, rng)
        elif kind != "image":
            steps[i] = draw_galaxy(kind, truth["z_lens" if kind == "deflector" else "z_source"], rng)
    return steps, columns
