"""What a FITS file's headers say of its images: which one it is, in which band, how bright, how large."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

import numpy as np

from lensq.survey.hdus import Hdu, UnusableError

_NAMES = ("EXTNAME", "EXTTYPE", "IMAGETYP", "PRODTYPE", "HDUCLAS2")
_IMAGES = frozenset(("SCI", "SCIENCE", "IMAGE", "IMG", "FLUX", "DATA", "COADD"))
_NO_BAND = _IMAGES | {"BAND", "HSC"}
_INVERSE = frozenset(("IVAR", "INVVAR", "IVM", "INV", "INVERSE"))
_VARIANCES = frozenset(("VAR", "VARIANCE", "IVAR", "INVVAR", "IVM"))
_COMPANION = re.compile(
    "((N|INV|I|PSF|GAL|SUB|OBJ|CR|BLOB)?(MASK|WEIGHT|WTMAP|BACKGR|RESID|MODEL|EXPOS|UNCERT|ERROR|SEGM|FLAG|QUALIT|"
    "PSF|BADPIX|COVER|CONFID|NOISE|SIGMA|DQ|DEPTH|INVERSE)[A-Z0-9]*|(INV|I)?VAR(IANCES?)?|MSK(IMG)?|BPM|OBM|IVM|INV|"
    "WHT|WGT|WEI|WT|OOD|OOW|ERR|UNC|RMS|STD|STDEV|STDDEV|STAT|CHI|EXP|NEXP|NUM|TIME|EXPTIME|EXPWT|BKG|BG|SKY|SEG|BLOB|"
    "RES|MOD|QUAL|CTX|CON|CONF|SAMP|SNR|NIMAGE|DARK|FLAT|BIAS|KERNEL|BEAM)([-_. ]?MAPS?)?",
    re.IGNORECASE,
)
_BESIDE = re.compile(rf"(?<![A-Z0-9]){_COMPANION.pattern}\d*(?![A-Z0-9])", re.IGNORECASE)
INSTRUMENT = "(HSC|LSST|LSSTCAM|PS1|PANSTARRS|DECAM|DES|SDSS|CFHT|MEGACAM|OCAM|OMEGACAM|KIDS|VST|UNIONS|ZTF|"
INSTRUMENT += "BAND|FILTER)"
OTHER_BAND = r"VIS|(NIR|NISP)_[YJH]|F\d{3,4}[A-Z]+"
_BAND = re.compile(rf"({INSTRUMENT}[-_. ]?)?(?P<band>[UGRIZY])(\d|P|'|[-_. ].*)?", re.IGNORECASE)
_OTHER_BAND = re.compile(OTHER_BAND)
_IN_FILE_NAME = re.compile(r"HSC-([GRIZY])\d?(?![A-Z])|(?<![^-_.])([ugrizy])(?![^-_.])")
_FLUX_UNIT = re.compile(
    r"(?:(\d+\.?\d*(?:[eE][+-]?\d+)?)\**)?((?i:n|nano|u|mu|µ|micro|milli)|m|)"
    r"((?i:jy|janskys?|maggy|maggies|mgy))(?i:/(pix(el)?|px))?"
)
_POWER = re.compile(r"10(\*\*|\^)\(?([+-]?\d+)\)?")
_RATE = re.compile(r"(e-?|electrons?|counts?)(/s(ec)?|s-1)|cps", re.IGNORECASE)
_PER_STERADIAN = ("MJy/sr", "MJY/SR", "MJysr-1")
_POWERS = {"n": 9, "nano": 9, "u": 6, "mu": 6, "µ": 6, "micro": 6, "m": 3, "milli": 3, "": 0}
_ANGLES = {"": 3600.0, "deg": 3600.0, "degree": 3600.0, "degrees": 3600.0, "arcmin": 60.0, "arcsec": 1.0}
_COSMIC_RAYS = frozenset(("CR", "COSMIC_RAY"))
_BAD = _COSMIC_RAYS | {"BAD", "SAT", "SATURATED", "NO_DATA", "UNMASKEDNAN", "UNMASKED_NAN"}
_OF_COADDS = frozenset(("CLIPPED", "REJECTED", "SENSOR_EDGE", "INEXACT_PSF"))
"""Planes that the pipeline of HSC and Rubin adds to the masks of coadds alone."""
_LEGACY_BITS = {"g": 0x24, "r": 0x48, "z": 0x90, "i": 0xC000}
"""SATUR and ALLMASK of a band in MASKBITS, https://www.legacysurvey.org/dr10/bitmasks."""


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
    return list(_words(" ".join([hdu.text(key) for key in _NAMES if key in hdu.cards]).upper()))


