"""The telescope: PSF, pixels, photon and sky noise, background, and the artefacts of the detector."""

from dataclasses import dataclass

import galsim
import numpy as np
from scipy.ndimage import correlate1d

from lensq.simulate.light import ACCURACY
from lensq.simulate.parameters import INSTRUMENT

_MOFFATS = [galsim.Moffat(beta=b, fwhm=1.0, trunc=7.0, gsparams=ACCURACY) for b in (2.5, 3.0, 3.5, 4.5)]
_RESAMPLING = [np.array(k) / np.linalg.norm(k) for k in ([0.10, 1.0, 0.10], [-0.05, 0.12, 1.0, 0.18, -0.05])]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a cutout was taken.

    Attributes:
        psf: the point spread function.
        seeing: its FWHM in arcsec.
        sky: noise of the empty sky, counts per pixel.
        gain: electrons a count.
        exposures: number of exposures in the coadd.
    """

    psf: galsim.GSObject
    seeing: float
    sky: float
    gain: float
    exposures: int


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Draw seeing, PSF shape and depth."""
    seeing = float(
        np.clip(INSTRUMENT.seeing * rng.lognormal(0, INSTRUMENT.seeing_scatter), *INSTRUMENT.seeing_limits)
    )
    g1, g2 = rng.normal(0, INSTRUMENT.psf_shear, 2)
    if rng.random() < INSTRUMENT.kolmogorov_fraction:
        psf = galsim.Kolmogorov(fwhm=seeing, gsparams=ACCURACY)
    else:
        psf = _MOFFATS[rng.integers(len(_MOFFATS))].dilate(seeing)
    exposures = int(rng.choice(INSTRUMENT.exposures))
    sky = INSTRUMENT.sky_noise * np.sqrt(6 / exposures) * rng.lognormal(0, INSTRUMENT.sky_noise_scatter)
    return Conditions(psf.shear(g1=g1, g2=g2), seeing, float(sky), INSTRUMENT.gain * exposures / 6, exposures)


def render(parts: list[galsim.GSObject], conditions: Conditions, size: int, offset=(0.0, 0.0)) -> np.ndarray:
    """Noiseless image of `size` x `size` pixels in counts, its origin `offset` pixels off the centre."""
    scene = galsim.Convolve([galsim.Add(parts), conditions.psf], real_space=False, gsparams=ACCURACY)
    image = scene.drawImage(nx=size, ny=size, scale=INSTRUMENT.pixel_scale, offset=offset)
    return image.array.astype(np.float64)


def add_noise(image: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Sky and photon noise, correlated by the resampling of the coadd."""
    kernel = _RESAMPLING[rng.integers(len(_RESAMPLING))]
    white = rng.standard_normal((image.shape[0] + 4, image.shape[1] + 4))
    noise = correlate1d(correlate1d(white, kernel, axis=0), kernel, axis=1)[2:-2, 2:-2]
    return image + noise * np.sqrt(conditions.sky**2 + np.clip(image, 0, None) / conditions.gain)


def add_background(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What sky subtraction leaves: an offset and a slope, and the error of the zero point."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    slope = rng.normal(0, INSTRUMENT.background_slope, 2)
    background = rng.normal(0, INSTRUMENT.background_offset)
    background = background + slope[0] * (x / image.shape[1] - 0.5) + slope[1] * (y / image.shape[0] - 0.5)
    return (image + background) * 10 ** (0.4 * rng.normal(0, INSTRUMENT.zero_point_scatter))
