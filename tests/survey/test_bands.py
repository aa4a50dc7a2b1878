"""Surveys of several bands: channels, what is missing, and equality with a survey of one band."""

import re
import shutil

import h5py
import numpy as np
import pytest
from astropy.io import fits
from cutouts import hdus, pixels, write

from lensq.survey.fits import ZERO_POINT
from lensq.survey.ingest import Reading
from lensq.survey.inventory import ASIDE, state_of
from lensq.survey.planes import band_names
from lensq.survey.survey import read_like, read_survey

NAMES = [f"J10000{n}.00+020000.0{n}" for n in range(4)]
BANDS = "grizy"


def stamp(n: int, band: str, side: int = 47) -> np.ndarray:
    """Another image for each object and band."""
    return (1 + BANDS.index(band)) * pixels(side, seed=10 * n + BANDS.index(band))


def one_file_a_band(folder, bands=BANDS, **cards):
    for n, name in enumerate(NAMES):
        for band in bands:
            path = folder / "fits_data" / f"{name}_HSC-{band.upper()}_img.fits"
            write(path, stamp(n, band), **({"FILTER": band} | cards))
    return folder


def cubes(folder):
    (folder / "fits_data").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        image = hdus(np.stack([stamp(n, band) for band in BANDS]))
        del image[0].header["FILTER"]
        image[1].header["BANDS"] = BANDS
        image.writeto(folder / "fits_data" / f"{name}.fits")
    return folder


def extensions(folder):
    (folder / "fits_data").mkdir(parents=True)
    for n, name in enumerate(NAMES):
        first, *images = hdus(stamp(n, "g"))[:1], *(hdus(stamp(n, band))[1] for band in BANDS)
        del first[0].header["FILTER"]
        for band, image in zip(BANDS, images, strict=True):
            image.name = band
        fits.HDUList([*first, *images]).writeto(folder / "fits_data" / f"{name}.fits")
    return folder


def bundle(folder):
    folder.mkdir()
    with h5py.File(folder / "survey.h5", "w") as file:
        file["images"] = np.array([[stamp(n, band) for band in BANDS] for n in range(len(NAMES))])
        file["name"] = NAMES
        file["images"].attrs.update(bands=list(BANDS), zero_point=27.0, pixel_scale=0.168)
    return folder


def read(folder, bands="gri", **how):
    return read_survey(folder, bands=bands, progress=False, **how)


def test_a_list_of_bands_is_letters_or_names():
    assert band_names("gri") == ("g", "r", "i")
    assert band_names("VIS,NIR_Y") == ("VIS", "NIR_Y")
    assert band_names("VIS") == ("VIS",)
    assert band_names(["HSC-G", "i2"]) == ("g", "i")
    for wrong in ("", "gg", "g,,r", "a b", []):
        with pytest.raises(ValueError, match="bands: expected names of bands such as 'gri', each once"):
            band_names(wrong)


def test_channels_are_in_the_order_asked_for(tmp_path):
    survey = read(one_file_a_band(tmp_path), "ygi")
    assert (survey.bands, survey.band, survey.reference) == (("y", "g", "i"), "i", 2)
    assert survey.images.shape == survey.mask.shape == (4, 3, 48, 48)
    assert (survey.images.dtype, survey.mask.dtype) == (np.float32, bool)
    assert isinstance(survey.images, np.memmap)
    for n in range(4):
        for channel, band in enumerate("ygi"):
            np.testing.assert_array_equal(survey.images[n, channel, 1:, 1:], stamp(n, band))
    assert "4 of 4 used, bands ygi, " in survey.summary
    assert survey.zero_points.shape == survey.pixel_scales.shape == survey.noise.shape == (4, 3)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [cubes, extensions, bundle])
def test_every_layout_gives_the_same_pixels(tmp_path, layout):
    files, other = read(one_file_a_band(tmp_path / "files"), BANDS), read(layout(tmp_path / "other"), BANDS)
    assert other.names.tolist() == files.names.tolist() == NAMES
    np.testing.assert_array_equal(other.images, files.images)
    np.testing.assert_array_equal(other.mask, files.mask)
    assert other.counts().loc["found", "files"] == len(NAMES)
    assert other.counts().loc["usable", "files"] == len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [one_file_a_band, cubes, extensions, bundle])
def test_one_band_is_the_plane_of_several(tmp_path, layout):
    folder = layout(tmp_path / "survey")
    several, one, same = read(folder, BANDS), read(folder, "i"), read_survey(folder, progress=False)
    assert one.fingerprint == same.fingerprint == read_survey(folder, band="i", progress=False).fingerprint
    assert (one.bands, one.images.ndim) == (("i",), 3)
    np.testing.assert_array_equal(several.images[:, 2], one.images)
    np.testing.assert_array_equal(several.mask[:, 2], one.mask)
    for name in ("names", "group", "split", "labels"):
        np.testing.assert_array_equal(getattr(several, name), getattr(one, name))
    np.testing.assert_array_equal(several.coordinates.ra, one.coordinates.ra)