@lru_cache
def _words(said: str) -> tuple[str, ...]:
    found = re.findall("[A-Z0-9]+", said.replace("COMPRESSED_IMAGE", ""))
    return tuple(word.rstrip("0123456789") or word for word in found)


def is_companion(hdu: Hdu) -> bool:
    """Whether an HDU says that it goes with an image and is none itself: a mask, a variance, a PSF."""
    return any(map(_COMPANION.fullmatch, words(hdu))) or _has_bits(hdu)


def _has_bits(hdu: Hdu) -> bool:
    bits = b"MP_" in hdu.header or b"MSKN" in hdu.header
    return bits and any(key.startswith(("MP_", "MSKN")) for key in hdu.cards)


def band_name(text: str) -> str:
    """The usual name of a band: i of HSC-I, i2, i.MP9702, "i DECam SDSS c0003"; others as they are.

    Args:
        text: what a header calls it.
    """
    match = _BAND.fullmatch(text.strip())
    return match["band"].lower() if match else text.strip().upper()


def band_names(text: str | Sequence[str]) -> tuple[str, ...]:
    """The names in a list of bands, in its order: "gri", "VIS,Y,J" or ["g", "r", "i"].

    Args:
        text: one letter a band, or names with commas between them, or one name; or a sequence of names.

    Raises:
        ValueError: there is no band in it, or one twice.
    """
    if isinstance(text, str):
        text = list(text) if re.fullmatch("[ugrizyjhk]+", text) else text.split(",")
    names = tuple(band_name(str(each)) for each in text)
    once = names and len(set(names)) == len(names)
    if not once or not all(re.fullmatch(r"[\w.+-]+", name) for name in names):
        raise ValueError(f"bands: expected names of bands such as 'gri', each once, got {text!r}")
    return names


def listed_bands(text: str) -> list[str]:
    """The names of bands in a text: letters, or words with commas, semicolons or blanks between."""
    words = re.findall(r"[^\s,;]+", text)
    letters = len(words) == 1 and re.fullmatch("[ugrizyjhkUGRIZYJHK]+", words[0])
    return list(words[0]) if letters else words


def band_of_file_name(name: str) -> str:
    """The band that a file's name has as a part of its own (HSC-I, .stk.i., -image-r); "" if not just one."""
    found = {(hsc or other).lower() for hsc, other in _IN_FILE_NAME.findall(PurePath(name).name)}
    return found.pop() if len(found) == 1 else ""


def images_beside(name: str) -> dict[str, str]:
    """Names that the image would have which a file of this name goes with, and the word of each that says so.

    Such a file is a companion (a mask, weight, PSF or the like) if one of them lies beside it: a.weight.fits
    or a_mask.fits beside a.fits, x-invvar-i.fits beside x-image-i.fits.
    """
    found = {}
    for match in _BESIDE.finditer(name):
        before, after = name[: match.start()], name[match.end() :]
        others = (before + word + after for word in ("image", "img", "sci", "sciimg", "ooi", "calexp"))
        found |= dict.fromkeys([before[:-1] + after, before + after[1:], *others], match[0].lower())
    return found


