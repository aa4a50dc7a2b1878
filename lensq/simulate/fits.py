"""Write a cutout as an HSC archive FITS file; its headers are made once, which saves most of the time."""

from functools import cache
from pathlib import Path

import numpy as np
from astropy.io import fits

from lensq.simulate.parameters import INSTRUMENT

_RECORD = 2880


@cache
def _headers(height: int, width: int, band: str) -> tuple[bytes, fits.Header]:
    primary = fits.PrimaryHDU().header
    primary["FILTER"] = f"HSC-{band.upper()}"
    primary["FLUXMAG0"] = (float(10 ** (0.4 * INSTRUMENT.zero_point)), "counts of magnitude 0")
    primary["SIMULATE"] = (True, "simulated, not observed")
    image = fits.ImageHDU(np.zeros((height, width), np.float32)).header
    image.update(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRPIX1=(width + 1) / 2, CRPIX2=(height + 1) / 2)
    image.update(CRVAL1=(0.0, "deg"), CRVAL2=(0.0, "deg"), RADESYS="ICRS")
    image.update(CD1_1=-INSTRUMENT.pixel_scale / 3600, CD2_2=INSTRUMENT.pixel_scale / 3600)
    return primary.tostring().encode(), image


def write_fits(path: Path, image: np.ndarray, ra: float, dec: float, band: str = "i") -> None:
    """Write `image` (size, size) of a band with a tangential WCS centred on (`ra`, `dec`) degrees.

    HDU 0 has only a header, with FLUXMAG0 and FILTER; HDU 1 holds the image as float32.
    """
    primary, header = _headers(*image.shape, band)
    header["CRVAL1"], header["CRVAL2"] = float(ra), float(dec)
    pixels = image.astype(">f4").tobytes()
    path.write_bytes(primary + header.tostring().encode() + pixels + bytes(-len(pixels) % _RECORD))
