import subprocess
import sys

import astropy.units as u
import cutouts
import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

import lensq
from lensq.survey import catalogues
from lensq.survey.bundle import read_row
from lensq.survey.catalogues import known_lenses, match_catalogue
from lensq.survey.hdus import UnusableError
from lensq.survey.images import check_pixels
from lensq.survey.inventory import state_of
from lensq.survey.lists import LISTS
from lensq.survey.split import groups_table
from lensq.survey.survey import read_like, read_survey

PAIR = ["J100000.00+020000.00", "J100000.00+020004.00"]
OTHERS = [f"J{i:02}0000.00-{i:02}0000.00" for i in range(11, 20)]
NAMELESS = "from_its_wcs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    for i, name in enumerate([*PAIR, *OTHERS, NAMELESS]):
        cutouts.write(folder / "fits_data" / f"{name}_HSC-I_img.fits", cutouts.pixels(41, seed=i))
    (folder / LISTS["raw"]).write_text("\n".join([*PAIR, *OTHERS, NAMELESS]))
    (folder / LISTS["selected"]).write_text(PAIR[0])
    truth = pd.DataFrame({"name": [*reversed(OTHERS), *PAIR], "separation": range(11)})
    truth.to_parquet(folder / "truth.parquet")
    return folder


@pytest.fixture(scope="module")
def survey(folder):
    return lensq.read_survey(folder, progress=False)


@pytest.mark.slow
def test_a_pixel_of_resized_images_is_as_large_as_the_files_say(folder, survey, tmp_path):
    assert (survey.native_side, survey.native_pixels) == (41, 1)
    resized = lensq.read_survey(folder, size=64, resize=True, store=tmp_path, progress=False)
    assert resized.native_pixels == 41 / 64
    assert lensq.read_survey(folder, size=64, store=tmp_path, progress=False).native_pixels == 1


def test_everything_is_in_the_order_of_the_names(survey):
    assert survey.names.tolist() == sorted(survey.names.tolist()) == [*PAIR, *OTHERS, NAMELESS]
    for array in (survey.coordinates, survey.labels, survey.graded, survey.images, survey.mask):
        assert len(array) == len(survey) == 12
    assert len(survey.group) == len(survey.split) == 12
    assert survey.names.dtype.kind == survey.split.dtype.kind == "U"
    assert survey.labels.dtype == np.int8
    assert survey.group.dtype == np.int64
    assert survey.labels.tolist() == [1] + [0] * 11


def test_positions_come_from_names_and_else_from_files(survey):
    assert survey.coordinates.ra.hourangle[:11] == pytest.approx([10, 10, *range(11, 20)])
    assert survey.coordinates.dec.deg[2:11] == pytest.approx(-np.arange(11, 20))
    assert survey.coordinates[-1].ra.deg == pytest.approx(150)


def test_neighbours_are_one_group_on_one_side(survey):
    assert survey.group[0] == survey.group[1] == survey.group[-1]  # the file without a name lies there too
    assert len(set(survey.group)) == 10
    for seed in range(8):
        split = read_survey(survey.folder, split_seed=seed, progress=False).split
        assert split[0] == split[1] == split[-1]
    groups = groups_table(survey.names, survey.coordinates, survey.labels, survey.group, survey.split)
    assert groups["members"].tolist() == [" ".join([*PAIR, NAMELESS])]
    assert groups["discordant"].tolist() == [True]


def test_split_seed_changes_the_split_and_nothing_else(survey, folder):
    other = read_survey(folder, split_seed=1, progress=False)
    assert (other.split != survey.split).any()
    assert other.fingerprint == survey.fingerprint


def test_rows_of_splits(survey):
    splits = ("train", "validation", "selection", "conformal", "test")
    parts = [survey.rows(split) for split in splits]
    assert np.sort(np.concatenate(parts)).tolist() == list(range(12))
    assert survey.rows(*splits).tolist() == list(range(12))
    assert survey.rows("calibration").tolist() == survey.rows("conformal", "selection").tolist()
    for split, rows in zip(splits, parts, strict=True):
        assert (survey.split[rows] == split).all()
    with pytest.raises(ValueError, match="holdout"):
        survey.rows("train", "holdout")


