import bz2
import gzip
import io
import warnings

import cutouts
import numpy as np
import pytest
from astropy.io import fits

from lensq.survey import fits as reader
from lensq.survey.fits import read_image
from lensq.survey.hdus import UnusableError

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "J100000.00+020000.00_HSC-I_img.fits"


@pytest.fixture
def no_astropy(monkeypatch):
    """Fail where a file is read by astropy that should not need it."""

    def refuse(file, hdu):
        raise AssertionError("astropy was asked")

    monkeypatch.setattr(reader._File, "_by_astropy", refuse)


def reason_of(path):
    with pytest.raises(UnusableError) as caught:
        read_image(path)
    return caught.value.reason


def as_bytes(hdus):
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def save(path, *hdus):
    fits.HDUList([*hdus]).writeto(path)
    return path


def with_cards(hdu, **cards):
    for keyword, value in cards.items():
        hdu.header[keyword] = value
    return hdu


@pytest.mark.usefixtures("no_astropy")
def test_a_plain_cutout_is_read_as_it_is(path):
    image = cutouts.pixels()
    read = read_image(cutouts.write(path, image))
    assert read.pixels.dtype == np.float32
    np.testing.assert_array_equal(read.pixels, image)


@pytest.mark.usefixtures("no_astropy")
@pytest.mark.parametrize("shape", [(41, 41), (47, 48), (102, 103), (32, 200)])
def test_axes_are_not_swapped(path, shape):
    image = cutouts.pixels(shape)
    np.testing.assert_array_equal(read_image(cutouts.write(path, image)).pixels, image)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize(
    "cards", [{}, {"BSCALE": 0.5, "BZERO": 3.0}, {"BLANK": 7}, {"BSCALE": 2.0, "BLANK": 7}]
)
def test_every_number_format_is_read_as_by_astropy(path, kind, cards):
    stored = RNG.integers(0, 120, (40, 44)).astype(kind)
    hdu = fits.ImageHDU(stored)
    content = bytearray(as_bytes(fits.HDUList([fits.PrimaryHDU(), hdu])))
    added = b"".join(f"{key:8}= {value:>20}".ljust(80).encode() for key, value in cards.items())
    if "f" not in kind or "BLANK" not in cards:
        end = content.index(b"END".ljust(80), 2880)
        content[end : end + len(added) + 80] = added + b"END".ljust(80)
    path.write_bytes(content)
    expected = fits.getdata(path, 1).astype(np.float32)
    assert np.isnan(expected).any() == ("BLANK" in cards and "f" not in kind)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.usefixtures("no_astropy")
def test_unsigned_integers_are_not_negative(path):
    stored = RNG.integers(0, 65535, (40, 40)).astype(np.uint16)
    np.testing.assert_array_equal(read_image(cutouts.write(path, stored)).pixels, stored)


def test_a_scale_that_changes_nothing_takes_no_library(path, monkeypatch):
    monkeypatch.setattr(reader._File, "_read", None)
    image = cutouts.pixels()
    hdu = fits.PrimaryHDU(image)
    hdu.header["BSCALE"], hdu.header["BZERO"] = 1.0, 0.0
    content = hdu.header.tostring().encode() + hdu.data.astype(">f4").tobytes()
    path.write_bytes(content + bytes(-len(content) % 2880))
    np.testing.assert_array_equal(read_image(path).pixels, image)


def test_a_file_with_something_behind_its_hdus_is_read(path):
    content = cutouts.write(path, cutouts.pixels()).read_bytes() + b"x" * 2880
    path.write_bytes(content)
    np.testing.assert_array_equal(read_image(path).pixels, cutouts.pixels())


def test_damage_and_strange_letters_take_a_library(path, monkeypatch):
    monkeypatch.setattr(reader._File, "_read", lambda file, hdu, blanks: 1 / 0)
    content = cutouts.write(path, cutouts.pixels()).read_bytes()
    at = content.rindex(b"BITPIX  =") + 60
    for changed in (content + b"x" * 2880, content[:at] + b"\xc9" + content[at + 1 :]):
        path.write_bytes(changed)
        with pytest.raises(UnusableError, match="ZeroDivisionError"):
            read_image(path)


