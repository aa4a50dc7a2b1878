"""What a FITS file's headers say of its images: which one it is, in which band, how bright, how large."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from lensq.survey.hdus import Hdu, UnusableError

_IMAGES = frozenset(("SCI", "SCIENCE", "IMAGE", "IMG", "FLUX", "DATA", "COADD"))
_COMPANIONS = frozenset(
    (
        *(
            "MSK",
            "BPM",
            "DQ",
            "DQF",
            "OBM",
            "CRMASK",
            "VAR",
            "IVAR",
            "IVM",
            "INV",
            "WHT",
            "WGT",
            "WT",
            "OOD",
            "OOW",
        ),
        *(
            "ERR",
            "RMS",
            "STD",
            "STDEV",
            "STDDEV",
            "STAT",
            "CHI",
            "EXP",
            "NEXP",
            "NUM",
            "TIME",
            "EXPTIME",
            "EXPWT",
        ),
        *(
            "BKG",
            "BG",
            "SKY",
            "SEG",
            "BLOB",
            "RES",
            "MOD",
            "QUAL",
            "CTX",
            "CON",
            "SAMP",
            "SNR",
            "NIMAGE",
            "COPSF",
        ),
        *("DARK", "FLAT", "BIAS", "DEPTH", "KERNEL", "BEAM", "OBJMASK", "BADPIX", "INVERSE"),
    )
)
_COMPANION = re.compile(
    "(N|INV|I|PSF|GAL|SUB)?(MASK|VARIAN|INVVAR|WEIGHT|WTMAP|BACKGR|RESID|MODEL|EXPOS|UNCERT|ERROR|SEGM|FLAG|QUALIT|"
    "PSF|BADPIX|COVER|CONFID|NOISE|SIGMA|DQMASK|DEPTH)"
)
_BESIDE = re.compile(
    r"(?<![a-zA-Z0-9])(psf|mask|msk|maskbits|invvar|ivar|variance|var|weight|wht|wt|rms|err|error|sigma|bkg|sky|"
    r"background|model|resid|residual|segm|segmentation|exp|exposure|num|nexp|expwt|chi2|dq|bpm|ood|oow)"
    r"(?![a-zA-Z0-9])",
    re.IGNORECASE,
)
_INSTRUMENT = r"(?:HSC|LSST|LSSTCAM|PS1|PANSTARRS|DECAM|DES|SDSS|CFHT|MEGACAM|OCAM|OMEGACAM|KIDS|VST|UNIONS)"
_BAND = re.compile(rf"(?:{_INSTRUMENT}[-_. ]?)?([UGRIZY])(?:\d|P|'|[-_. ].*|{_INSTRUMENT})?", re.IGNORECASE)
_IN_FILE_NAME = re.compile(r"HSC-([GRIZY])\d?(?![A-Z])|(?<![^-_.])([ugrizy])(?![^-_.])")
_FLUX_UNIT = re.compile(
    r"(n|nano|u|µ|micro|m|milli)?(jy|jansky|maggy|maggies|mgy)(\s*/?\s*(pix|pixel)(\^?-1)?)?", re.I
)
_PREFIX = {"n": 9, "nano": 9, "u": 6, "µ": 6, "micro": 6, "m": 3, "milli": 3, "": 0}
_MAGNITUDES = ("MAGZERO", "MAGZPT", "ZEROPNT", "PHOTZP")
_BAD = ("BAD", "SAT", "NO_DATA", "CR", "UNMASKEDNAN")
_LEGACY_BITS = {  # SATUR_<band> and ALLMASK_<band>, https://www.legacysurvey.org/dr10/bitmasks
    "g": (2, 5),
    "r": (3, 6),
    "z": (4, 7),
    "i": (14, 15),
}


@dataclass(frozen=True)
class Choice:
    """The image of a file.

    Attributes:
        hdu: where it is.
        plane: which plane of a cube it is; None if the HDU has this image alone.
        band: "i", "g", ... or what the file calls it; "" if it does not say.
        bands: all bands of the file.
    """

    hdu: Hdu
    plane: int | None
    band: str
    bands: tuple[str, ...]


def words(hdu: Hdu) -> list[str]:
    """The words of an HDU's name and type, in capitals, without digits at their ends."""
    keywords = ("EXTNAME", "EXTTYPE", "IMAGETYP", "PRODTYPE", "HDUCLAS2")
    said = " ".join(hdu.text(keyword) for keyword in keywords if keyword in hdu.cards)
    return [word.rstrip("0123456789") or word for word in re.findall("[A-Z0-9]+", said.upper())]