def test_truth_is_aligned_with_the_names(survey):
    assert survey.truth["name"].tolist() == survey.names.tolist()
    assert survey.truth["separation"].tolist()[:11] == [9, 10, *reversed(range(9))]
    assert np.isnan(survey.truth["separation"].iloc[-1])


def test_a_truth_that_names_an_object_twice_is_an_error(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    pd.DataFrame({"name": ["a", "a"]}).to_parquet(tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match=r"truth\.parquet"):
        read_survey(tmp_path, progress=False)


def test_a_real_survey_has_no_truth(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    assert read_survey(tmp_path, progress=False).truth is None


def test_counts_are_a_copy(survey):
    counts = survey.counts()
    assert counts.loc["usable"].tolist() == [12, 1, 0, 12]
    counts.loc["usable"] = 0
    assert survey.counts().loc["usable", "raw"] == 12


def test_size_must_be_positive(folder):
    with pytest.raises(ValueError, match="size"):
        read_survey(folder, size=0)


def test_a_survey_shows_itself_in_a_line(survey):
    assert "12 objects of 48 x 48 px" in repr(survey)
    assert len(repr(survey)) < 300


@pytest.fixture
def catalogue():
    arcsecond = 1 / 3600
    return pd.DataFrame(
        {
            "name": ["near", "far", "pair"],
            "RA [deg]": [165.0, 30.0, 150.0],
            "DEC [deg]": [-11 + 2 * arcsecond, 0.0, 2 + 1.5 * arcsecond],
            "zlens": [0.5, 1.0, 0.7],
        }
    )


def test_matches_with_a_catalogue(survey, catalogue):
    matches = match_catalogue(survey, catalogue, radius_arcsec=3)
    assert matches["row"].tolist() == [0, 1, 2, 11]
    assert matches["name"].tolist() == [*PAIR, OTHERS[0], NAMELESS]
    assert matches["catalogue_name"].tolist() == ["pair", "pair", "near", "pair"]
    assert matches["separation"].to_numpy() == pytest.approx([1.5, 2.5, 2, 1.5], abs=1e-6)
    assert matches["zlens"].tolist() == [0.7, 0.7, 0.5, 0.7]
    assert match_catalogue(survey, catalogue, radius_arcsec=0.1).empty


@pytest.mark.parametrize("file", ["c.csv", "c.fits", "c.vot", "c.ecsv"])
def test_catalogues_are_read_from_files(survey, catalogue, tmp_path, file):
    table = Table.from_pandas(catalogue)
    if file != "c.csv":
        table.rename_columns(["RA [deg]", "DEC [deg]"], ["RAJ2000", "DEJ2000"])
    if file == "c.fits":
        table["magnitudes"] = np.zeros((3, 5))
    if file == "c.ecsv":
        places = SkyCoord(table["RAJ2000"], table["DEJ2000"], unit="deg")
        table["RAJ2000"] = places.ra.to_string("hour", sep=":")
        table["DEJ2000"] = places.dec.to_string(sep=":")
    table.write(tmp_path / file, **({"format": "votable"} if file == "c.vot" else {}))
    matches = match_catalogue(survey, tmp_path / file, radius_arcsec=3)
    assert matches["row"].tolist() == [0, 1, 2, 11]


def test_a_catalogue_without_positions_is_an_error(survey, catalogue):
    with pytest.raises(ValueError, match="'dec'"):
        match_catalogue(survey, catalogue.drop(columns="DEC [deg]"))
    with pytest.raises(ValueError, match="'ra'"):
        match_catalogue(survey, pd.DataFrame({"rank": [1], "dec": [1.0]}))


@pytest.mark.slow
def test_reading_needs_no_torch():
    code = "import sys, lensq.survey.survey, lensq.survey.ingest; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "False"


def test_truth_can_be_joined_to_a_table(survey, tmp_path):
    table = pd.DataFrame({"name": [OTHERS[0], NAMELESS, PAIR[0]], "score": [1.0, 2.0, 3.0]})
    joined = survey.add_truth(table, columns=["separation"])
    assert joined["score"].tolist() == [1, 2, 3]
    assert joined["separation"].tolist()[::2] == [8, 9]
    assert np.isnan(joined["separation"][1])
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    assert read_survey(tmp_path, progress=False).add_truth(table) is table


def write_scaled(path, image, scale, **cards):
    hdus = cutouts.hdus(image, **cards)
    hdus[1].header["CD1_1"], hdus[1].header["CD2_2"] = -scale / 3600, scale / 3600
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus.writeto(path)


@pytest.mark.slow
def test_images_are_brought_to_one_pixel_scale_or_refused(tmp_path):
    wide = np.add.reduceat(np.add.reduceat(cutouts.pixels(96), range(0, 96, 2), 0), range(0, 96, 2), 1)
    write_scaled(tmp_path / "fine.fits", cutouts.pixels(96), 0.1)
    write_scaled(tmp_path / "wide.fits", wide, 0.2)
    with pytest.raises(ValueError, match=r"pixel scales from 0\.1 to 0\.2 arcsec: give scale=0\.15"):
        read_survey(tmp_path, progress=False)
    survey = read_survey(tmp_path, scale=0.2, size=24, progress=False)
    assert survey.pixel_scale == survey.scale == 0.2
    assert "0.2 arcsec/px (interpolated from 0.15)" in survey.summary
    assert survey.pixel_scales == pytest.approx([0.1, 0.2], rel=1e-6)
    assert survey.images[0].sum() == pytest.approx(survey.images[1].sum(), rel=0.02)
    assert read_survey(tmp_path, scale=0.1, size=24, progress=False).pixel_scale == 0.1
    with pytest.raises(ValueError, match="scale and resize"):
        read_survey(tmp_path, scale=0.1, resize=True)
    with pytest.raises(ValueError, match="scale: expected arcseconds"):
        read_survey(tmp_path, scale=-1)


@pytest.mark.slow
def test_a_survey_gets_the_pixels_of_the_model_that_scores_it(tmp_path):
    trained = {"size": 24, "resized": False, "pixel_scale": 0.2}
    for name, scales in {"same": (0.2, 0.2), "fine": (0.1, 0.1), "mixed": (0.1, 0.2)}.items():
        (tmp_path / name).mkdir()
        for i, scale in enumerate(scales):
            write_scaled(tmp_path / name / f"{i}.fits", cutouts.pixels(96, seed=i), scale)
    same, fine, mixed = (read_like(trained, tmp_path / n, progress=False) for n in ("same", "fine", "mixed"))
    assert same.scale is None
    assert fine.scale == mixed.scale == 0.2
    for survey in (same, fine, mixed):
        check_pixels(survey, trained)
    native = read_survey(tmp_path / "fine", size=24, progress=False)
    with pytest.raises(ValueError, match=r"0\.1 arcsec a pixel, not as the model.*size=24.*scale=0\.2"):
        check_pixels(native, trained)
    with pytest.raises(ValueError, match=r"size=32, resize=False\)"):
        check_pixels(same, trained | {"size": 32})


@pytest.mark.slow
def test_what_files_do_not_declare_is_a_parameter_and_said(tmp_path):
    for i in range(2):
        hdus = cutouts.hdus(cutouts.pixels(seed=i))
        del hdus[0].header["FLUXMAG0"], hdus[1].header["CTYPE1"]
        hdus.writeto(tmp_path / f"{i}.fits")
    survey = read_survey(tmp_path, progress=False)
    assert survey.summary == "2 of 2 used, band i, " + ", ".join(
        ["0.168 arcsec/px by default (pixel_scale=)", "zero point 27 by default (zero_point=)"]
    )
    declared = read_survey(tmp_path, zero_point=24.5, pixel_scale=0.2, progress=False)
    np.testing.assert_allclose(declared.images, 10 * survey.images, rtol=1e-6)
    assert declared.pixel_scale == 0.2
    assert declared.zero_points.tolist() == [24.5, 24.5]
    cutouts.write(tmp_path / "3.fits", cutouts.pixels())
    assert read_survey(tmp_path, progress=False).summary.endswith(
        "0.168 arcsec/px, zero point 27 by default (zero_point=) (2), from FLUXMAG0 (1)"
    )


@pytest.mark.slow
def test_a_folder_may_say_how_it_is_read_and_arguments_win(tmp_path):
    for i in range(2):
        fits.PrimaryHDU(cutouts.pixels(48, i)).writeto(tmp_path / f"{i}.fits")
    plain, state = read_survey(tmp_path, progress=False), state_of(tmp_path)
    (tmp_path / "survey.yml").write_text("zero_point: 22.5\npixel_scale: 0.262\n")
    said = read_survey(tmp_path, progress=False)
    np.testing.assert_allclose(said.images, 10 ** (0.4 * 4.5) * plain.images, rtol=1e-5)
    assert said.pixel_scale == 0.262
    assert state_of(tmp_path) != state
    given = read_survey(tmp_path, zero_point=27, progress=False)
    np.testing.assert_array_equal(given.images, plain.images)
    assert given.pixel_scale == 0.262
    (tmp_path / "survey.yml").write_text("zero_point: 22.5\npixel_scale: 0.262\nnote: Half of it is sky.\n")
    noted = read_survey(tmp_path, progress=False)
    assert (noted.notes, noted.fingerprint) == (("Half of it is sky.",), said.fingerprint)


@pytest.mark.parametrize(
    "text",
    ["zeropoint: 22.5", "zero_point: high", "band: 3", "[1, 2]", "a: b: c", "scale: 0", "zero_point: .nan"],
)
def test_what_a_folder_says_wrongly_is_an_error(tmp_path, text):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels(48))
    (tmp_path / "survey.yml").write_text(text)
    with pytest.raises(ValueError, match=r"survey\.yml: .*; it may hold band"):
        read_survey(tmp_path, progress=False)


def test_what_is_said_under_another_name_is_an_error(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels(48))
    (tmp_path / "survey.yaml").write_text("zero_point: 22.5")
    with pytest.raises(ValueError, match=r"survey\.yaml: .* is survey\.yml: rename it"):
        read_survey(tmp_path, progress=False)


@pytest.mark.parametrize("band", ["I", "HSC-I", "i2"])
def test_a_band_is_known_by_its_other_names(tmp_path, band):
    for each in "gi":
        cutouts.write(tmp_path / f"a_{each}.fits", cutouts.pixels(48), FILTER=each)
    assert read_survey(tmp_path, band=band, progress=False).files.tolist() == ["a_i.fits"]


def layouts(folder, n=4):
    """The same cutouts in every layout of one file or more an object: name of the layout, its survey."""
    first = folder / "HSC"
    for i in range(n):
        image = cutouts.pixels(48, seed=i)
        name, ra = f"J1000{2.4 * i:05.2f}+020000.00", 150 + i / 100
        header = cutouts.hdus(image)[1].header
        header["CRVAL1"], header["CRPIX1"], header["CRPIX2"] = ra, 24.5, 24.5
        other = fits.ImageHDU(np.ones_like(image), header)
        plain, scaled = fits.ImageHDU(image, header), fits.ImageHDU(image / np.float32(10), header)
        cube = fits.PrimaryHDU(np.stack([image + 9, image]), header)
        cube.header["BANDS"] = "gi"
        primary = fits.PrimaryHDU(image, header)
        variance = fits.ImageHDU(np.ones_like(image), header, name="VARIANCE")
        scaled.header["MAGZERO"] = 24.5
        green, red = (fits.ImageHDU(image + k, header, name=band) for k, band in ((7, "G"), (0, "I")))
        empty = fits.PrimaryHDU()
        files = {
            f"HSC/fits_data/{name}_HSC-I_img.fits": [empty, plain],
            f"folders/{name}/image.fits": [empty, plain],
            f"folders/{name}/psf.fits": [empty, other],
            f"quarry/{i + 2}-cutout-HSC-I-9813-pdr3_wide.fits": [empty, plain, variance],
            f"bands/{name}_i.fits": [primary],
            f"bands/{name}_g.fits": [fits.PrimaryHDU(image + 5, header)],
            f"cubes/cutout_{ra:.6f}_2.0000.fits": [cube],
            f"extensions/{name}.fits": [empty, green, red],
            f"companions/{name}.fits": [primary, variance],
            f"companions/{name}_weight.fits": [empty, other],
            f"magnitudes/{name}.fits": [empty, scaled],
            f"packed tiles/{name}.fits.gz": [primary],
        }
        for file, hdus in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            fits.HDUList([hdu.copy() for hdu in hdus]).writeto(folder / file)
    with h5py.File(folder / "bundle.h5", "w") as file:
        file["images"] = np.stack([[image + 3, image] for image in (cutouts.pixels(48, i) for i in range(n))])
        file["images"].attrs["bands"] = ["g", "i"]
        file["images"].attrs["pixel_scale"] = 0.168
        file["ra"], file["dec"] = 150 + np.arange(n) / 100, np.full(n, 2.0)
    return first, [each for each in sorted(folder.iterdir()) if each != first]


@pytest.mark.slow
def test_the_noise_is_by_the_variance_and_not_after_interpolation(tmp_path):
    layouts(tmp_path)
    companions = tmp_path / "companions"
    np.testing.assert_array_equal(read_survey(companions, progress=False).noise, 1)
    assert np.isnan(read_survey(tmp_path / "bands", progress=False).noise).all()
    for how in ({"scale": 0.2}, {"size": 32, "resize": True}):
        assert np.isnan(read_survey(companions, progress=False, **how).noise).all()
    for path in companions.glob("J*[0-9].fits"):
        with fits.open(path, mode="update") as hdus:
            hdus["VARIANCE"].data[:] = 0  # which is none
    assert np.isnan(read_survey(companions, progress=False).noise).all()


@pytest.mark.slow
def test_a_survey_is_the_same_in_every_layout(tmp_path):
    first, others = layouts(tmp_path)
    expected = read_survey(first, progress=False)
    assert len(others) == 9
    for folder in others:
        survey = read_survey(folder, progress=False)
        np.testing.assert_allclose(survey.images, expected.images, rtol=1e-6, err_msg=folder.name)
        np.testing.assert_array_equal(survey.mask, expected.mask)
        assert [name.rstrip("0") for name in survey.names] == [name.rstrip("0") for name in expected.names]
        assert survey.split.tolist() == expected.split.tolist()
        assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()
        assert survey.summary.startswith("4 of 4 used")
        assert survey.pixel_scale == pytest.approx(0.168, rel=1e-3)


@pytest.mark.slow
def test_a_bundle_without_names_of_bands_or_with_others_is_refused(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = np.stack([[cutouts.pixels(48), cutouts.pixels(48, 1)]] * 3)
        file["name"] = ["b", "a", "c"]
    message = r"b\.h5#1: ambiguous \(2 planes and 0 names of bands: write the attribute"
    with pytest.raises(ValueError, match=message):
        read_survey(tmp_path, progress=False)
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.attrs["bands"] = "gr"
    with pytest.raises(ValueError, match="i was asked for, there are g, r"):
        read_survey(tmp_path, progress=False)
    survey = read_survey(tmp_path / "b.h5", band="r", size=48, progress=False)
    assert survey.names.tolist() == ["a", "b", "c"]
    assert survey.band == "r"
    np.testing.assert_array_equal(survey.images[2], cutouts.pixels(48, 1))
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["image_band"] = [[b"g", b"r"], [b"r", b"g"], [b"g", b"r"]]
        del file.attrs["bands"]
    with pytest.raises(ValueError, match="image_band differs from row to row"):
        read_survey(tmp_path, band="r", progress=False)
    (tmp_path / "second.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="2 HDF5 files; give one of them"):
        read_survey(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
def test_a_bundle_has_a_zero_point_a_band_and_scaled_numbers(tmp_path, last):
    images = np.array([[cutouts.pixels(48, 10 * n + k) for k in range(2)] for n in range(3)])
    whole = np.round((images + 2) / 1e-4)
    zero_points = np.array([[25.0, 26.0], [25.5, 27.0], [24.0, 28.0]])
    for place, said in (("array", zero_points), ("attribute", zero_points[0])):
        (tmp_path / place).mkdir()
        with h5py.File(tmp_path / place / "b.h5", "w") as file:
            file["images"] = (np.moveaxis(whole, 1, -1) if last else whole).astype(">i4")
            file["images"].attrs.update(bands="gr", scale_factor=1e-4, add_offset=-2.0)
            (file if place == "array" else file.attrs)["zero_point"] = said
        for k, band in enumerate("gr"):
            survey = read_survey(tmp_path / place, band=band, progress=False)
            flux = 10 ** (0.4 * (27 - np.broadcast_to(said, (3, 2))[:, k, None, None]))
            np.testing.assert_allclose(survey.images, images[:, k] * flux, rtol=1e-4, atol=1e-3)
            assert survey.zero_points.tolist() == np.broadcast_to(said, (3, 2))[:, k].tolist()


@pytest.mark.slow
def test_a_zero_point_an_object_or_a_band_is_refused_where_there_are_as_many_of_both(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = np.array([[cutouts.pixels(48, 10 * n + k) for k in range(2)] for n in range(2)])
        file["images"].attrs["bands"], file["zero_point"] = "gi", [25.0, 26.0]
    with pytest.raises(
        ValueError, match=r"ambiguous \(zero_point has a number for each of 2 objects or bands: write"
    ):
        read_survey(tmp_path, progress=False)
    with h5py.File(tmp_path / "b.h5", "a") as file:
        del file["zero_point"]
        file["zero_point"] = [[25.0, 26.0], [25.0, 26.5]]
    assert read_survey(tmp_path, progress=False).zero_points.tolist() == [26.0, 26.5]


def test_a_bundle_of_one_plane_needs_no_band_and_fill_values_are_none(tmp_path):
    image = cutouts.pixels(48)
    spoilt = image.copy()
    spoilt[10, 12], spoilt[20, 30], spoilt[21, 30] = -9999, 1e30, -1e30
    expected = 10**-1.76 * image
    expected[[10, 20, 21], [12, 30, 30]] = np.nan

    def written(images, fill=(-9999.0,), **attributes):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w") as file:
            file["images"] = images
            file["images"].attrs.update({"_FillValue": fill, "zero_point": 31.4} | attributes)
        return read_row(path, 0, band="i", zero_point=27.0)[0]

    for images in (spoilt[None], spoilt[None, None], spoilt[None, ..., None]):
        for attributes in ({}, {"bands": "i"}):
            read = written(images, **attributes)
            np.testing.assert_allclose(read.pixels, expected, rtol=1e-6)
            assert read.band == attributes.get("bands", "")
    whole = np.round(image[None] / 0.5).astype(np.int16)
    whole[0, 10, 12] = -32768
    scaled = written(whole, fill=np.int16(-32768), scale_factor=0.5).pixels
    assert np.argwhere(np.isnan(scaled)).tolist() == [[10, 12]]
    with h5py.File(tmp_path / "placed.h5", "w") as file:
        file["images"], file["ra"], file["dec"] = (
            image[None].repeat(3, 0),
            [10.0, np.inf, 20.0],
            [-99.0, 2, 2],
        )
    places = [read_row(tmp_path / "placed.h5", row, band="i", zero_point=27.0)[1:] for row in range(3)]
    np.testing.assert_array_equal(places, [(np.nan,) * 2, (np.nan,) * 2, (20.0, 2.0)])
    with pytest.raises(UnusableError, match="1 planes and 3 names of bands"):
        written(image[None], bands="gri")
    for bands, said in (("grr", "names a band twice"), ("VIS", "3 planes and 1 names of bands")):
        with pytest.raises(UnusableError, match=said):
            written(np.stack([[image] * 3]), bands=bands)
    with pytest.raises(UnusableError, match="for other than 2 bands"):
        written(np.stack([[image, image]]), bands="gi", zero_point=[25.0, 26.0, 27.0])


def test_a_cell_that_is_no_number_has_no_position(survey, tmp_path):
    ra, dec = (np.char.mod("%.6f", each.deg) for each in (survey.coordinates.ra, survey.coordinates.dec))
    (tmp_path / "c.csv").write_text(
        "ra,dec\n" + "\n".join(f"{a},{d}" for a, d in zip(ra, dec, strict=True)) + "\nnull,-\n"
    )
    _, places = catalogues.read_catalogue(tmp_path / "c.csv")
    assert np.isnan(places.ra.deg).tolist() == [False] * len(survey) + [True]
    np.testing.assert_allclose(places.ra.deg[:-1], survey.coordinates.ra.deg, atol=1e-5)


@pytest.mark.slow
def test_a_catalogue_goes_along_with_the_objects(survey, folder, tmp_path):
    table = Table(
        {"Name": [OTHERS[1], "nobody"], "RA": [0.0, 150.0], "Dec": [0.0, 2.0], "i_mag": [20.5, 19.0]}
    )
    table.write(tmp_path / "c.csv")
    read = read_survey(folder, catalogue=tmp_path / "c.csv", progress=False)
    magnitudes = dict(zip(read.names.tolist(), read.catalogue["i_mag"], strict=True))
    assert magnitudes[OTHERS[1]] == 20.5  # by name, wherever it lies
    assert magnitudes[PAIR[0]] == magnitudes[NAMELESS] == 19  # by position
    assert np.isnan(magnitudes[PAIR[1]])  # 4" away
    missing, elsewhere = read.notes
    assert missing == f"catalogue {tmp_path / 'c.csv'}: 9 of 12 objects have no entry"
    assert elsewhere.endswith(
        ": 1 entries lie over 1 arcsec from the object that they name, whose own position stays"
    )
    np.testing.assert_array_equal(read.split, survey.split)
    with pytest.raises(ValueError, match="none of its 1 entries is one of the 12 objects"):
        read_survey(folder, catalogue=table[1:].to_pandas().assign(RA=9.0), progress=False)
    (tmp_path / "c.fits").write_text("no table")
    with pytest.raises(ValueError, match=r"c\.fits: astropy cannot read this catalogue"):
        read_survey(folder, catalogue=tmp_path / "c.fits", progress=False)


@pytest.mark.slow
def test_a_catalogue_gives_positions_where_the_files_have_none(tmp_path):
    for i, name in enumerate("ab"):
        hdus = cutouts.hdus(cutouts.pixels(seed=i))
        del hdus[1].header["CTYPE1"]
        hdus.writeto(tmp_path / f"{name}.fits")
    assert np.isnan(read_survey(tmp_path, progress=False).coordinates.ra.deg).all()
    table = Table({"id": ["a", "b"], "ra": [1.0, 1.0005] * u.deg, "dec": [0.5, 0.5] * u.deg})
    table["ra"] = table["ra"].to(u.rad)
    survey = read_survey(tmp_path, catalogue=table, progress=False)
    assert survey.coordinates.ra.deg == pytest.approx([1, 1.0005])
    assert survey.group.tolist() == [0, 0]


def test_known_lenses_are_those_of_an_installed_package_merged(monkeypatch, tmp_path, survey):
    (tmp_path / "catalog.csv").write_text(
        "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"
        "one,150.0,2.0,-,galaxy,confident,x\nother,10,10,0.3,galaxy,probable,y\n"
        "again,150.0004,2.0,0.5,galaxy,probable,z\n"
    )

    class File:
        name = "catalog.csv"

        def locate(self):
            return tmp_path / "catalog.csv"

    monkeypatch.setattr(catalogues.metadata, "files", lambda package: [File()])
    known = known_lenses()
    assert known["name"].tolist() == ["one = again", "other"]
    assert known["RA [deg]"].tolist() == [150, 10]
    assert match_catalogue(survey)["catalogue_name"].tolist() == ["one = again"] * 2

    def absent(package):
        raise catalogues.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(catalogues.metadata, "files", absent)
    assert known_lenses() is None
    with pytest.raises(FileNotFoundError, match="pip install --no-deps lenscat"):
        match_catalogue(survey)


@pytest.mark.slow
def test_a_damaged_truth_names_file_and_remedy(tmp_path):
    cutouts.write(tmp_path / "a.fits", cutouts.pixels())
    (tmp_path / "truth.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"truth\.parquet cannot be read .*: restore it, or take it away"):
        read_survey(tmp_path, progress=False)