def test_missing_and_infinite_pixels_survive(path):
    image = cutouts.pixels()
    image[:3], image[:, -1], image[20, 20] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(read_image(cutouts.write(path, image)).pixels, image)


@pytest.mark.parametrize("ending", [".fits", ".fits.gz", ".FITS.bz2"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_files_are_known_by_their_content(tmp_path, compress, ending):
    image = cutouts.pixels()
    content = as_bytes(cutouts.hdus(image))
    path = tmp_path / f"a{ending}"
    path.write_bytes(compress(content))
    np.testing.assert_array_equal(read_image(path).pixels, image)
    path.write_bytes(compress(content[:3000]) + compress(content[3000:]))
    np.testing.assert_array_equal(read_image(path).pixels, image)
    path.write_bytes(compress(content)[:-500])
    assert reason_of(path) == "truncated"
    damaged = bytearray(compress(content))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = bytes(40)
    path.write_bytes(damaged)
    assert reason_of(path) in ("unreadable", "truncated")


def tiles(image, method, **options):
    return fits.CompImageHDU(image, compression_type=method, **options)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("dither", [-1, 1, 2])
def test_compressed_tiles_of_floats_are_read_as_by_astropy(tmp_path, method, dither):
    image = cutouts.pixels((47, 50))
    if method != "HCOMPRESS_1":
        image[:5, 3:9] = np.nan
    options = {"quantize_level": 16.0, "quantize_method": dither, "dither_seed": 42}
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), tiles(image, method, **options))
    expected = fits.getdata(path, 1)
    assert np.abs(expected - image)[np.isfinite(image)].max() > 0
    np.testing.assert_array_equal(read_image(path).pixels, expected)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "HCOMPRESS_1", "PLIO_1"])
def test_compressed_tiles_of_integers_are_read_as_by_astropy(tmp_path, method):
    image = RNG.integers(0, 3000, (47, 50)).astype(np.int16)
    path = save(
        tmp_path / "a.fits.fz", with_cards(fits.PrimaryHDU(), FLUXMAG0=10**10.8), tiles(image, method)
    )
    np.testing.assert_array_equal(read_image(path).pixels, image)


def test_compressed_tiles_with_blanks_are_read_as_by_astropy(tmp_path):
    image = RNG.integers(0, 3000, (47, 50)).astype(np.int32)
    image[:4] = -99
    hdu = with_cards(tiles(image, "RICE_1"), BLANK=-99, BSCALE=0.25)
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), hdu)
    expected = fits.getdata(path, 1).astype(np.float32)
    np.testing.assert_array_equal(read_image(path).pixels, expected)


def test_compressed_tiles_in_a_compressed_file(tmp_path):
    image = RNG.integers(0, 3000, (47, 50)).astype(np.int16)
    content = as_bytes(fits.HDUList([fits.PrimaryHDU(), tiles(image, "RICE_1")]))
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_image(path).pixels, image)


def test_small_compressed_tiles_are_refused(tmp_path):
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), tiles(IMAGE[:31], "GZIP_1"))
    assert reason_of(path) == "under 32 px"


def test_compressed_tiles_on_which_the_libraries_differ_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), tiles(IMAGE, "GZIP_1", quantize_level=0.0))
    by_fitsio = reader._File._by_fitsio
    monkeypatch.setattr(
        reader._File, "_by_fitsio", lambda file, hdu: by_fitsio(file, hdu) * np.float32(1.001)
    )
    with pytest.raises(UnusableError, match="fitsio and astropy differ"):
        read_image(path)


def test_truncated_tiles(tmp_path):
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), tiles(cutouts.pixels(64), "GZIP_1"))
    content = path.read_bytes()
    path.write_bytes(content[: 2880 * 3 + 1000])
    assert reason_of(path) == "truncated"


TABLE = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
IMAGE = cutouts.pixels(40)
OTHER = np.full((40, 40), 3.0, np.float32)
OTHER[0, 0] = 1