def bands_of(hdu: Hdu) -> tuple[str, ...]:
    """The bands of an HDU, one for each plane of a cube, by its own header; () if it has none.

    Raises:
        UnusableError: its cards contradict each other.
    """
    listed = listed_bands(hdu.text("BANDS"))
    if len(hdu.shape) == 3:
        first = 0 if "BAND0" in hdu.cards else 1
        numbered = [hdu.text(f"BAND{first + k}") for k in range(hdu.shape[0] if hdu.shape[0] < 100 else 0)]
        said = [each for each in (listed, numbered) if len(each) == hdu.shape[0] and all(each)]
    else:
        name = "_".join(
            [word for word in words(hdu) if word not in _NO_BAND and not _COMPANION.fullmatch(word)]
        )
        said = [[name]] if name and (_BAND.fullmatch(name) or _OTHER_BAND.fullmatch(name)) else []
        said += [
            [hdu.text(key)] for key in ("BAND", "FILTER", "FPA.FILTERID", "FILTNAME") if key in hdu.cards
        ]
        wheel = [hdu.text(key) for key in ("FILTER1", "FILTER2") if "FILTER" not in hdu.cards]
        said += [[each] for each in wheel if not re.match("CLEAR|OPEN", each.upper())]
        said = [each for each in (*said, listed) if len(each) == 1 and each[0]]
    found = {tuple([band_name(band) for band in each]) for each in said}
    if len(found) > 1:
        said = " and ".join(sorted(map("".join, found)))
        raise UnusableError("ambiguous", f"{hdu.in_words()} is in the bands {said}")
    return found.pop() if found else ()