def test_the_way_of_reading_one_band_is_described_as_ever(tmp_path):
    """Packed stores and fingerprints of one band hang on it."""
    folder = one_file_a_band(tmp_path, "i")
    read(folder, "i")
    assert [path.name for path in (folder / "packed").iterdir() if path.is_dir()] == ["48-crop"]
    plain = {
        "size": 48,
        "resize": False,
        "band": "i",
        "scale": None,
        "zero_point": 27.0,
        "pixel_scale": 0.168,
    }
    assert Reading.of(folder, bands="i").settings == plain


def with_bands_missing(place):
    """A survey in which the second object has no file in g and the third one cut short in r."""
    folder = one_file_a_band(place)
    lost, broken = (
        folder / "fits_data" / f"{NAMES[n]}_HSC-{band}_img.fits" for n, band in ((1, "G"), (2, "R"))
    )
    lost.unlink()
    broken.write_bytes(broken.read_bytes()[:9000])
    return folder


def test_objects_that_lack_a_band_are_quarantined(tmp_path):
    folder = with_bands_missing(tmp_path)
    survey = read(folder)
    assert survey.names.tolist() == [NAMES[0], NAMES[3]]
    held = survey.quarantine[~survey.quarantine["reason"].isin(ASIDE)]
    assert held["reason"].tolist() == ["lacks a band"] * 4 + ["truncated"]
    assert held["detail"].tolist()[:4] == ["g: no such band"] * 2 + ["r: truncated"] * 2
    counts = survey.counts()["files"]
    assert counts["total"] == counts["found"] == 19
    assert counts["usable"] == 6
    assert survey.summary.startswith("2 of 4 used")


@pytest.mark.slow
def test_or_kept_with_the_band_masked(tmp_path):
    folder = with_bands_missing(tmp_path)
    survey, whole = read(folder, missing_band="mask"), read(folder, "i")
    assert survey.names.tolist() == NAMES
    lacking = np.array([[False, False, False], [True, False, False], [False, True, False], [False] * 3])
    np.testing.assert_array_equal(~survey.mask.any((2, 3)), lacking)
    assert not survey.images[lacking].any()
    np.testing.assert_array_equal(np.isnan(survey.zero_points), lacking)
    np.testing.assert_array_equal(survey.images[:, 2], whole.images)
    assert "1 lack g, 1 lack r" in survey.notes[-1]
    assert survey.counts().loc[["usable", "truncated", "found"], "files"].tolist() == [10, 1, 19]
    assert survey.summary.startswith("4 of 4 used")


def test_a_mask_is_one_band_s(tmp_path):
    folder = one_file_a_band(tmp_path)
    image = stamp(0, "r")
    image[:9] = np.nan
    write(folder / "fits_data" / f"{NAMES[0]}_HSC-R_img.fits", image, FILTER="r")
    survey = read(folder)
    assert (~survey.mask[0]).sum((1, 2)).tolist() == [95, 95 + 9 * 47, 95]


@pytest.mark.slow
def test_each_band_has_its_zero_point_shape_and_scale(tmp_path):
    folder = one_file_a_band(tmp_path / "a")
    write(folder / "fits_data" / f"{NAMES[0]}_HSC-G_img.fits", stamp(0, "g", 41), FILTER="g", FLUXMAG0=10**10)
    survey = read(folder)
    assert survey.zero_points[0] == pytest.approx([25, 27, 27])
    image = stamp(0, "g", 41) * np.float32(10 ** (0.4 * (ZERO_POINT - 25)))
    np.testing.assert_allclose(survey.images[0, 0, 4:45, 4:45], image, rtol=1e-5)
    assert (~survey.mask[0, 0]).sum() == 48**2 - 41**2
    coarse = hdus(stamp(0, "r"), FILTER="r")
    coarse[1].header["CD1_1"], coarse[1].header["CD2_2"] = -9.34e-5, 9.34e-5
    coarse.writeto(folder / "fits_data" / f"{NAMES[0]}_HSC-R_img.fits", overwrite=True)
    with pytest.raises(ValueError, match=r"pixel scales from 0\.168 to 0\.336 arcsec: give scale=0\.168"):
        read(folder)
    zoomed = read(folder, scale=0.168)
    np.testing.assert_array_equal(zoomed.images[:, 2], read(folder, "i", scale=0.168).images)
    assert zoomed.pixel_scales[0] == pytest.approx([0.168, 0.336, 0.168], rel=1e-2)
    assert zoomed.pixel_scale == 0.168