def extension(image, **cards):
    return with_cards(fits.ImageHDU(image), **cards)


@pytest.mark.usefixtures("no_astropy")
@pytest.mark.parametrize(
    "hdus",
    [
        [fits.PrimaryHDU(IMAGE)],
        [fits.PrimaryHDU(IMAGE), extension(OTHER)],
        [fits.PrimaryHDU(), TABLE, extension(IMAGE)],
        [fits.PrimaryHDU(), extension(np.zeros(50)), extension(IMAGE)],
        [fits.PrimaryHDU(), extension(np.zeros((3, 40, 40))), extension(IMAGE)],
        [fits.PrimaryHDU(IMAGE[None]), TABLE],
        [fits.PrimaryHDU(), extension(IMAGE[None, None])],
        [fits.PrimaryHDU(), extension(IMAGE), extension(OTHER, EXTTYPE="MASK"), extension(OTHER)],
        [fits.PrimaryHDU(), extension(OTHER), extension(IMAGE, EXTNAME="SCI")],
        [fits.PrimaryHDU(IMAGE), extension(OTHER, EXTNAME="PSF")],
        [fits.PrimaryHDU(IMAGE), extension(OTHER, EXTNAME="psf_model")],
        [fits.PrimaryHDU(IMAGE), extension(OTHER, MP_EDGE=4), extension(OTHER)],
        [fits.PrimaryHDU(IMAGE), extension(OTHER, EXTTYPE="VARIANCE")],
        [fits.PrimaryHDU(), extension(OTHER, EXTNAME="WEIGHT"), extension(IMAGE, EXTNAME="SCI")],
    ],
)
def test_the_image_is_found_and_its_companions_are_not_taken_for_it(path, hdus):
    np.testing.assert_array_equal(read_image(save(path, *hdus)).pixels, IMAGE)


@pytest.mark.parametrize(
    ("reason", "hdus"),
    [
        ("no image", [fits.PrimaryHDU()]),
        ("no image", [fits.PrimaryHDU(), TABLE]),
        ("no image", [fits.PrimaryHDU(), extension(OTHER, EXTTYPE="MASK"), extension(OTHER)]),
        ("no image", [fits.PrimaryHDU(), TABLE, extension(OTHER, MP_EDGE=4), extension(OTHER)]),
        ("wrong dimensions", [fits.PrimaryHDU(), extension(np.zeros(1600))]),
        ("wrong dimensions", [fits.PrimaryHDU(), extension(np.zeros((3, 40, 40)))]),
        ("wrong dimensions", [fits.PrimaryHDU(np.zeros((2, 3, 40, 40)))]),
        ("under 32 px", [fits.PrimaryHDU(), extension(IMAGE[:31])]),
        ("under 32 px", [fits.PrimaryHDU(), extension(IMAGE[:, :31])]),
        ("under 32 px", [fits.PrimaryHDU(), extension(IMAGE[:1, :1])]),
    ],
)
def test_files_without_a_usable_image_have_their_reason(path, reason, hdus):
    assert reason_of(save(path, *hdus)) == reason


def test_smallest_cutout_is_usable(path):
    assert read_image(cutouts.write(path, cutouts.pixels(32))).pixels.shape == (32, 32)


@pytest.mark.parametrize("axis", ["NAXIS1  =                   40", "NAXIS2  =                   40"])
@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        *[("0", "not FITS"), ("777777701", "wrong dimensions"), ("900", "truncated")],
        *[("-5", "not FITS"), ("'x'", "not FITS")],
    ],
)
def test_false_claims_about_the_axes_do_no_harm(path, axis, claim, reason):
    content = as_bytes(cutouts.hdus(IMAGE))
    path.write_bytes(content.replace(axis.encode(), axis[:10].encode() + claim.rjust(20).encode()))
    assert reason_of(path) == reason


