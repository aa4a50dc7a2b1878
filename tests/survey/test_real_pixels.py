"""The reader and the image statistics on real pixels, which lie outside the project."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits

import lensq
from lensq.survey.catalogues import match_catalogue
from lensq.survey.fits import read_image
from lensq.survey.hdus import UnusableError
from lensq.survey.images import fit_to_size, noise_level
from lensq.survey.split import (
    FRACTIONS,
    assign_splits,
    coordinates_from_names,
    friends_of_friends,
    groups_table,
)

pytestmark = pytest.mark.real

REFUSED = {
    "catalogues/cosmos_t1qso.fits": "wrong dimensions",
    "decals_cutout_pysersic/copsf_59.1067_-30.4848.fits": "no such band",  # g, r, z
    "decals_cutout_pysersic/cutout_59.1067_-30.4848.fits": "no such band",
    "fits_zoo/astropy/arange.fits": "wrong dimensions",
    "fits_zoo/astropy/blank.fits": "under 32 px",
    "fits_zoo/astropy/double_ext.fits": "under 32 px",
    "fits_zoo/astropy/history_header.fits": "no image",
    "fits_zoo/astropy/random_groups.fits": "no image",
    "fits_zoo/astropy/scale.fits": "under 32 px",
    "fits_zoo/astropy/table.fits": "no image",
    "fits_zoo/astropy/test0.fits": "ambiguous",  # four of SCI
    "hsc_scenes_scarlet/Cut_HSC.fits": "wrong dimensions",
    "hsc_scenes_scarlet/PSF_HSC.fits": "wrong dimensions",
}

REFUSED_FOLDERS = {
    "decals_cutout_pysersic": "i was asked for, there are g, r, z",
    "decam_legacypipe": "not one of 6 files can be used",
    "fits_zoo/galsim": "pixel scales from 0.168 to 240 arcsec",
    "hsc_cosmos_qso/original_other_bands": "no file of band i, but of g, r, y, z",
    "hsc_scenes_scarlet": "pixel scales from 0.03 to 0.168 arcsec",
}
"""Folders of which no survey can be made without saying band= or scale=."""


def fits_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if ".fits" in path.name)


def noise(image):
    pixels, mask = fit_to_size(image, 48)
    return noise_level(torch.from_numpy(pixels)[None], torch.from_numpy(mask)[None]).item()


def test_every_file_is_read_or_refused_for_its_reason(shared_real):
    refused = {}
    for path in fits_files(shared_real):
        try:
            read_image(path)
        except UnusableError as error:
            refused[str(path.relative_to(shared_real))] = error.reason
    assert refused == REFUSED


def test_what_is_read_is_what_astropy_reads(shared_real):
    files = [path for path in fits_files(shared_real) if str(path.relative_to(shared_real)) not in REFUSED]
    assert len(files) > 250
    for path in files:
        with fits.open(path) as hdus:
            number = 0 if len(hdus) < 2 or hdus[1].name == "PSF" or hdus[1].data.ndim != 2 else 1
            expected = np.asarray(hdus[number].data, np.float32)
            masked = np.zeros(expected.shape, bool)
            if len(hdus) > 2 and "MP_BAD" in hdus[2].header:
                bits = sum(
                    1 << hdus[2].header[f"MP_{name}"] for name in ("BAD", "SAT", "NO_DATA", "UNMASKEDNAN")
                )
                masked = np.nan_to_num(hdus[2].data).astype(int) & bits != 0
        expected[masked] = np.nan
        np.testing.assert_allclose(read_image(path).pixels, expected, rtol=1e-6, err_msg=str(path))


def test_cosmic_rays_of_exposures_leave_no_trace_in_coadds(shared_real):
    """Why CR is no fault there: 24% of the sky has it, and its noise is that of all other sky."""
    under, beside = [], []
    for path in fits_files(shared_real / "hsc_cosmos_qso" / "original"):
        with fits.open(path) as hdus:
            mask, header = hdus[2].data.astype(int), hdus[2].header
            has = {name: mask >> header[f"MP_{name}"] & 1 == 1 for name in ("CR", "DETECTED", "SAT")}
            sky, ratio = ~(has["DETECTED"] | has["SAT"]), hdus[1].data / np.sqrt(hdus[3].data)
            under.append(ratio[sky & has["CR"]])
            beside.append(ratio[sky & ~has["CR"]])
    under, beside = np.concatenate(under), np.concatenate(beside)
    assert len(under) > 30_000
    assert under.std() == pytest.approx(beside.std(), rel=0.01)
    assert under.mean() == pytest.approx(beside.mean(), abs=0.03)
    assert (under > 5).mean() < 1e-4


def test_surveys_of_real_files_account_for_every_file(shared_real, tmp_path):
    folders = {path.parent for path in fits_files(shared_real)} - {shared_real / "catalogues"}
    for folder in sorted(folders):
        store = tmp_path / str(folder.relative_to(shared_real)).replace("/", "-")
        if reason := REFUSED_FOLDERS.get(str(folder.relative_to(shared_real))):
            with pytest.raises(ValueError, match=reason):
                lensq.read_survey(folder, store=store, progress=False)
            continue
        survey = lensq.read_survey(folder, store=store, progress=False)
        counts = survey.counts()
        assert counts.loc["total", "files"] == counts.loc["found", "files"]
        assert len(survey) + len(survey.quarantine) == counts.loc["found", "files"]
        assert np.isfinite(survey.images).all()
        assert survey.mask.any((1, 2)).all()


def test_what_hsc_declares_is_found(shared_real):
    for path in fits_files(shared_real / "hsc_cosmos_qso" / "original"):
        image = read_image(path)
        assert (image.band, image.zero_point_from) == ("i", "FLUXMAG0")
        assert image.zero_point == pytest.approx(27, abs=1e-6)
        assert image.pixel_scale == pytest.approx(0.168, abs=1e-3)
        variance = fits.getdata(path, 3)
        np.testing.assert_allclose(image.variance[variance > 0], variance[variance > 0], rtol=1e-6)


def test_noise_of_hsc_agrees_with_its_variance_plane(shared_real):
    ratios = []
    for path in fits_files(shared_real / "hsc_cosmos_qso" / "original"):
        ratios.append(noise(read_image(path).pixels) / np.sqrt(np.median(fits.getdata(path, 3))))
    assert 1.0 < np.median(ratios) < 1.5  # faint galaxies add to the noise of these deep images


def test_noise_of_the_wide_survey_is_what_it_is_known_to_be(shared_real):
    levels = [
        noise(read_image(path).pixels) for path in fits_files(shared_real / "hsc_wide_r_field" / "cutouts")
    ]
    assert np.median(levels) == pytest.approx(0.055, rel=0.1)


def test_known_lenses_are_found_in_the_catalogue(shared_real, tmp_path):
    folder = shared_real / "lensed_quasars_semireal_hsc" / "bright"
    survey = lensq.read_survey(folder, store=tmp_path, progress=False)
    catalogue = shared_real / "catalogues" / "known_lensed_quasars_glq.csv"
    matches = match_catalogue(survey, catalogue, radius_arcsec=1)
    assert matches["row"].tolist() == list(range(8))
    assert matches.set_index("name").loc["J043814.86-121714.82", "catalogue_name"] == "HE0435-1223"
    assert matches["separation"].max() < 0.1


@pytest.fixture(scope="module")
def real_list(shared_real):
    """Names and labels of the published study: 121,870 objects, 6,199 of them selected."""
    folder = shared_real.parent / "reference" / "lists"
    if not folder.is_dir():
        pytest.skip("no real name lists here: they lie outside the project, in ../shared/reference")
    files = [folder / "normal_set.txt", folder / "anomaly_set.txt"]
    table = pd.concat([pd.read_csv(file, names=["name", "label"]) for file in files])
    table = table.sort_values("name")
    names = table["name"].to_numpy(str)
    return names, table["label"].to_numpy(np.int8), coordinates_from_names(names)


def test_every_real_name_has_a_position(real_list):
    names, labels, coordinates = real_list
    assert len(set(names)) == 121_870
    assert labels.sum() == 6_199
    assert np.isfinite(coordinates.ra.deg).all()


def pairs_within(arcseconds, coordinates):
    first, second, *_ = coordinates.search_around_sky(coordinates, arcseconds * u.arcsec)
    return first[first < second], second[first < second]


def test_real_pairs_share_pixels_across_labels(real_list):
    _, labels, coordinates = real_list
    first, second = pairs_within(5.0, coordinates)
    assert len(first) == 3_501
    assert (labels[first] != labels[second]).sum() == 349


def test_the_real_split_keeps_groups_whole_and_shares_near(real_list):
    names, labels, coordinates = real_list
    group = friends_of_friends(coordinates)
    split = assign_splits(names, coordinates, group)
    whole = pd.Series(split).groupby(group).nunique()
    assert (whole == 1).all()
    first, second = pairs_within(12.0, coordinates)
    assert (split[first] == split[second]).all()
    for name, share in FRACTIONS.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.03)
        assert (split[labels == 1] == name).mean() == pytest.approx(share, abs=0.03)
    groups = groups_table(names, coordinates, labels, group, split)
    assert len(groups) == 3_828
    assert groups["discordant"].sum() == 383
    order = np.random.default_rng(0).permutation(len(names))
    again = assign_splits(names[order], coordinates[order], friends_of_friends(coordinates[order]))
    assert (again == split[order]).all()
