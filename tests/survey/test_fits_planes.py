"""Which image of a file is taken, in which band, how bright and how large it is."""

import gzip

import cutouts
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from lensq.survey.fits import read_image
from lensq.survey.hdus import UnusableError
from lensq.survey.planes import band_name, band_of_file_name, images_beside

SIDE = 40
BANDS = "ugrizy"
IMAGES = {band: cutouts.pixels(SIDE, seed=k) for k, band in enumerate(BANDS)}
IMAGE = IMAGES["i"]
OTHER = np.full_like(IMAGE, 7)
OTHER[0] = 1
EMPTY = fits.PrimaryHDU()
HST = (
    -2.5 * np.log10(1.9275602e-20 * 15369.176**2 / 2.99792458e18) - 48.6
)  # erg/s/cm2/Hz, by the speed of light


def hdu(image, name=None, *, primary=False, **cards):
    made = fits.PrimaryHDU(image) if primary else fits.ImageHDU(image, name=name)
    for keyword, value in cards.items():
        made.header[keyword.replace("__", ".")] = value
    return made


def write(tmp_path, *hdus, name="a.fits"):
    path = tmp_path / name
    fits.HDUList([each.copy() for each in hdus]).writeto(path, overwrite=True)
    return path


def refused(path, **options):
    with pytest.raises(UnusableError) as caught:
        read_image(path, **options)
    return str(caught.value)


COMPANIONS = (
    *(
        "MODEL",
        "RESID",
        "RESIDUALS",
        "UNCERT",
        "UNCERTAINTY",
        "SKY",
        "BPM",
        "NEXP",
        "CHI2",
        "STD",
        "IVM",
        "INVVAR",
    ),
    *(
        "IVAR",
        "VARIANCE",
        "VAR",
        "ERR",
        "ERROR",
        "RMS",
        "SIGMA",
        "NOISE",
        "WHT",
        "WEIGHT",
        "WGT",
        "MASK",
        "MSK",
    ),
    *(
        "DQ",
        "QUALITY",
        "FLAGS",
        "PSF",
        "PSFMODEL",
        "PSF_MODEL",
        "BKG",
        "BACKGROUND",
        "EXP",
        "EXPOSURE",
        "EXPTIME",
    ),
    *(
        "COVERAGE",
        "SEGMENTATION",
        "SEGMAP",
        "MASKBITS",
        "DEPTH",
        "PSFDEPTH",
        "CTX",
        "SAMP",
        "TIME",
        "SNR",
        "STAT",
    ),
    *(
        "INVERSE VARIANCE",
        "INVERSE_VARIANCE",
        "NOISEMAP",
        "CONFIDENCE",
        "I_INVVAR",
        "VIS_RMS",
        "FLUX_ERR",
        "ERR2",
    ),
    *("BADPIX", "IMAGE_MASK", "FLUX_MODEL", "SCI_ERR", "OBJMASK", "CRMASK", "NIMAGE", "SUBMASK", "BLOB"),
)


@pytest.mark.parametrize("name", COMPANIONS)
def test_a_companion_is_never_the_image(tmp_path, name):
    companion = hdu(OTHER, name)
    for hdus in (
        [hdu(IMAGE, primary=True), companion],
        [EMPTY, companion, hdu(IMAGE)],
        [EMPTY, hdu(IMAGE, "SCI"), companion],
    ):
        np.testing.assert_array_equal(read_image(write(tmp_path, *hdus)).pixels, IMAGE)
    assert refused(write(tmp_path, EMPTY, companion)).startswith("no image")
    for keyword in ("EXTTYPE", "IMAGETYP", "HDUCLAS2"):
        assert refused(write(tmp_path, hdu(OTHER, primary=True, **{keyword: name}))).startswith("no image")


def renamed(path, old, new):
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    return path


def test_an_hdu_with_two_names_is_what_neither_library_says_alone(tmp_path):
    twice = hdu(IMAGE, "SCI", XTNAME="COMPRESSED_IMAGE")
    path = renamed(write(tmp_path, EMPTY, hdu(OTHER), twice), "XTNAME  =", "EXTNAME =")
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE)
    path = renamed(write(tmp_path, EMPTY, hdu(OTHER, "VARIANCE", XTNAME="SCI")), "XTNAME  =", "EXTNAME =")
    assert "(several values) for EXTNAME" in refused(path)


@pytest.mark.parametrize(
    "follower", [hdu(OTHER), hdu(OTHER, "XYZ"), hdu(OTHER, "SCI"), hdu(np.zeros((3, 9, 9)))]
)
def test_a_two_dimensional_primary_image_is_the_image(tmp_path, follower):
    np.testing.assert_array_equal(
        read_image(write(tmp_path, hdu(IMAGE, primary=True), follower)).pixels, IMAGE
    )