def test_compressed_tiles_that_claim_to_be_huge_are_not_unpacked(tmp_path):
    path = save(tmp_path / "a.fits.fz", fits.PrimaryHDU(), tiles(IMAGE, "GZIP_1"))
    claim = path.read_bytes().replace(b"ZNAXIS1 =                   40", b"ZNAXIS1 =            999999999")
    path.write_bytes(claim)
    assert reason_of(path) == "not FITS"
    path.write_bytes(claim.replace(b"ZTILE1  =                   40", b"ZTILE1  =            999999999"))
    assert reason_of(path) == "wrong dimensions"


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("truncated", b""),
        ("not FITS", b"<!DOCTYPE html><html>Please log in</html>" * 200),
        ("not FITS", b"PK\x03\x04" + bytes(5000)),
        ("not FITS", b"\x89PNG\r\n\x1a\n" + bytes(5000)),
        ("not FITS", bytes(8640)),
        ("not FITS", gzip.compress(b"hello", mtime=0)),
        ("unreadable", b"\x1f\x9d\x90" + bytes(500)),
        ("unreadable", b"\x1f\x8b\x08\x00" + bytes(500)),
        ("truncated", b"SIMPLE  =                    T".ljust(80)),
    ],
)
def test_what_is_no_fits_file_has_its_reason(path, reason, content):
    path.write_bytes(content)
    assert reason_of(path) == reason


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path):
    assert reason_of(tmp_path / "absent.fits") == "unreadable"
    assert reason_of(tmp_path) == "unreadable"


def test_a_file_too_large_for_a_cutout_is_not_loaded(path, monkeypatch):
    cutouts.write(path, IMAGE)
    monkeypatch.setattr(reader, "LARGEST_FILE", 5000)
    assert reason_of(path) == "unreadable"
    path.write_bytes(gzip.compress(bytes(100_000)))
    assert reason_of(path) == "unreadable"


@pytest.mark.slow
def test_a_file_cut_anywhere_is_either_whole_or_refused(path):
    image = cutouts.pixels(40)
    content = as_bytes(cutouts.hdus(image))
    second_header, data = 2880, 5760
    for length in range(0, len(content), 101):
        path.write_bytes(content[:length])
        if length >= data + image.nbytes:  # only the padding is gone
            np.testing.assert_array_equal(read_image(path).pixels, image)
        elif length == second_header:
            assert reason_of(path) == "no image"
        else:
            assert reason_of(path) == "truncated"


def test_damage_behind_the_image_does_no_harm(path):
    content = as_bytes(fits.HDUList([*cutouts.hdus(IMAGE), extension(OTHER, EXTTYPE="VARIANCE"), TABLE]))
    whole = len(as_bytes(cutouts.hdus(IMAGE)))
    for tail in (b"", b"rubbish" * 400, content[whole : whole + 1000], content[whole:-3000]):
        path.write_bytes(content[:whole] + tail)
        np.testing.assert_array_equal(read_image(path).pixels, IMAGE)
    first = as_bytes(fits.HDUList([fits.PrimaryHDU(IMAGE), TABLE]))
    path.write_bytes(first[: len(first) - 5000])
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE)


@pytest.mark.slow
def test_random_damage_never_raises_anything_else(path):
    content = as_bytes(cutouts.hdus(IMAGE))
    rng = np.random.default_rng(1)
    reasons = set()
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(0, 5760, rng.integers(1, 40)):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).pixels.ndim == 2
        except UnusableError as error:
            reasons.add(error.reason)
    assert reasons <= {"not FITS", "truncated", "no image", "wrong dimensions", "under 32 px"}


@pytest.mark.usefixtures("no_astropy")
def test_long_headers_with_hierarch_and_continue_cards(path):
    hdus = cutouts.hdus(IMAGE)
    for hdu in hdus:
        for i in range(300):
            hdu.header[f"HIERARCH TRANSMISSION CURVE NUMBER {i}"] = i
        hdu.header["HIERARCH FLUXMAG0ERR"] = 5.0
        hdu.header["LONGTEXT"] = "it does not END here  " * 12
        hdu.header["HISTORY"] = "END".ljust(72)
        hdu.header["COMMENT"] = " FLUXMAG0= 1.0"
    hdus.writeto(path)
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE)