def choose(hdus: list[Hdu], band: str, name: str, damaged: UnusableError | None) -> Choice:
    """Choose the image of a file.

    1. An HDU that says that it is a companion (inverse variance, variance, mask, model, residual, PSF,
       background, exposure) by EXTNAME, EXTTYPE, IMAGETYP, PRODTYPE or HDUCLAS2 is none, nor is a table, an
       empty HDU or an extension without a name behind a mask of HSC or Rubin (their variance).
    2. What is left is two-dimensional, or a cube whose bands are declared by BANDS or BAND<k>.
    3. A two-dimensional primary image is the image, unless extensions declare other bands.
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
    variances = {hdu.index + 1 for hdu in hdus if _has_bits(hdu) or hdu.text("EXTTYPE").upper() == "MASK"}
    images = [hdu for hdu in hdus if len(hdu.shape) in (2, 3) and min(hdu.shape) and not is_companion(hdu)]
    images = [hdu for hdu in images if hdu.index not in variances or words(hdu)]
    bands = {hdu.index: bands_of(hdu) for hdu in images}
    images = [hdu for hdu in images if len(hdu.shape) == 2 or bands[hdu.index]]
    if not images:
        raise damaged or _no_image(hdus)
    declared = [hdu for hdu in images if not _IMAGES.isdisjoint(words(hdu)) or bands[hdu.index]]
    if images[0].index == 0 and len(images[0].shape) == 2:
        images = [images[0], *(hdu for hdu in images[1:] if bands[hdu.index] not in ((), bands[0]))]
    else:
        images = declared or images
    planes = [(each, hdu, k) for hdu in images for k, each in enumerate(bands[hdu.index] or ("",))]
    found = tuple(each for each, _, _ in planes if each)
    chosen = [plane for plane in planes if plane[0] == band_name(band)] if len(planes) > 1 else planes
    if (len(planes) > 1 and len(found) < len(planes)) or len(chosen) > 1:
        raise UnusableError("ambiguous", " and ".join(hdu.in_words() for hdu in images))
    if not chosen:
        raise damaged or UnusableError("no such band", f"{band} was asked for, there are {', '.join(found)}")
    own, hdu, k = chosen[0]
    if not own:
        own = "".join(() if hdus[0].shape else bands_of(hdus[0])) or band_of_file_name(name)
        found = (own,) if own else ()
    if damaged and own not in ("", band_name(band)):  # what is lost may be in the band asked for
        raise damaged
    return Choice(hdu, k if len(hdu.shape) == 3 else None, own, found)


def _no_image(hdus: list[Hdu]) -> UnusableError:
    said = ", ".join(hdu.in_words() for hdu in hdus if hdu.shape)
    own = [hdu.shape for hdu in hdus if hdu.shape and not is_companion(hdu)]
    if any(len(shape) != 2 or not min(shape) for shape in own):
        return UnusableError("wrong dimensions", f"{said}; a cube needs its bands in BANDS")
    return UnusableError("no image", f"in none of {len(hdus)} HDUs{f', which have {said}' if said else ''}")


def zero_point(hdu: Hdu, primary: Hdu) -> tuple[float, str]:
    """AB magnitude of one unit of flux, and the card that says so; NaN and "" where none does.

    FLUXMAG0, MAGZERO, MAGZPT, ZEROPNT, PHOTZP (unless of Vega magnitudes), FPA.ZP with EXPTIME (Pan-STARRS),
    PHOTFLAM with PHOTPLAM (HST, counts a second) and BUNIT (nJy, uJy, mJy, Jy, nanomaggy, maggy, or a number
    of them; MJy/sr with PIXAR_SR, JWST) are looked for in the image's header, each that is missing there in
    that of a primary HDU without an image.

    Raises:
        UnusableError: two of them differ by more than .01 mag.
    """
    found = {}
    said = (hdu if "BUNIT" in hdu.cards else primary).text("BUNIT")
    unit = re.sub(r"\s", "", said)
    vega = any(each.text("PHOTSYS").upper().startswith("VEGA") for each in (hdu, primary))
    for key in ("FLUXMAG0", "MAGZERO", "MAGZPT", "ZEROPNT", "PHOTZP", "FPA.ZP", "PHOTFLAM", "BUNIT"):
        where = hdu if key in hdu.cards else primary
        value = where.number(key) if key in where.cards and key != "BUNIT" else math.nan
        if key == "FLUXMAG0":
            value = 2.5 * math.log10(value) if 0 < value < math.inf else math.nan
        elif key == "FPA.ZP" and key in where.cards:
            seconds = (hdu if "EXPTIME" in hdu.cards else primary).number("EXPTIME")
            value += 2.5 * math.log10(seconds) if 0 < seconds < math.inf else math.nan
        elif key in ("PHOTZP", "MAGZPT") and (vega or (key == "MAGZPT" and "MAGZRR" in where.cards)):
            value = math.nan  # MAGZRR: of CASU (VISTA, UKIRT), in Vega magnitudes and a second
        elif key == "PHOTFLAM" and key in where.cards:
            flux = value * where.number("PHOTPLAM") ** 2 * bool(_RATE.fullmatch(unit))  # erg/s/cm2/A
            value = -2.5 * math.log10(flux) - 2.407948 if flux > 0 else math.nan
        elif key == "BUNIT" and (match := _FLUX_UNIT.fullmatch(_POWER.sub(r"1e\2", unit))):
            key = f"BUNIT {said}"
            value = 2.5 * _POWERS[match[2].lower()] + 8.9 * (match[3].lower()[0] == "j")
            value -= 2.5 * math.log10(float(match[1] or 1))
        elif key == "BUNIT" and unit in _PER_STERADIAN and (area := where.number("PIXAR_SR")) > 0:
            key, value = "BUNIT MJy/sr", 8.9 - 2.5 * math.log10(1e6 * area)
        if 0 < value < 50 or (abs(value) < 0.001 and key.startswith(("PHOTZP", "BUNIT"))):
            found[key] = value
    if found and max(found.values()) - min(found.values()) > 0.01:
        said = ", ".join(f"{key} says {value:.2f}" for key, value in found.items())
        raise UnusableError("ambiguous", f"zero points that differ: {said}")
    key = next(iter(found), "")
    return found.get(key, math.nan), key


def pixel_scale(hdu: Hdu) -> float:
    """Arcseconds a pixel, by its area, from the CD or CDELT and PC cards; NaN without a celestial WCS.

    Raises:
        UnusableError: the sides of a pixel differ by more than 2%.
    """
    unit = _ANGLES.get(hdu.text("CUNIT1").lower())
    if not re.match("RA-|DEC-|.LON|.LAT", hdu.text("CTYPE1")) or not unit:
        return math.nan
    elements = ("1_1", "1_2", "2_1", "2_2")
    if any(f"CD{each}" in hdu.cards for each in elements):
        a, b, c, d = (hdu.number(f"CD{each}", 0.0) for each in elements)
    elif "CDELT1" not in hdu.cards:
        return math.nan
    else:
        a, b, c, d = (hdu.number(f"PC{each}", float(each[0] == each[2])) for each in elements)
        a, b = (each * hdu.number("CDELT1", 1.0) for each in (a, b))
        c, d = (each * hdu.number("CDELT2", 1.0) for each in (c, d))
    area, sides = abs(a * d - b * c), sorted([math.hypot(a, c), math.hypot(b, d)])
    if area and sides[1] > 1.02 * sides[0]:
        said = " x ".join(f"{unit * side:.3g}" for side in sides)
        raise UnusableError("wrong dimensions", f"pixels of {said} arcsec: bring them to squares")
    return unit * math.sqrt(area) if 0 < area < math.inf else math.nan


Plane = tuple[Hdu, int | None]
"""An HDU, and which plane of its cube; None if it is no cube."""


def companions_of(choice: Choice, hdus: list[Hdu]) -> tuple[Plane | None, list[Plane]]:
    """The variance (or inverse variance) of an image, where there is just one of its band, and its masks.

    What says no band holds for all of a file, but a variance beside images of several.
    """
    shape = choice.hdu.shape
    variances, masks = [], []
    for hdu in hdus:
        said = words(hdu)
        is_variance = not _VARIANCES.isdisjoint(said)
        is_mask = _has_bits(hdu) or any(word.startswith(("MASK", "MSK")) for word in said)
        if hdu is choice.hdu or hdu.shape[-2:] != shape[-2:] or not (is_variance or is_mask):
            continue
        bands, cube = bands_of(hdu), len(hdu.shape) == 3
        own = not bands or not choice.band or choice.band in bands
        place = bands.index(choice.band) if choice.band in bands else choice.plane
        if own and len(hdu.shape) < 4 and (not cube or choice.band in bands or hdu.shape == shape):
            plane = hdu, place if cube else None
            masks += [plane] * is_mask
            variances += [plane] * (is_variance and (cube or bool(bands) or len(choice.bands) < 2))
    return variances[0] if len(variances) == 1 else None, masks


def to_variance(plane: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Variance from a variance or inverse variance plane, float32; NaN where it is not positive."""
    with np.errstate(all="ignore"):
        variance = (plane if _INVERSE.isdisjoint(words(hdu)) else 1 / plane).astype(np.float32)
        return np.where((variance > 0) & np.isfinite(variance), variance, np.float32(np.nan))