@pytest.mark.parametrize(
    "name", ["SCI", "SCI1", "IMAGE", "FLUX", "I_FLUX", "FLUX_I", "DATA", "HSC-I", "sci", "I"]
)
def test_declared_images_come_before_position(tmp_path, name):
    hdus = [EMPTY, hdu(OTHER), hdu(IMAGE, name), hdu(OTHER, "XYZ")]
    np.testing.assert_array_equal(read_image(write(tmp_path, *hdus)).pixels, IMAGE)


@pytest.mark.parametrize(
    "hdus",
    [
        [EMPTY, hdu(IMAGE), hdu(OTHER)],
        [EMPTY, hdu(IMAGE, "SCI"), hdu(OTHER, "SCI")],
        [EMPTY, hdu(IMAGE, "SCI"), hdu(OTHER, "IMAGE")],
        [EMPTY, hdu(IMAGE, "A"), hdu(OTHER, "B")],
        [EMPTY, hdu(IMAGE, "I"), hdu(OTHER, "I")],
        [EMPTY, hdu(IMAGE, "I"), hdu(OTHER, "SCI")],
        [hdu(OTHER, primary=True), hdu(IMAGE, "I"), hdu(OTHER, "R")],
        [EMPTY, hdu(IMAGE, "I", FILTER="r")],
        [EMPTY, hdu(IMAGE, BAND="i", FILTER="HSC-R")],
    ],
)
def test_what_is_ambiguous_is_refused_and_said(tmp_path, hdus):
    said = refused(write(tmp_path, *hdus))
    assert said.startswith("ambiguous: HDU ")
    assert f"{SIDE} x {SIDE} px" in said


def layouts():
    """Files that hold several bands, as different services write them."""
    yield "extensions", [EMPTY, *(hdu(IMAGES[b], b.upper()) for b in "grizy")], "grizy"
    yield "any order", [EMPTY, *(hdu(IMAGES[b], b.upper()) for b in "yzirg")], "yzirg"
    yield "FILTER", [EMPTY, *(hdu(IMAGES[b], "SCI", FILTER=f"HSC-{b.upper()}") for b in "gri")], "gri"
    flux = [hdu(IMAGES[b], f"{b.upper()}_FLUX") for b in "gri"]
    yield "flux", [EMPTY, *(each for f in flux for each in (f, hdu(OTHER, f"{f.name[0]}_INVVAR")))], "gri"
    yield (
        "primary first",
        [hdu(IMAGES["g"], primary=True, BAND="g", BANDS="griz"), hdu(IMAGE, BAND="i")],
        "gi",
    )
    legacy = [
        (hdu(IMAGES[b], BAND=b, IMAGETYP="image"), hdu(OTHER, BAND=b, IMAGETYP="invvar")) for b in "griz"
    ]
    yield "legacypipe", [EMPTY, *(each for pair in legacy for each in pair)], "griz"
    cube = np.stack([IMAGES[b] for b in "griz"])
    yield "cube", [hdu(cube, primary=True, BANDS="griz"), hdu(cube * 0 + 7, IMAGETYP="INVVAR")], "griz"
    numbered = {f"BAND{k}": b for k, b in enumerate("griz")}
    yield "numbered", [EMPTY, hdu(cube, "IMAGE", **numbered)], "griz"
    yield "from one", [hdu(cube, primary=True, **{f"BAND{k + 1}": b for k, b in enumerate("griz")})], "griz"
    yield "listed", [hdu(cube, primary=True, BANDS="g, r, i, z")], "griz"


@pytest.mark.parametrize(
    ("hdus", "bands"), [each[1:] for each in layouts()], ids=[each[0] for each in layouts()]
)
def test_of_several_bands_the_one_asked_for_is_read(tmp_path, hdus, bands):
    path = write(tmp_path, *hdus)
    for band in bands:
        read = read_image(path, band=band)
        np.testing.assert_array_equal(read.pixels, IMAGES[band])
        assert (read.band, read.bands) == (band, tuple(bands))
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE)
    assert refused(path, band="u") == f"no such band: u was asked for, there are {', '.join(bands)}"


def test_a_cube_needs_as_many_bands_as_planes(tmp_path):
    cube = np.stack([IMAGE, OTHER])
    for cards in ({}, {"BANDS": "gri"}, {"BAND0": "g"}, {"FILTER": "i"}):
        assert refused(write(tmp_path, hdu(cube, primary=True, **cards))).startswith("wrong dimensions")
    clash = {"BANDS": "gi", "BAND0": "i", "BAND1": "g"}
    assert refused(write(tmp_path, hdu(cube, primary=True, **clash))).startswith("ambiguous")