@pytest.mark.usefixtures("no_astropy")
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("card", ["FLUXMAG0=          6309573444.8", "FLUXMAG0= 6.30957344480D+09 / flux"])
def test_fluxmag0_of_the_image_or_the_primary_header_sets_the_zero_point(path, place, card):
    hdus = fits.HDUList([*cutouts.hdus(IMAGE), extension(OTHER, EXTTYPE="MASK")])
    del hdus[0].header["FLUXMAG0"]
    hdus[place].header["FLUXMAG0"] = 1.5
    content = as_bytes(hdus)
    [at] = [at for at in range(0, len(content), 80) if content.startswith(b"FLUXMAG0", at)]
    path.write_bytes(content[:at] + card.ljust(80).encode() + content[at + 80 :])
    np.testing.assert_allclose(read_image(path).pixels, 10 * IMAGE, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, "unknown"])
def test_a_senseless_fluxmag0_is_no_scale(path, value):
    cutouts.write(path, IMAGE, FLUXMAG0=value)
    np.testing.assert_array_equal(read_image(path).pixels, IMAGE)


def test_position_is_that_of_the_middle(path):
    ra, dec = read_image(cutouts.write(path, cutouts.pixels((47, 64)))).position()
    half_a_pixel = 0.5 * 4.67e-5  # the reference pixel is the upper one of the two in the middle of 64
    assert dec == pytest.approx(2.0, abs=1e-9)
    assert ra == pytest.approx(150.0 + half_a_pixel / np.cos(np.radians(2)), abs=1e-8)


def test_position_is_converted_to_icrs(path):
    hdus = cutouts.hdus(IMAGE)
    hdus[1].header.update(CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN", CRVAL1=0.0, CRVAL2=0.0)
    hdus.writeto(path)
    assert read_image(path).position() == pytest.approx((266.405, -28.936), abs=1e-3)


SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 1e-6,
    "B_0_2": 1e-6,
}
TNX = {
    "CTYPE1": "RA---TNX",
    "CTYPE2": "DEC--TNX",
    "WAT0_001": "system=image",
    "WAT1_001": 'wtype=tnx axtype=ra lngcor = "3. 2. 2. 1. -1. 1. -1. 1. 0. 0. 0. "',
    "WAT2_001": 'wtype=tnx axtype=dec latcor = "3. 2. 2. 1. -1. 1. -1. 1. 0. 0. 0. "',
}


@pytest.mark.parametrize("cards", [SIP, TNX, {"RADECSYS": "FK5", "EQUINOX": 2000.0}, {"CD1_2": "none"}])
def test_odd_coordinate_systems_neither_warn_nor_raise(path, cards):
    hdus = cutouts.hdus(IMAGE)
    for keyword, value in cards.items():
        hdus[1].header[keyword] = value
    hdus.writeto(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = read_image(path)
        ra, dec = image.position()
    assert not caught
    np.testing.assert_array_equal(image.pixels, IMAGE)
    if "CD1_2" not in cards:
        assert (ra, dec) == pytest.approx((150.0, 2.0), abs=1e-4)


def test_without_coordinates_there_is_no_position(path):
    assert np.isnan(read_image(save(path, fits.PrimaryHDU(IMAGE))).position()).all()
    cards = {"CTYPE1": "WAVE", "CTYPE2": "LINEAR", "CRVAL1": 1.0}
    path.unlink()
    assert np.isnan(read_image(save(path, fits.PrimaryHDU(), extension(IMAGE, **cards))).position()).all()


@pytest.mark.parametrize("keyword", ["PCOUNT", "GCOUNT"])
def test_negative_lengths_do_not_send_the_reader_round_in_circles(path, keyword):
    content = as_bytes(cutouts.hdus(IMAGE))
    at = content.index(keyword.encode())
    card = f"{keyword}  =                -9999".ljust(80).encode()
    path.write_bytes(content[:at] + card + content[at + 80 :])
    assert reason_of(path) == "not FITS"