def companion(hdu: Hdu) -> str:
    """The word by which an HDU says that it goes with an image and is none: a mask, a variance; or ""."""
    said = [word for word in words(hdu) if word in _COMPANIONS or _COMPANION.match(word)]
    bits = [key for key in hdu.cards if key.startswith(("MP_", "MSKN"))]
    return (said or bits or [""])[0]


def band_name(text: str) -> str:
    """The usual name of a band: i of HSC-I, i2, i.MP9702, "i DECam SDSS c0003"; others as they are.

    Args:
        text: what a header calls it.
    """
    match = _BAND.fullmatch(text.strip())
    return match[1].lower() if match else text.strip().upper()


def band_of_file_name(name: str) -> str:
    """The band that a file's name has as a part of its own (HSC-I, .stk.i., -image-r); "" if not just one."""
    found = {(hsc or other).lower() for hsc, other in _IN_FILE_NAME.findall(PurePath(name).name)}
    return found.pop() if len(found) == 1 else ""


def images_beside(name: str) -> list[str]:
    """Names that the image would have which a file of this name goes with as a mask, weight, PSF or the like.

    Such a file is a companion if one of them lies beside it: a.weight.fits or a_mask.fits beside a.fits,
    x-invvar-i.fits beside x-image-i.fits.
    """
    found = []
    for match in _BESIDE.finditer(name):
        before, after = name[: match.start()], name[match.end() :]
        found += [before[:-1] + after, before + after[1:]]
        found += [before + word + after for word in ("image", "img", "sci", "ooi", "calexp")]
    return found


def bands_of(hdu: Hdu) -> tuple[str, ...]:
    """The bands of an HDU, one for each plane of a cube, by its own header; () if it has none.

    Raises:
        UnusableError: its cards contradict each other.
    """
    listed = hdu.text("BANDS")
    listed = [
        band_name(each) for each in (re.findall(r"\w+", listed) if "," in listed or " " in listed else listed)
    ]
    if len(hdu.shape) == 3:
        n = hdu.shape[0]
        first = 0 if "BAND0" in hdu.cards else 1
        numbered = [band_name(hdu.text(f"BAND{first + k}")) for k in range(n)]
        found = {tuple(each) for each in (listed, numbered) if len(each) == n and all(each)}
    else:
        named = [word for word in words(hdu) if word not in _IMAGES | {"COMPRESSED", "BAND", "HSC"}]
        name = "_".join(named)
        said = [band_name(hdu.text(key)) for key in ("BAND", "FILTER", "FPA.FILTERID") if hdu.text(key)]
        known = _BAND.fullmatch(name) or re.fullmatch("VIS|(NIR|NISP)_[YJH]|F\\d{3,4}[A-Z]+", name)
        said += [band_name(name)] * bool(known) + (listed if len(listed) == 1 else [])
        found = {(each,) for each in said}
    if len(found) > 1:
        raise UnusableError(
            "ambiguous", f"{hdu.in_words()} is in the bands {' and '.join(map(''.join, found))}"
        )
    return found.pop() if found else ()