def test_euclid_by_name(tmp_path):
    path = write(
        tmp_path,
        EMPTY,
        hdu(IMAGE, "VIS"),
        hdu(OTHER, "VIS_RMS"),
        hdu(IMAGES["y"], "NIR_Y"),
        hdu(OTHER, "NIR_H"),
    )
    np.testing.assert_array_equal(read_image(path, band="VIS").pixels, IMAGE)
    np.testing.assert_array_equal(read_image(path, band="nir_y").pixels, IMAGES["y"])
    assert refused(path).endswith("there are VIS, NIR_Y, NIR_H")


@pytest.mark.parametrize(
    ("name", "hdus", "band"),
    [
        ("a.fits", [EMPTY, hdu(IMAGE)], ""),
        ("a.fits", [hdu(IMAGE, primary=True, FILTER="g")], "g"),
        ("a.fits", [hdu(IMAGE, primary=True, FILTER="ZTF_r")], "r"),
        ("a.fits", [hdu(None, primary=True, FILTER1="CLEAR1L", FILTER2="F814W"), hdu(IMAGE, "SCI")], "F814W"),
        ("a.fits", [hdu(IMAGE, primary=True, FILTER1="i_G0302", FILTER2="open2-8")], "i"),
        ("a_HSC-I_img.fits", [hdu(None, primary=True, FILTER="HSC-R"), hdu(IMAGE)], "r"),
        ("J100000.00+020000.00_HSC-G_img.fits", [EMPTY, hdu(IMAGE)], "g"),
        ("2-cutout-HSC-Z-9813-pdr3_wide.fits", [EMPTY, hdu(IMAGE)], "z"),
        ("rings.v3.skycell.1234.056.stk.r.unconv.fits", [hdu(IMAGE, primary=True)], "r"),
        ("legacysurvey-0001m002-image-z.fits", [hdu(IMAGE, primary=True)], "z"),
        ("frame-r-001000-1-0100.fits", [hdu(IMAGE, primary=True)], "r"),
        ("g_r.fits", [hdu(IMAGE, primary=True)], ""),
        ("Sigma.fits", [EMPTY, hdu(IMAGE, "NIR_H")], "NIR_H"),
    ],
)
def test_one_band_alone_is_read_and_said(tmp_path, name, hdus, band):
    read = read_image(write(tmp_path, *hdus, name=name))
    np.testing.assert_array_equal(read.pixels, IMAGE)
    assert (read.band, read.bands) == (band, (band,) if band else ())


@pytest.mark.parametrize(
    "text", ["i", "I", "HSC-I", "HSC-I2", "i2", "i.00000", "i.MP9702", "i_06", "i DECam SDSS c0003"]
)
def test_names_of_a_band(text):
    assert band_name(text) == "i"
    assert band_name(text.replace("i", "r").replace("I", "R")) == "r"


def test_other_bands_keep_their_names():
    assert [band_name(text) for text in ("F814W", "VIS", "NIR_Y", "Ks", "clear")] == [
        "F814W",
        "VIS",
        "NIR_Y",
        "KS",
        "CLEAR",
    ]
    assert band_of_file_name("/g/r/obj_z.fits") == "z"


def test_names_of_companions_beside():
    assert "a.fits" in images_beside("a.weight.fits")
    assert "a.fits" in images_beside("a_mask.fits")
    assert "x-image-i.fits" in images_beside("x-invvar-i.fits")
    assert "c4d_150110_ooi_z.fits" in images_beside("c4d_150110_ood_z.fits")
    assert "KiDS_i_sci.fits" in images_beside("KiDS_i_wei.fits")
    assert images_beside("a_exposure_map.fits")["a.fits"] == "exposure_map"
    assert images_beside("J100000.00+020000.00_HSC-I_img.fits") == {}


