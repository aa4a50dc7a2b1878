"""Distances of a flat universe, tabulated once so that a draw costs an interpolation."""

import numpy as np
from scipy.integrate import cumulative_trapezoid

from lensq.simulate.parameters import COSMOLOGY

SPEED_OF_LIGHT = 299_792.458  # km/s
ARCSEC = np.degrees(1) * 3600  # arcseconds in a radian

_Z = np.linspace(0, 6, 3001)
_INVERSE_E = 1 / np.sqrt(COSMOLOGY.omega_matter * (1 + _Z) ** 3 + 1 - COSMOLOGY.omega_matter)
_COMOVING = SPEED_OF_LIGHT / COSMOLOGY.hubble * cumulative_trapezoid(_INVERSE_E, _Z, initial=0)


def comoving_distance(z):
    """Comoving distance in Mpc, for redshifts up to 6."""
    return np.interp(z, _Z, _COMOVING)


def distance_modulus(z):
    """m - M in magnitudes, without K-correction."""
    return 5 * np.log10((1 + np.asarray(z)) * comoving_distance(z)) + 25


def volume_element(z):
    """dV/dz over the whole sky per steradian, Mpc^3."""
    return SPEED_OF_LIGHT / COSMOLOGY.hubble * comoving_distance(z) ** 2 * np.interp(z, _Z, _INVERSE_E)


def einstein_radius(sigma_v, z_lens, z_source):
    """Einstein radius of a singular isothermal sphere, arcsec; `sigma_v` in km/s.

    It is 0 where the source lies in front of the lens.
    """
    ratio = np.maximum(1 - comoving_distance(z_lens) / comoving_distance(z_source), 0)  # D_ls / D_s
    return 4 * np.pi * (sigma_v / SPEED_OF_LIGHT) ** 2 * ratio * ARCSEC


def arcsec_from_kpc(length, z):
    """Angle in arcsec under which `length` (proper kpc) is seen at redshift `z`."""
    return length * 1e-3 * (1 + z) / comoving_distance(z) * ARCSEC