def choose(hdus: list[Hdu], band: str, name: str, damaged: UnusableError | None) -> Choice:
    """Choose the image of a file.

    1. An HDU that says that it is a companion (inverse variance, variance, mask, model, residual, PSF,
       background, exposure) by EXTNAME, EXTTYPE, IMAGETYP, PRODTYPE or HDUCLAS2 is none, nor is a table, an
       empty HDU or an extension without a name behind a mask of HSC.
    2. What is left is two-dimensional, or a cube whose bands are declared by BANDS or BAND<k>.
    3. A two-dimensional primary image is the image, unless extensions hold it in other bands.
    4. Without one, extensions that declare themselves an image (SCI, IMAGE, FLUX, DATA, or a band's name)
       come before those that declare nothing.
    5. If several are left, each has to declare its band (EXTNAME, BAND, FILTER, BANDS), and the one of the
       band asked for is taken; if it is not there, the file is refused.
    6. A file that holds one image is read in whatever band that is.
    7. Anything else is ambiguous and refused.

    Args:
        hdus: those of the file.
        band: the band asked for.
        name: the file's name.
        damaged: why the HDUs end before the file does, if they do.

    Raises:
        UnusableError: there is no image, or not one alone.
    """
    images = [hdu for hdu in hdus if len(hdu.shape) > 1 and min(hdu.shape) > 0 and not companion(hdu)]
    if len(hdus) > 2:
        after = {hdu.index + 1 for hdu in hdus if any(key.startswith("MP_") for key in hdu.cards)}
        images = [hdu for hdu in images if hdu.index not in after or words(hdu)]
    bands = {hdu.index: bands_of(hdu) for hdu in images}
    usable = [hdu for hdu in images if len(hdu.shape) == 2 or (len(hdu.shape) == 3 and bands[hdu.index])]
    if not usable:
        raise damaged or _no_image(hdus)
    declared = [hdu for hdu in usable if not _IMAGES.isdisjoint(words(hdu)) or bands[hdu.index]]
    if usable[0].index == 0 and len(usable[0].shape) == 2:
        others = [hdu for hdu in usable[1:] if bands[hdu.index]]
        usable = [usable[0], *others]
    else:
        usable = declared or usable
    planes = [(hdu, k, each) for hdu in usable for k, each in enumerate(bands[hdu.index] or ("",))]
    found = tuple(each for _, _, each in planes if each)
    chosen = [plane for plane in planes if plane[2] == band_name(band)] if len(planes) > 1 else planes
    if (len(planes) > 1 and len(found) < len(planes)) or len(chosen) > 1:
        raise UnusableError("ambiguous", " and ".join(hdu.in_words() for hdu in usable))
    if not chosen:
        raise damaged or UnusableError("no such band", f"{band} was asked for, there are {', '.join(found)}")
    hdu, k, own = chosen[0]
    if not own:
        own = "".join(bands_of(hdus[0]) if not hdus[0].shape else ()) or band_of_file_name(name)
        found = (own,) if own else ()
    if damaged and own != band_name(band) and own:
        raise damaged
    return Choice(hdu, k if len(hdu.shape) == 3 else None, own, found)


def _no_image(hdus: list[Hdu]) -> UnusableError:
    said = ", ".join(hdu.in_words() for hdu in hdus if hdu.shape)
    wrong = any(
        hdu.shape and (len(hdu.shape) != 2 or not min(hdu.shape)) and not companion(hdu) for hdu in hdus
    )
    if wrong:
        return UnusableError("wrong dimensions", f"{said}; a cube needs its bands in BANDS")
    return UnusableError("no image", f"in none of {len(hdus)} HDUs{f', which have {said}' if said else ''}")


def zero_point(hdu: Hdu, primary: Hdu) -> tuple[float, str]:
    """AB magnitude of one unit of flux, and the card that says so; NaN and "" where none does.

    FLUXMAG0, MAGZERO, MAGZPT, ZEROPNT, PHOTZP, FPA.ZP with EXPTIME (Pan-STARRS) and BUNIT (nJy, uJy, mJy, Jy,
    nanomaggy, maggy) are looked for in the image's header, each of them that is missing in the primary one.

    Raises:
        UnusableError: two of them differ by more than .01 mag.
    """
    found = {}
    for key in ("FLUXMAG0", *_MAGNITUDES, "FPA.ZP", "BUNIT"):
        where = hdu if key in hdu.cards else primary
        if key not in where.cards:
            continue
        value = where.number(key)
        if key == "FLUXMAG0":
            value = 2.5 * math.log10(value) if value > 0 and math.isfinite(value) else math.nan
        elif key == "FPA.ZP":
            seconds = (hdu if "EXPTIME" in hdu.cards else primary).number("EXPTIME")
            value += 2.5 * math.log10(seconds) if seconds > 0 else math.nan
        elif key == "BUNIT":
            key, value = f"BUNIT {where.text(key)}", _of_unit(where.text(key))
        if -1 < value < 50 and (value > 5 or key.startswith("BUNIT")):
            found[key] = value
    if found and max(found.values()) - min(found.values()) > 0.01:
        said = ", ".join(f"{key} says {value:.2f}" for key, value in found.items())
        raise UnusableError("ambiguous", f"zero points that differ: {said}")
    key = next(iter(found), "")
    return found.get(key, math.nan), key


