"""Colours of stars, galaxies and quasars in g, r, i, z, y (AB), from published spectra.

Galaxies: the templates of Coleman, Wu & Weedman (1980) as GalSim has them; the early type is made bluer with
redshift as the red sequence of Bell et al. (2004) is. Quasars: `quasar.csv`, the median composite of Vanden
Berk et al. (2001) at some 300 wavelengths (Angstrom; flux per wavelength, any unit), below 1216 Angstrom
divided by the mean transmission of the hydrogen in front. That hydrogen absorbs as in Madau (1995). Stars:
`stars.csv`, the median locus of Covey et al. (2007) with its numbers of stars per .02 mag, and z - y of that
of Tonry et al. (2012).

GalSim has LSST's curves alone. They are moved to the central wavelengths of HSC's; the colours of the four
templates up to redshift 1.6 then differ from those through HSC's own by .01 mag in the median and by .1 at
most, as measured with the curves hsc2017 of speclite 1.0.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.integrate import cumulative_trapezoid

from lensq.simulate.parameters import BAND, COLOURS

BANDS = "grizy"
"""The bands, from blue to red; the order of all colours."""

REFERENCE = BANDS.index("i")

_REDSHIFTS = np.concatenate([np.arange(0, 1.6, 0.02), np.arange(1.6, 5.61, 0.04)])
_LINES = ((0.0036, 121.6), (0.0017, 102.6), (0.0012, 97.3), (0.00093, 95.0))  # Madau (1995), Lyman series, nm
_LIMIT = 91.2  # nm
_U, _V = 360.0, 550.0  # nm
_WAVELENGTHS = np.array(BAND.wavelength)

TILT = np.log(_WAVELENGTHS / _WAVELENGTHS[REFERENCE]) / np.log(_WAVELENGTHS[0] / _WAVELENGTHS[REFERENCE])
"""(5,) magnitudes relative to i of a change of slope that makes g - i redder by 1 mag."""


def _curves() -> list[tuple[np.ndarray, np.ndarray]]:
    """Wavelengths in nm and transmission of each band."""
    import galsim  # not needed where colours are not

    found = []
    for band, centre in zip(BANDS, _WAVELENGTHS, strict=True):
        curve = galsim.Bandpass(f"LSST_{band}.dat", "nm")
        nm = np.linspace(curve.blue_limit, curve.red_limit, 300)
        light = curve(nm)
        pivot = np.sqrt(np.trapezoid(light * nm, nm) / np.trapezoid(light / nm, nm))
        found.append((nm * centre / pivot, light))
    return found


def transmission(wavelength, z) -> np.ndarray:
    """Mean transmission of the intergalactic hydrogen, Madau (1995), equations 12, 15 and 16.

    Args:
        wavelength: Observed, nm.
        z: Redshifts of the sources, of any shape that goes with that of the wavelengths.
    """
    depth = np.zeros(1)
    for strength, line in _LINES:
        depth = depth + np.where(wavelength < line * (1 + z), strength * (wavelength / line) ** 3.46, 0)
    c, e = wavelength / _LIMIT, 1 + z
    below = 0.25 * c**3 * (e**0.46 - c**0.46) + 9.4 * c**1.5 * (e**0.18 - c**0.18)
    below += -0.7 * c**3 * (c**-1.32 - e**-1.32) - 0.023 * (e**1.68 - c**1.68)
    return np.exp(-depth - np.where(c < e, np.clip(below, 0, None), 0))


def _flux(kind: str):
    """Flux per wavelength of a spectrum as a function of the wavelength at rest in nm."""
    if kind == "quasar":
        table = pd.read_csv(Path(__file__).with_name("quasar.csv")).to_numpy().T
        return lambda wavelength: np.interp(wavelength, table[0] / 10, table[1])
    import galsim

    template = galsim.SED(f"CWW_{kind}_ext.sed", "Ang", "flambda")
    return lambda wavelength: template(wavelength) / wavelength  # GalSim counts photons


@cache
def _table(kind: str) -> np.ndarray:
    """(redshifts, 5) magnitudes relative to i of a spectrum."""
    flux, z = _flux(kind), _REDSHIFTS[:, None]
    magnitudes = np.empty((len(z), len(BANDS)))
    for column, (wavelength, light) in enumerate(_curves()):
        rest = wavelength / (1 + z)
        seen = flux(rest.ravel()).reshape(rest.shape) * transmission(wavelength, z)
        if kind == "E":
            bluer = COLOURS.red_sequence_evolution * z * np.clip((_V - rest) / (_V - _U), 0, 1)
            seen = seen * 10 ** (0.4 * bluer)
        photons = np.trapezoid(seen * wavelength * light, wavelength)
        magnitudes[:, column] = -2.5 * np.log10(photons / np.trapezoid(light / wavelength, wavelength))
    return magnitudes - magnitudes[:, [REFERENCE]]


def colours(kind: str, z) -> np.ndarray:
    """Magnitudes in g, r, i, z, y minus that in i.

    Args:
        kind: "quasar", or a template: "E", "Sbc", "Scd", "Im".
        z: Redshifts from 0 to 5.6, of any shape.

    Returns:
        The shape of `z` with one more axis of 5.
    """
    z = np.asarray(z, float)
    return np.stack([np.interp(z, _REDSHIFTS, column) for column in _table(kind).T], axis=-1)


@cache
def _stars() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = pd.read_csv(Path(__file__).with_name("stars.csv"))
    middle = np.zeros(len(table))
    steps = [table["g_r"] + table["r_i"], table["r_i"], middle, -table["i_z"], -table["i_z"] - table["z_y"]]
    share = cumulative_trapezoid(table["stars"], table["g_i"], initial=0)
    return table["g_i"].to_numpy(), np.stack(steps, axis=-1), share / share[-1]


def star_colours(g_i) -> np.ndarray:
    """Magnitudes of stars in g, r, i, z, y minus that in i: the shape of `g_i` with one more axis of 5.

    Args:
        g_i: Colours g - i from .3 to 3.2, of any shape.
    """
    nodes, steps, _ = _stars()
    return np.stack([np.interp(g_i, nodes, column) for column in steps.T], axis=-1)


def draw_star(rng: np.random.Generator, n: int | None = None):
    """Colours g - i of stars, as frequent as in the sample of Covey et al. (2007); `n` of them or one."""
    nodes, _, share = _stars()
    return np.interp(rng.random(n), share, nodes)


def extinction(wavelength) -> np.ndarray:
    """A(wavelength) / E(B - V) of Cardelli, Clayton & Mathis (1989), equations 2 to 4, for R_V = 3.1.

    Args:
        wavelength: At rest in the dust, nm, from 125 to 3,300; what is shorter counts as 125.
    """
    x = 1000 / np.clip(wavelength, 125, 3300)
    y = x - 1.82
    optical = np.polynomial.polynomial.polyval
    bump = (x > 5.9) * (x - 5.9)
    a = np.where(
        x < 3.3,
        optical(y, [1, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999]),
        1.752 - 0.316 * x - 0.104 / ((x - 4.67) ** 2 + 0.341) - 0.04473 * bump**2 - 0.009779 * bump**3,
    )
    b = np.where(
        x < 3.3,
        optical(y, [0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002]),
        -3.090 + 1.825 * x + 1.206 / ((x - 4.62) ** 2 + 0.263) + 0.2130 * bump**2 + 0.1207 * bump**3,
    )
    red = x < 1.1
    return 3.1 * np.where(red, 0.574 * x**1.61, a) + np.where(red, -0.527 * x**1.61, b)


def reddening(z) -> np.ndarray:
    """Magnitudes relative to i by which dust of E(B - V) = 1 at redshift `z` dims g, r, i, z, y.

    The law is taken at the central wavelengths. Shape: that of `z` with one more axis of 5.
    """
    law = extinction(_WAVELENGTHS / (1 + np.asarray(z, float)[..., None]))
    return law - law[..., [REFERENCE]]