@pytest.mark.parametrize(
    ("cards", "zero_point", "card"),
    [
        ({"FLUXMAG0": 10**10.8}, 27.0, "FLUXMAG0"),
        ({"FLUXMAG0": 10**9.0}, 22.5, "FLUXMAG0"),
        ({"MAGZERO": 24.6}, 24.6, "MAGZERO"),
        ({"MAGZPT": 25.0}, 25.0, "MAGZPT"),
        ({"ZEROPNT": 30}, 30.0, "ZEROPNT"),
        ({"PHOTZP": 31.4}, 31.4, "PHOTZP"),
        ({"BUNIT": "nJy"}, 31.4, "BUNIT nJy"),
        ({"BUNIT": "uJy"}, 23.9, "BUNIT uJy"),
        ({"BUNIT": "mJy"}, 16.4, "BUNIT mJy"),
        ({"BUNIT": "Jy"}, 8.9, "BUNIT Jy"),
        ({"BUNIT": "nanomaggy"}, 22.5, "BUNIT nanomaggy"),
        ({"BUNIT": "nanomaggies"}, 22.5, "BUNIT nanomaggies"),
        ({"BUNIT": "nmgy"}, 22.5, "BUNIT nmgy"),
        ({"BUNIT": "NANOMAGGY"}, 22.5, "BUNIT NANOMAGGY"),
        ({"BUNIT": "nanojansky"}, 31.4, "BUNIT nanojansky"),
        ({"FLUXMAG0": "1e9"}, 22.5, "FLUXMAG0"),
        ({"BUNIT": "maggy"}, 0.0, "BUNIT maggy"),
        ({"HIERARCH FPA.ZP": 25.0, "EXPTIME": 100.0}, 30.0, "FPA.ZP"),
        ({"FLUXMAG0": 10**10.8, "MAGZERO": 27.0, "BUNIT": "adu"}, 27.0, "FLUXMAG0"),
        ({"BUNIT": "10^-9 Jy"}, 31.4, "BUNIT 10^-9 Jy"),
        ({"BUNIT": "10**(-9) Jy"}, 31.4, "BUNIT 10**(-9) Jy"),
        ({"BUNIT": "1E-9 Jy"}, 31.4, "BUNIT 1E-9 Jy"),
        ({"BUNIT": "3.630780548 uJy"}, 22.5, "BUNIT 3.630780548 uJy"),
        ({"BUNIT": "micro janskys"}, 23.9, "BUNIT micro janskys"),
        ({"BUNIT": "muJy / px"}, 23.9, "BUNIT muJy / px"),
        ({"BUNIT": "MJy sr-1", "PIXAR_SR": 10**-13.4}, 27.4, "BUNIT MJy/sr"),
        ({"BUNIT": "electron s-1", "PHOTFLAM": 1.9275602e-20, "PHOTPLAM": 15369.176}, HST, "PHOTFLAM"),
        ({"MAGZERO": 25.5, "EXPTIME": "INDEF", "PHOTPLAM": "INDEF"}, 25.5, "MAGZERO"),
        ({"MAGZERO": 25.5, "MAGZPT": 23.6, "MAGZRR": 0.01}, 25.5, "MAGZERO"),
        ({"MAGZERO": 25.5, "MAGZPT": 23.6, "PHOTSYS": "VEGAMAG"}, 25.5, "MAGZERO"),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 10**-13.4}, 27.4, "BUNIT MJy/sr"),  # 10**-7.4 Jy a pixel
        ({"PHOTZP": 0.0, "BUNIT": "ADU"}, 0.0, "PHOTZP"),
        ({"PHOTZP": 23.5, "PHOTSYS": "VEGA", "MAGZERO": 24.4}, 24.4, "MAGZERO"),
        ({"BUNIT": "ELECTRONS/S", "PHOTFLAM": 1.9275602e-20, "PHOTPLAM": 15369.176}, HST, "PHOTFLAM"),
    ],
)
def test_flux_comes_to_zero_point_27(tmp_path, cards, zero_point, card):
    image = (IMAGE * 10 ** (0.4 * (zero_point - 27))).astype(np.float32)
    variance = np.full_like(IMAGE, 0.04 * 10 ** (0.8 * (zero_point - 27)))
    for primary in (True, False):
        first = hdu(None, primary=True, **(cards if primary else {}))
        second = hdu(image, "IMAGE", **({} if primary else cards))
        read = read_image(write(tmp_path, first, second, hdu(variance, "VARIANCE")), zero_point=20)
        np.testing.assert_allclose(read.pixels, IMAGE, rtol=1e-5)
        np.testing.assert_allclose(read.variance, 0.04, rtol=1e-5)
        assert read.zero_point == pytest.approx(zero_point)
        assert read.zero_point_from == card


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"BUNIT": "adu"},
        {"BUNIT": "MJy/sr"},
        {"BUNIT": "MJy"},
        {"BUNIT": "JY/BEAM"},
        {"MAGZERO": 0.0},
        {"MAGZERO": "none"},
        {"PHOTZP": 23.5, "PHOTSYS": "Vega"},
        {"BUNIT": "ELECTRONS", "PHOTFLAM": 1.9275602e-20, "PHOTPLAM": 15369.176},
        {"BUNIT": "ELECTRONS/S", "PHOTFLAM": 1.9275602e-20},
    ],
)
def test_an_undeclared_zero_point_is_the_given_one(tmp_path, cards):
    path = write(tmp_path, hdu(IMAGE, primary=True, **cards))
    read = read_image(path)
    np.testing.assert_array_equal(read.pixels, IMAGE)
    assert np.isnan(read.zero_point)
    assert read.zero_point_from == ""
    np.testing.assert_allclose(read_image(path, zero_point=22.5).pixels, IMAGE * 10**1.8, rtol=1e-6)