def _of_unit(unit: str) -> float:
    match = _FLUX_UNIT.fullmatch(unit.strip())
    if not match or (match[1] or "").startswith("M"):
        return math.nan
    return 2.5 * _PREFIX[(match[1] or "").lower()] + (8.9 if match[2][0] in "jJ" else 0)


def pixel_scale(hdu: Hdu) -> float:
    """Arcseconds a pixel, by its area, from the CD or CDELT and PC cards; NaN without a celestial WCS."""
    if not re.match("RA-|DEC-|.LON|.LAT", hdu.text("CTYPE1")) or hdu.text("CUNIT1") not in ("", "deg"):
        return math.nan
    matrix, scale = (
        ("CD", 1.0) if any(f"CD{i}_{j}" in hdu.cards for i in (1, 2) for j in (1, 2)) else ("PC", None)
    )
    if scale is None:
        scale = hdu.number("CDELT1", 1.0) * hdu.number("CDELT2", 1.0)
    a, b, c, d = (
        hdu.number(f"{matrix}{i}_{j}", float(i == j and matrix == "PC")) for i in (1, 2) for j in (1, 2)
    )
    area = abs(scale * (a * d - b * c))
    return 3600 * math.sqrt(area) if 0 < area < math.inf else math.nan


def companions_of(choice: Choice, hdus: list[Hdu]) -> tuple[Hdu | None, Hdu | None]:
    """The variance (or inverse variance) and the mask of an image, where there is just one of each."""
    hdu, single = choice.hdu, []
    for kinds in (("VAR", "VARIANCE", "IVAR", "INVVAR", "IVM"), ("MASK", "MSK", "MASKBITS", "MP_", "MSKN")):
        found = []
        for each in hdus:
            word = companion(each)
            if not word.startswith(kinds) or (kinds[0] == "VAR" and word not in kinds):
                continue
            bands = bands_of(each)
            same = not bands or bands == bands_of(hdu) or choice.band in bands
            if same and each.shape in (hdu.shape, hdu.shape[-2:]):
                found.append(each)
        single.append(found[0] if len(found) == 1 else None)
    return single[0], single[1]


def to_variance(plane: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Variance from a variance or inverse variance plane, float32; NaN where it is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        variance = (1 / plane if {"IVAR", "INVVAR", "IVM"} & set(words(hdu)) else plane).astype(np.float32)
        return np.where((variance > 0) & np.isfinite(variance), variance, np.float32(np.nan))


def bad_bits(mask: Hdu, band: str) -> int:
    """The bits of a mask that say that a pixel has no data: by name in MP_ and MSKN cards, or Legacy's.

    MP_<name> is the bit's number; MSKN<k> the name of bit k, whose value MSKM<k> may give.
    """
    bits = 0
    for key in mask.cards:
        if key.startswith("MP_") and key[3:] in _BAD:
            bits |= 1 << mask.integer(key, 0, 62)
        elif re.fullmatch(r"MSKN\d+", key) and mask.text(key).upper() in _BAD:
            value = f"MSKM{key[4:]}"
            bits |= mask.integer(value, 0) if value in mask.cards else 1 << min(int(key[4:]), 62)
    if "MASKBITS" in words(mask):
        bits |= sum(1 << bit for bit in _LEGACY_BITS.get(band, ()))
    return bits


def linear(pixels: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Undo the scale of Pan-STARRS' stacks (asinh magnitudes; BSOFTEN, BOFFSET), where there is one.

    Flux = BOFFSET + 2 BSOFTEN sinh(v / a), a = 2.5 / ln 10 (Waters et al. 2020, ApJS 251, 4).
    """
    soft, offset = hdu.number("BSOFTEN"), hdu.number("BOFFSET")
    if math.isnan(soft) and math.isnan(offset):
        return pixels
    if not (0 < soft < math.inf and math.isfinite(offset)):
        raise UnusableError("ambiguous", f"asinh scale with BSOFTEN {soft:g} and BOFFSET {offset:g}")
    with np.errstate(over="ignore", invalid="ignore"):
        return offset + 2 * soft * np.sinh(pixels.astype(np.float64) / (2.5 / math.log(10)))