def bad_bits(masks: Sequence[Hdu], band: str) -> list[int]:
    """The bits of each mask that say that a pixel has no data: by name in MP_ and MSKN cards, or Legacy's.

    MP_<name> is the bit's number; MSKN<k> the name of bit k, whose value MSKM<k> may give. In a coadd of HSC
    or Rubin, CR says that a cosmic ray hit one of its exposures; the pixel is as good as any other.
    """
    named = [{key: key[3:] for key in mask.cards if key.startswith("MP_")} for mask in masks]
    for names, mask in zip(named, masks, strict=True):
        names |= {key: mask.text(key).upper() for key in mask.cards if re.fullmatch(r"MSKN\d{1,4}", key)}
    of_coadd = any(not _OF_COADDS.isdisjoint(names.values()) for names in named)
    bad = _BAD - _COSMIC_RAYS if of_coadd else _BAD
    found = []
    for names, mask in zip(named, masks, strict=True):
        bits = _LEGACY_BITS.get(band, 0) if "MASKBITS" in words(mask) else 0
        for key in (key for key, name in names.items() if name in bad):
            value = f"MSKM{key[4:]}"
            if key.startswith("MP_"):
                bits |= 1 << mask.integer(key, 0, 62)
            else:
                bits |= mask.integer(value, 0) if value in mask.cards else 1 << min(int(key[4:]), 62)
        found.append(bits)
    return found


def has_asinh(hdu: Hdu) -> bool:
    """Whether a header has the scale of Pan-STARRS' stacks."""
    return not {"BSOFTEN", "BOFFSET"}.isdisjoint(hdu.cards)


def linear(pixels: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Undo the scale of Pan-STARRS' stacks (asinh magnitudes; BSOFTEN, BOFFSET).

    Flux = BOFFSET + 2 BSOFTEN sinh(v / a), a = 2.5 / ln 10 (Waters et al. 2020, ApJS 251, 4).
    """
    soft, offset = hdu.number("BSOFTEN"), hdu.number("BOFFSET")
    if not (0 < soft < math.inf and math.isfinite(offset)):
        raise UnusableError("ambiguous", f"asinh scale with BSOFTEN {soft:g} and BOFFSET {offset:g}")
    return offset + 2 * soft * np.sinh(pixels.astype(np.float64) / (2.5 / math.log(10)))