def test_zero_points_that_differ_are_refused(tmp_path):
    said = refused(write(tmp_path, hdu(IMAGE, primary=True, FLUXMAG0=10**10.8, BUNIT="nJy")))
    assert said == "ambiguous: zero points that differ: FLUXMAG0 says 27.00, BUNIT nJy says 31.40"
    assert refused(
        write(tmp_path, hdu(None, primary=True, MAGZERO=25.0), hdu(IMAGE, MAGZPT=30.0))
    ).startswith("ambiguous")


def test_asinh_stacks_are_linear_again(tmp_path):
    soft, offset = 1.2, 0.3
    stored = 2.5 / np.log(10) * np.arcsinh((IMAGE.astype(float) - offset) / (2 * soft))
    read = read_image(write(tmp_path, hdu(stored, primary=True, BSOFTEN=soft, BOFFSET=offset)))
    np.testing.assert_allclose(read.pixels, IMAGE, rtol=1e-5, atol=1e-5)
    first = hdu(None, primary=True, BSOFTEN=soft, BOFFSET=offset)
    read = read_image(write(tmp_path, first, hdu(stored, "SCI"), hdu(np.ones_like(IMAGE), "VARIANCE")))
    np.testing.assert_allclose(read.pixels, IMAGE, rtol=1e-5, atol=1e-5)
    assert read.variance is None
    for cards in ({"BSOFTEN": soft}, {"BOFFSET": offset}, {"BSOFTEN": 0.0, "BOFFSET": offset}):
        assert "asinh" in refused(write(tmp_path, hdu(stored, primary=True, **cards)))


