"""Damaged files are read as astropy and fitsio read them, or refused, and stop nothing."""

import gzip
import struct
import warnings
from contextlib import suppress

import damaged
import numpy as np
import pytest
from astropy.io import fits

from lensq.survey.fits import read_image
from lensq.survey.hdus import UnusableError, check_tiles, walk

IMAGE = np.random.default_rng(0).normal(size=(64, 64)).astype("f4")
EMPTY = fits.PrimaryHDU()


@pytest.mark.slow
def test_a_few_hundred_damaged_files(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = damaged.fates(tmp_path, range(300), None)
    wrong = {
        seed: fate for seed, fate in found.items() if fate not in ("refused", "agreed", "agreed with one")
    }
    assert not wrong
    assert list(found.values()).count("agreed") > 30
    assert list(found.values()).count("refused") > 150


def test_the_comparison_sees_wrong_pixels(tmp_path):
    path = tmp_path / "a.fits"
    content = damaged.as_bytes(EMPTY, fits.ImageHDU(IMAGE))
    path.write_bytes(content)
    image = read_image(path)
    assert damaged.theirs(path, content, image, "astropy")
    assert damaged.theirs(path, content, image, "fitsio")
    image.pixels[5, 5] += 0.1
    assert damaged.theirs(path, content, image, "astropy") is False
    assert damaged.theirs(path, content, image, "fitsio") is False


def test_a_damaged_end_does_not_make_the_next_hdu_the_image(tmp_path):
    content = damaged.as_bytes(EMPTY, fits.ImageHDU(IMAGE), fits.ImageHDU(IMAGE + 100))
    path = tmp_path / "a.fits"
    for start in (0, 2880):
        for at in range(80):
            broken = bytearray(content)
            broken[broken.find(b"END".ljust(80), start) + at] = 65
            path.write_bytes(broken)
            with pytest.raises(UnusableError):
                read_image(path)


RICE = damaged.as_bytes(EMPTY, fits.CompImageHDU(IMAGE, compression_type="RICE_1"))
HCOMPRESS = damaged.as_bytes(
    EMPTY, fits.CompImageHDU((IMAGE * 1000).astype("i2"), compression_type="HCOMPRESS_1", tile_shape=(64, 64))
)
PLAIN = damaged.as_bytes(EMPTY, fits.ImageHDU(IMAGE))
PLIO = damaged.as_bytes(
    EMPTY, fits.CompImageHDU((abs(IMAGE) * 1000).astype("i2"), compression_type="PLIO_1", tile_shape=(1, 64))
)


@pytest.mark.parametrize(
    ("word", "value"), [(3, 232), (4, 1), (1, 60), (2, 3), (7, 0x2001), (7, 0x4FFF), (20, 0x1001), (8, -1)]
)
def test_lines_of_pixels_that_are_too_long_or_short_are_refused(tmp_path, word, value):
    hdu = list(walk(PLIO))[1]
    check_tiles(hdu, PLIO)
    row = 15
    _, offset = struct.unpack_from(">2i", PLIO, hdu.start + 8 * row)
    content = bytearray(PLIO)
    struct.pack_into(">h", content, hdu.start + 8 * 64 + offset + 2 * word, value)
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    with pytest.raises(UnusableError, match="tile 16 of HDU 1 has not 64 pixels"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "keyword", "value"),
    [
        *[
            (PLAIN, "NAXIS2", value)
            for value in ("-32", "2147483647", "99999999999999999999", "6.4E1", "'64'")
        ],
        *[(PLAIN, "NAXIS", value) for value in ("2147483647", "-2", "1", "3", "0")],
        *[(PLAIN, "BITPIX", value) for value in ("0", "-31", "128", "-64")],
        *[(PLAIN, "PCOUNT", value) for value in ("-9999", "7", "x")],
        *[(RICE, "XTENSION", value) for value in ("'BINTAB_E'", "'IMAGE   '", "'TABLE   '")],
        *[(RICE, "ZIMAGE", value) for value in ("F", "0", "")],
        *[(RICE, "ZBITPIX", value) for value in ("0", "-31", "16")],
        *[(RICE, "ZCMPTYPE", value) for value in ("'GZIP_1  '", "'HCOMPRESS_1'", "'NONE    '", "7")],
        *[(RICE, "TFIELDS", value) for value in ("0", "-1", "2147483647", "1000")],
        *[(RICE, "ZTILE1", value) for value in ("0", "-1", "32")],
        *[(HCOMPRESS, "ZTILE2", value) for value in ("16", "32", "63", "65", "1000")],
    ],
)
def test_headers_that_lie_are_refused(tmp_path, content, keyword, value):
    at = content.index(f"{keyword:8}= ".encode(), 2880)
    path = tmp_path / "a.fits"
    path.write_bytes(content[:at] + f"{keyword:8}= {value:>20}".ljust(80).encode() + content[at + 80 :])
    if (keyword, value) in (
        ("ZTILE2", "65"),
        ("ZTILE2", "1000"),
    ):  # one tile as before, which knows its height
        np.testing.assert_array_equal(read_image(path).pixels, (IMAGE * 1000).astype("i2"))
        return
    with pytest.raises(UnusableError):
        read_image(path)


def test_several_values_for_a_keyword_are_refused(tmp_path):
    path = tmp_path / "a.fits"
    content = damaged.as_bytes(EMPTY, fits.ImageHDU(IMAGE, fits.Header({"FLUXMAG0": 1e9, "MAGZERO": 22.5})))
    path.write_bytes(content.replace(b"MAGZERO =", b"FLUXMAG0="))
    with pytest.raises(UnusableError, match=r"several values\) for FLUXMAG0"):
        read_image(path)


def test_two_files_in_one_are_one_image_or_none(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(PLAIN + damaged.as_bytes(EMPTY, fits.ImageHDU(IMAGE + 100)))
    with suppress(UnusableError):
        np.testing.assert_array_equal(read_image(path).pixels, IMAGE)


@pytest.mark.slow
def test_bombs_do_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(PLAIN + bytes(2**28), 9))
    with pytest.raises(UnusableError, match="too many for a cutout"):
        read_image(path)