def test_a_second_file_of_object_and_band_is_not_used(tmp_path):
    folder = one_file_a_band(tmp_path)
    name = f"{NAMES[0]}_HSC-R_img.fits"
    write(folder / "fits_data" / "again" / name, 9 * stamp(1, "r"), FILTER="r")
    survey = read(folder)
    np.testing.assert_array_equal(survey.images[0, 1, 1:, 1:], stamp(0, "r"))
    [row] = survey.quarantine[survey.quarantine["reason"] == "second file"].to_dict("records")
    assert (row["file"], row["detail"]) == (f"again/{name}", "another file of this object is used")
    assert survey.counts().loc[["usable", "second file", "total"], "files"].tolist() == [12, 1, 21]


def test_a_file_that_does_not_say_its_band_is_refused(tmp_path):
    for n, name in enumerate(NAMES):
        image = hdus(stamp(n, "i"))
        del image[0].header["FILTER"]
        (tmp_path / "fits_data").mkdir(exist_ok=True)
        image.writeto(tmp_path / "fits_data" / f"{name}.fits")
    with pytest.raises(ValueError, match=r"ambiguous \(g was asked for, the file does not say its band\)"):
        read(tmp_path)
    assert len(read(tmp_path, "i")) == 4


def test_bands_that_no_file_has_are_an_error_that_names_them(tmp_path):
    folder = one_file_a_band(tmp_path, "gi")
    with pytest.raises(ValueError, match="no file of band r, but of g, i: choose among them by bands="):
        read(folder)


def test_band_and_bands_agree_or_one_is_an_error(tmp_path):
    folder = one_file_a_band(tmp_path)
    assert read(folder, "r", band="r").bands == ("r",)
    with pytest.raises(ValueError, match="band='i' and bands='gri' differ: give one of them"):
        read(folder, "gri", band="i")
    with pytest.raises(ValueError, match="missing_band: expected 'quarantine' or 'mask', got 'zero'"):
        read(folder, missing_band="zero")


@pytest.mark.slow
def test_survey_yml_may_name_several_bands(tmp_path):
    folder = one_file_a_band(tmp_path)
    (folder / "survey.yml").write_text("bands: gri\n")
    assert read_survey(folder, progress=False).bands == ("g", "r", "i")
    assert read_survey(folder, band="z", progress=False).bands == ("z",)
    assert read(folder, "zy").bands == ("z", "y")
    assert state_of(folder) != state_of(folder, bands="zy")
    (folder / "survey.yml").write_text("bands: gri\nband: z\n")
    with pytest.raises(ValueError, match=r"survey\.yml: band='z' and bands='gri' differ"):
        read_survey(folder, progress=False)


@pytest.mark.slow
def test_a_survey_is_read_in_the_bands_of_a_model(tmp_path):
    folder = one_file_a_band(tmp_path)
    trained = {"size": 48, "resized": False, "pixel_scale": 0.168}
    assert read_like(trained | {"bands": ["g", "r", "i"]}, folder).bands == ("g", "r", "i")
    assert read_like(trained, folder).bands == ("i",)
    (folder / "survey.yml").write_text("bands: gri\n")
    assert read_like(trained | {"bands": ["i"]}, folder).bands == ("i",)


@pytest.mark.slow
def test_the_store_is_packed_once_a_set_of_bands_and_again_when_a_file_changes(tmp_path):
    folder = one_file_a_band(tmp_path)
    first = read(folder)
    packed = folder / "packed" / "48-crop-g+r+i" / "images.npy"
    assert packed.stat().st_size == 128 + 4 * 3 * 4 * 48**2
    time = packed.stat().st_mtime_ns
    assert read(folder).fingerprint == first.fingerprint != read(folder, "irg").fingerprint
    assert packed.stat().st_mtime_ns == time
    write(folder / "fits_data" / f"{NAMES[0]}_HSC-R_img.fits", stamp(1, "r"), FILTER="r")
    assert read(folder).fingerprint != first.fingerprint


def test_real_quasars_in_five_bands(shared_real, tmp_path):
    for file in (shared_real / "hsc_cosmos_qso" / "original_other_bands").glob("*.fits"):
        shutil.copy(file, tmp_path)
        name = re.sub("HSC-[GRZY]", "HSC-I", file.name)
        shutil.copy(shared_real / "hsc_cosmos_qso" / "original" / name, tmp_path)
    survey, one = read(tmp_path, BANDS), read(tmp_path, "i")
    assert survey.images.shape == (5, 5, 48, 48)
    assert survey.names.tolist() == one.names.tolist()
    np.testing.assert_array_equal(survey.images[:, 2], one.images)
    depth = 10 ** (0.4 * np.diff(-2.5 * np.log10(survey.noise), axis=1))
    assert (depth < 1.2).all()
    assert (survey.noise[:, 4] > 3 * survey.noise[:, 0]).all()