@pytest.mark.parametrize(
    "cards",
    [
        {"CD1_1": -4.67e-5, "CD2_2": 4.67e-5},
        {"CD1_1": 3e-5, "CD1_2": 4e-5, "CD2_1": 4e-5, "CD2_2": -3e-5},
        {"CDELT1": -7.3e-5, "CDELT2": 7.3e-5},
        {"CDELT1": -0.262, "CDELT2": 0.262, "CUNIT1": "arcsec", "CUNIT2": "arcsec"},
        {"CDELT1": -4.4e-3, "CDELT2": 4.4e-3, "CUNIT1": "arcmin", "CUNIT2": "arcmin"},
        {"CDELT1": -5e-5, "CDELT2": 5e-5, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    ],
)
def test_the_pixel_scale_is_that_of_the_wcs(tmp_path, cards):
    made = hdu(IMAGE, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, **cards)
    expected = 3600 * np.sqrt(np.prod(proj_plane_pixel_scales(WCS(made.header))))
    assert read_image(write(tmp_path, EMPTY, made)).pixel_scale == pytest.approx(expected, rel=1e-6)
    assert np.isnan(read_image(write(tmp_path, EMPTY, hdu(IMAGE))).pixel_scale)


def test_a_zero_point_is_not_that_of_another_image(tmp_path):
    soft = {"BSOFTEN": 3.0, "BOFFSET": 1.0}
    first = hdu(IMAGES["g"], primary=True, FILTER="g", MAGZERO=25.0, **soft)
    read = read_image(write(tmp_path, first, hdu(IMAGE, FILTER="i")), band="i")
    np.testing.assert_array_equal(read.pixels, IMAGE)
    assert read.zero_point_from == ""
    for first, second in (({"PHOTSYS": "VEGA"}, {"PHOTZP": 25.0}), ({"PHOTZP": 25.0}, {"PHOTSYS": "Vega"})):
        path = write(tmp_path, hdu(None, primary=True, **first), hdu(IMAGE, "SCI", **second))
        assert read_image(path).zero_point_from == ""
    both = hdu(IMAGE, primary=True, BUNIT="MJy/sr", PIXAR_SR=2e-14, MAGZERO=25.0)
    assert "zero points that differ" in refused(write(tmp_path, both))


@pytest.mark.parametrize("keyword", ["FILTER", "BUNIT", "PHOTSYS", "CTYPE1"])
def test_a_keyword_that_is_asked_for_has_one_value(tmp_path, keyword):
    values = {"FILTER": "ir", "BUNIT": ("nJy", "uJy")}.get(keyword, ("RA---TAN", "VEGA"))
    made = hdu(IMAGE, primary=True, CTYPE2="DEC--TAN", CDELT1=1e-4, CDELT2=1e-4)
    made.header[keyword], made.header["XXXX"] = values
    path = renamed(write(tmp_path, made), "XXXX    =", f"{keyword:8}=")
    assert f"(several values) for {keyword}" in refused(path)
    made.header["XXXX"] = values[0], "with a comment of its own"
    read_image(renamed(write(tmp_path, made), "XXXX    =", f"{keyword:8}="))


@pytest.mark.parametrize(
    ("bands", "found"),
    [("HSC-R,HSC-I", ("r", "i")), ("r, i", ("r", "i")), ("RI", ("r", "i")), ("r;i", ("r", "i")), ("VIS", ())],
)
def test_names_of_bands_stay_whole(tmp_path, bands, found):
    for planes in (2, 3, 4):
        path = write(
            tmp_path, hdu(np.stack([OTHER, IMAGE, *[OTHER] * (planes - 2)]), primary=True, BANDS=bands)
        )
        if planes == len(found):
            read = read_image(path, band="i")
            assert read.bands == found
            np.testing.assert_array_equal(read.pixels, IMAGE)
        else:
            assert refused(path).startswith("wrong dimensions")


def test_without_a_step_there_is_no_pixel_scale(tmp_path):
    made = hdu(IMAGE, primary=True, CTYPE1="RA---TAN", CTYPE2="DEC--TAN")
    assert np.isnan(read_image(write(tmp_path, made)).pixel_scale)


@pytest.mark.parametrize(
    "cards",
    [
        {"CDELT1": -5e-5, "CDELT2": 6e-5},
        {"CD1_1": 3e-5, "CD1_2": 4.4e-5, "CD2_1": 4e-5, "CD2_2": -3.3e-5},
        {"CDELT1": -5e-5, "CDELT2": 6e-5, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    ],
)
def test_pixels_that_are_no_squares_are_refused(tmp_path, cards):
    said = refused(write(tmp_path, hdu(IMAGE, primary=True, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", **cards)))
    assert said.startswith("wrong dimensions: pixels of 0.1")


def test_fill_values_are_known_whatever_the_zero_point(tmp_path):
    image = IMAGE.copy()
    image[20, 20], image[21, 21] = -1e30, 1e30
    read = read_image(write(tmp_path, hdu(image, primary=True, BUNIT="nJy")))
    assert np.argwhere(np.isnan(read.pixels)).tolist() == [[20, 20], [21, 21]]


@pytest.mark.parametrize(
    ("name", "cards", "band"),
    [
        ("MASK", {"MP_BAD": 0, "MP_SAT": 1, "HIERARCH MP_NO_DATA": 8, "MP_CR": 3, "MP_EDGE": 4}, ""),
        ("MASK", {"MSKN0": "BAD", "MSKN1": "SAT", "MSKN8": "NO_DATA", "MSKN3": "CR", "MSKN4": "EDGE"}, ""),
        ("MASKBITS", {}, "r"),
    ],
)
def test_mask_planes_mask_what_has_no_data(tmp_path, name, cards, band):
    bad = {"": (1, 2, 256, 8, 9), "r": (8, 64, 72, 8 + 2, 64 + 1)}[band]
    plane = np.zeros(IMAGE.shape, np.int32)
    for row, value in enumerate(bad):
        plane[row] = value
    plane[10], plane[11] = 16, 4
    read = read_image(
        write(tmp_path, hdu(IMAGE, primary=True, FILTER=band or "i"), hdu(plane, name, **cards))
    )
    expected = IMAGE.copy()
    expected[:5] = np.nan
    np.testing.assert_array_equal(read.pixels, expected)


def test_planes_beside_a_cube_are_those_of_the_band(tmp_path):
    """A mask of two dimensions holds for all bands, cubes go by their own order, variances by their band."""
    cube = hdu(np.stack([IMAGES[band] for band in "gri"]), primary=True, BANDS="gri")
    flags = np.zeros(IMAGE.shape, np.int32)
    flags[3, 5], flags[8, 13], flags[2, 2] = 0x48, 0x8000, 0x1000
    everywhere = np.zeros((3, *IMAGE.shape), np.int32)
    everywhere[0, 6, 1] = everywhere[2, 9, 9] = 1
    planes = [np.full(IMAGE.shape, level, np.float32) for level in (1, 4, 9)]
    path = write(
        tmp_path,
        *(cube, hdu(flags, "MASKBITS"), hdu(everywhere, "MASK", BANDS="irg", MP_BAD=0)),
        hdu(np.stack(planes), "VARIANCE", BANDS="irg"),
    )
    for band, bad, noise in (("i", [(6, 1), (8, 13)], 1), ("r", [(3, 5)], 2), ("g", [(9, 9)], 3)):
        read = read_image(path, band=band)
        expected = IMAGES[band].copy()
        expected[tuple(np.transpose(bad))] = np.nan
        np.testing.assert_array_equal(read.pixels, expected)
        assert (read.variance.shape, read.noise) == (IMAGE.shape, noise)
    shared = write(tmp_path, cube, hdu(planes[0], "VARIANCE"), hdu(planes[1], "VARIANCE", FILTER="r"))
    assert read_image(shared, band="r").noise == 2
    assert read_image(shared, band="i").variance is None


def test_every_mask_masks(tmp_path):
    first, second = np.zeros((2, *IMAGE.shape), np.int32)
    first[4, 4], second[7, 7] = 1, 2
    masks = hdu(first, "MASK", MP_BAD=0), hdu(second, "IMAGE_MASK", MP_SAT=1)
    read = read_image(write(tmp_path, hdu(IMAGE, primary=True), *masks))
    assert np.argwhere(np.isnan(read.pixels)).tolist() == [[4, 4], [7, 7]]


@pytest.mark.parametrize("name", ["SATURATED", "COSMIC_RAY", "UNMASKED_NAN", "BAD"])
def test_masks_of_rubin_name_their_bits_in_four_digits(tmp_path, name):
    flags = np.zeros(IMAGE.shape, np.uint8)
    flags[2, 3], flags[4, 4] = 32, 1
    cards = {"MSKN0000": "EDGE", "MSKM0000": 1, "MSKN0005": name, "MSKM0005": 32}
    read = read_image(write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE"), hdu(flags, "MASK", **cards)))
    assert np.argwhere(np.isnan(read.pixels)).tolist() == [[2, 3]]
    coadd = hdu(flags, "MASK", MSKN0000="CLIPPED")  # in the second of two masks
    read = read_image(write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE"), hdu(flags, "MASK", **cards), coadd))
    assert np.isnan(read.pixels).any() == (name != "COSMIC_RAY")


def test_a_mask_that_the_file_does_not_hold_to_its_end_is_missed(tmp_path):
    flags = np.ones(IMAGE.shape, np.int32)
    path = write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE"), hdu(flags, "MASK", MP_BAD=0))
    assert np.isnan(read_image(path).pixels).all()
    content = path.read_bytes()
    path.write_bytes(content[: -2880 * (flags.nbytes // 2880 + 1) // 2])
    assert refused(path).startswith("truncated: the mask ends at byte")


def test_a_mask_or_variance_that_names_its_band_is_of_that_band(tmp_path):
    flags = {band: np.zeros(IMAGE.shape, np.int32) for band in "gi"}
    flags["g"][3, 3] = flags["i"][5, 5] = 1
    for names in ("{}_{}", "{1}_{0}"):
        hdus = [EMPTY]
        for level, band in enumerate("gi", 1):
            planes = IMAGES[band], flags[band], np.full_like(IMAGE, level**2)
            for kind, plane in zip(("SCI", "MASK", "VARIANCE"), planes, strict=True):
                cards = {"MP_BAD": 0} if kind == "MASK" else {}
                hdus.append(hdu(plane, names.format(kind, band.upper()), **cards))
        read = read_image(write(tmp_path, *hdus), band="i")
        assert np.argwhere(np.isnan(read.pixels)).tolist() == [[5, 5]]
        assert read.noise == 2
    unnamed = write(tmp_path, hdu(IMAGE, primary=True), hdu(flags["i"], "I_MASK", MP_BAD=0))
    assert np.argwhere(np.isnan(read_image(unnamed).pixels)).tolist() == [[5, 5]]
    both = np.stack([flags["i"], flags["g"]])
    cube = hdu(both, "MASK", BANDS="ig", MP_BAD=0)
    beside = write(tmp_path, hdu(IMAGE, primary=True, FILTER="i"), cube)
    assert np.argwhere(np.isnan(read_image(beside).pixels)).tolist() == [[5, 5]]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize(("blank", "zero", "scale"), [(0, 0, 1), (0, 5, 0.5), (7, 128, 1), (7, 2**15, 1)])
def test_a_blank_is_no_number(tmp_path, bits, blank, zero, scale):
    stored = np.arange(IMAGE.size).reshape(IMAGE.shape) % 100
    stored = stored.astype("u1" if bits == 8 else f"i{bits // 8}")
    expected = np.where(stored == blank, np.nan, stored * float(scale) + zero)
    cards = {"XBLANK": blank} | ({"XBZERO": zero, "XBSCAL": scale} if (zero, scale) != (0, 1) else {})
    plain = write(tmp_path, hdu(stored, primary=True, **cards))
    tiled = tmp_path / "tiled.fits"
    if bits < 64:
        image = fits.CompImageHDU(stored, fits.Header(cards), compression_type="RICE_1")
        fits.HDUList([EMPTY, image]).writeto(tiled)
    for path in (plain, tiled) if bits < 64 else (plain,):
        for old, new in (("XBLANK  =", "BLANK   ="), ("XBZERO  =", "BZERO   ="), ("XBSCAL  =", "BSCALE  =")):
            renamed(path, old, new)
        packed = path.with_suffix(".fits.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for each in (path, packed):
            np.testing.assert_array_equal(read_image(each).pixels, expected.astype(np.float32))


@pytest.mark.parametrize("plane", ["CLIPPED", "REJECTED", "SENSOR_EDGE", "INEXACT_PSF"])
def test_cosmic_rays_of_the_exposures_of_a_coadd_mask_nothing(tmp_path, plane):
    bits = np.zeros(IMAGE.shape, np.int32)
    bits[0], bits[1] = 8, 1
    for cards in ({"MP_BAD": 0, "MP_CR": 3, f"HIERARCH MP_{plane}": 14}, {"MSKN0": "BAD", "MSKN3": "CR"}):
        cards |= {} if "MP_CR" in cards else {"MSKN14": plane}
        read = read_image(write(tmp_path, hdu(IMAGE, primary=True, FILTER="i"), hdu(bits, "MASK", **cards)))
        assert np.isnan(read.pixels).any(1).nonzero()[0].tolist() == [1]


def test_masks_without_named_bits_mask_nothing(tmp_path):
    for name in ("MASK", "BPM", "DQ"):
        read = read_image(
            write(tmp_path, hdu(IMAGE, primary=True), hdu(np.ones(IMAGE.shape, np.int16), name))
        )
        np.testing.assert_array_equal(read.pixels, IMAGE)


@pytest.mark.parametrize(
    ("name", "inverse"),
    [
        *(("VARIANCE", False), ("VAR", False), ("INVVAR", True), ("IVAR", True)),
        *(("INVERSE_VARIANCE", True), ("INV_VAR", True), ("FLUX inverse variance", True)),
    ],
)
def test_variance_is_kept(tmp_path, name, inverse):
    variance = np.linspace(1, 2, IMAGE.size, dtype=np.float32).reshape(IMAGE.shape)
    plane = 1 / variance if inverse else variance.copy()
    plane[0] = 0
    read = read_image(write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE", FLUXMAG0=10**10.4), hdu(plane, name)))
    np.testing.assert_allclose(read.variance[1:], 10**0.8 * variance[1:], rtol=1e-5)
    assert np.isnan(read.variance[0]).all()
    two = [hdu(plane, name), hdu(plane, name)]
    assert read_image(write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE"), *two)).variance is None
    assert read_image(write(tmp_path, EMPTY, hdu(IMAGE, "IMAGE"), hdu(plane[1:], name))).variance is None


def test_variance_is_that_of_the_band(tmp_path):
    pairs = [
        (hdu(IMAGES[b], b.upper()), hdu(np.full_like(IMAGE, k + 1), f"{b.upper()}_VAR"))
        for k, b in enumerate("gri")
    ]
    path = write(tmp_path, EMPTY, *(each for pair in pairs for each in pair))
    assert [read_image(path, band=b).variance[0, 0] for b in "gri"] == [1, 2, 3]


def test_what_is_lost_may_be_in_the_band_asked_for(tmp_path):
    path = write(tmp_path, EMPTY, *(hdu(IMAGES[b], b.upper()) for b in "gri"))
    content = path.read_bytes()
    path.write_bytes(content[: 2880 + 3 * 2880 + 2880 + 1000])
    assert refused(path).startswith("truncated")
    np.testing.assert_array_equal(read_image(path, band="g").pixels, IMAGES["g"])


@pytest.mark.parametrize(
    "name", ["a[1].fits", "a(1).fits", "[a]", "a b.fits", "ä.fits", "!a.fits", "a.fits+1", "~a"]
)
def test_names_that_fitsio_takes_for_its_syntax(tmp_path, name):
    np.testing.assert_array_equal(read_image(write(tmp_path, EMPTY, hdu(IMAGE), name=name)).pixels, IMAGE)


def test_a_cutout_has_at_most_2048_pixels_a_side(tmp_path):
    said = refused(write(tmp_path, hdu(np.zeros((32, 2049), np.float32), primary=True)))
    assert "at most 2048 px a side" in said
    assert said.startswith("wrong dimensions")
