"""The telescope: PSF, pixels, photon and sky noise, background, and the artefacts of the detector."""

from dataclasses import dataclass

import galsim
import numpy as np
from scipy.ndimage import correlate1d

from lensq.simulate.light import ACCURACY, QUICK, add
from lensq.simulate.parameters import BAND, INSTRUMENT
from lensq.simulate.spectra import BANDS, REFERENCE


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


def _psf(seeing: float, wings: float) -> galsim.GSObject:
    """Three Gaussians as in HSC's PSF models, the widest with `wings` times its usual flux."""
    weights = np.array(INSTRUMENT.psf_weights) * (1, 1, wings)
    shapes = zip(np.array(INSTRUMENT.psf_widths) * seeing, weights / weights.sum(), strict=True)
    return galsim.Add([galsim.Gaussian(fwhm=fwhm, flux=flux, gsparams=ACCURACY) for fwhm, flux in shapes])


MEDIAN_PSF = _psf(INSTRUMENT.seeing, 1.0)


def typical(band: str) -> tuple[float, float, float]:
    """Median seeing (arcsec), noise of the sky (counts per pixel) and gain (electrons a count) of a band.

    The noise is that of i times what the depths for point sources say: 5 sigma of a point source rises with
    noise times seeing.
    """
    if band == "i":
        return INSTRUMENT.seeing, INSTRUMENT.sky_noise, INSTRUMENT.gain
    k = BANDS.index(band)
    deeper = BAND.depth[k] - BAND.depth[REFERENCE]
    sky = INSTRUMENT.sky_noise * 10 ** (-0.4 * deeper) * BAND.seeing[REFERENCE] / BAND.seeing[k]
    return BAND.seeing[k], sky, BAND.gain[k]


def draw_conditions(rng: np.random.Generator, band: str = "i") -> Conditions:
    """Draw seeing, PSF shape and depth; six exposures stand for the full ones of each band."""
    median, noise, gain = typical(band)
    seeing = median * rng.lognormal(0, INSTRUMENT.seeing_scatter)
    seeing = float(np.clip(seeing, *(median / INSTRUMENT.seeing * np.array(INSTRUMENT.seeing_limits))))
    g1, g2 = rng.normal(0, INSTRUMENT.psf_shear, 2)
    psf = _psf(seeing, rng.lognormal(0, INSTRUMENT.psf_wing_scatter)).shear(g1=g1, g2=g2)
    exposures = int(rng.choice(INSTRUMENT.exposures))
    sky = noise * np.sqrt(6 / exposures) * rng.lognormal(0, INSTRUMENT.sky_noise_scatter)
    return Conditions(psf, seeing, float(sky), gain * exposures / 6, exposures)


def render(parts: list, psf: galsim.GSObject, shape: tuple[int, int], offset=(0.0, 0.0)) -> np.ndarray:
    """Noiseless image of `shape` (height, width) in counts, its origin `offset` pixels off the centre."""
    scene = galsim.Convolve([add(parts), psf], real_space=False, **QUICK)
    image = scene.drawImage(nx=shape[1], ny=shape[0], scale=INSTRUMENT.pixel_scale, offset=offset)
    return image.array.astype(np.float64)


def add_noise(image: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Sky and photon noise, correlated by the resampling of the coadd."""
    side = rng.uniform(*INSTRUMENT.resampling)
    kernel = np.array([side, 1.0, side]) / np.sqrt(1 + 2 * side**2)
    white = rng.standard_normal((image.shape[0] + 2, image.shape[1] + 2))
    noise = correlate1d(correlate1d(white, kernel, axis=0), kernel, axis=1)[1:-1, 1:-1]
    return image + noise * np.sqrt(conditions.sky**2 + np.clip(image, 0, None) / conditions.gain)


def add_background(image: np.ndarray, rng: np.random.Generator, band: str = "i") -> np.ndarray:
    """What sky subtraction leaves, an offset and a slope as large as the noise; the zero point's error."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    slope = rng.normal(0, INSTRUMENT.background_slope, 2)
    background = rng.normal(*INSTRUMENT.background_offset)
    background = background + slope[0] * (x / image.shape[1] - 0.5) + slope[1] * (y / image.shape[0] - 0.5)
    background = background * (typical(band)[1] / INSTRUMENT.sky_noise)
    return (image + background) * 10 ** (0.4 * rng.normal(0, INSTRUMENT.zero_point_scatter))
