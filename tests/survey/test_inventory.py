import gzip
import os
import re
import shutil

import cutouts
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensq.survey.inventory import REASONS, state_of, take_inventory
from lensq.survey.lists import LISTS
from lensq.survey.survey import read_survey

ENDING = "_HSC-I_img.fits"
BESIDE = ("present but unlisted", "second file", "other band", "companion", "listed twice")  # of good objects


def names(n, first=0):
    return [f"J{i // 60:02}{i % 60:02}00.00+010000.00" for i in range(first, first + n)]


def write_list(folder, which, lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LISTS[which]).write_text("".join(f"{line}\n" for line in lines))


def write_survey(folder, members, **lists):
    for i, name in enumerate(members):
        cutouts.write(folder / "fits_data" / (name + ENDING), cutouts.pixels(40, seed=i))
    for which, lines in lists.items():
        write_list(folder, which, lines)
    return folder


def read(folder):
    return read_survey(folder, size=40, progress=False)


@pytest.mark.slow
def test_lists_give_names_and_labels(tmp_path):
    a, b, c, d = names(4)
    survey = read(write_survey(tmp_path, [c, a, d, b], raw=[d, b, a, c], selected=[c, a], graded=[a, b]))
    assert survey.names.tolist() == [a, b, c, d]
    assert survey.labels.tolist() == [1, 0, 1, 0]
    assert survey.graded.tolist() == [True, True, False, False]
    assert survey.quarantine.empty
    for i, name in enumerate([c, a, d, b]):
        np.testing.assert_array_equal(survey.images[survey.names == name][0], cutouts.pixels(40, seed=i))


@pytest.mark.slow
def test_lists_may_have_labels_comments_blank_lines_and_windows_line_ends(tmp_path):
    a, b, c = names(3)
    write_survey(tmp_path, [a, b, c])
    (tmp_path / LISTS["raw"]).write_bytes(
        f"\ufeff# names\r\n\r\n{a}, 0\r\n  {b} ,1\r\n{c}  # odd\r\n".encode()
    )
    (tmp_path / LISTS["selected"]).write_text(f"{b}, 1")
    survey = read(tmp_path)
    assert survey.names.tolist() == [a, b, c]
    assert survey.labels.tolist() == [0, 1, 0]
    assert survey.counts().loc["found", "raw"] == 3


def test_a_rejected_object_among_the_selected_is_an_error(tmp_path):
    a, b = names(2)
    write_survey(tmp_path, [a, b], raw=[a, b], selected=[f"{a}, 1", f"{b}, 0"])
    with pytest.raises(ValueError, match=r"candidates_list_selected\.txt, line 2"):
        read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", "fits_data"])
def test_a_folder_without_lists_is_unlabelled(tmp_path, place):
    for i, file in enumerate(
        ["one.fits", "J100000.00+100000.00_HSC-I_img.FITS", "J110000.00+100000.00_HSC-R_img.fits"]
    ):
        cutouts.write(tmp_path / place / file, cutouts.pixels(40, seed=i))
    (tmp_path / place / "notes.txt").write_text("no FITS")
    (tmp_path / place / "folder.fits").mkdir()
    survey = read(tmp_path)
    assert survey.names.tolist() == ["J100000.00+100000.00", "one"]
    assert (survey.labels == -1).all()
    assert not survey.graded.any()
    np.testing.assert_allclose(survey.coordinates.ra.deg, 150, atol=1e-4)  # the last by WCS
    assert survey.quarantine[["name", "reason", "detail"]].to_numpy().tolist() == [
        ["J110000.00+100000.00", "no such band", "band r"]
    ]
    assert survey.counts()["files"]["found"] == 3


@pytest.mark.slow
def test_without_a_raw_list_every_file_is_an_object(tmp_path):
    a, b, c = names(3)
    survey = read(write_survey(tmp_path, [a, b], selected=[b, c]))
    assert survey.labels.tolist() == [0, 1]
    assert survey.quarantine[["name", "reason"]].to_numpy().tolist() == [[c, "listed but absent"]]


def test_without_a_selected_list_nothing_is_labelled(tmp_path):
    survey = read(write_survey(tmp_path, names(2), raw=names(2)))
    assert survey.labels.tolist() == [-1, -1]


def test_every_file_ending_is_found(tmp_path):
    content = cutouts.write(tmp_path / "x.fits", cutouts.pixels(40)).read_bytes()
    endings = (".fits", ".fit", ".fts", ".FITS", ".fits.gz", ".fits.fz", ".fits.bz2")
    members = names(len(endings))
    (tmp_path / "fits_data").mkdir()
    for name, ending in zip(members, endings, strict=True):
        squeezed = gzip.compress(content) if ending == ".fits.gz" else content
        (tmp_path / "fits_data" / f"{name}_HSC-I_img{ending}").write_bytes(squeezed)
    write_list(tmp_path, "raw", members)
    assert read(tmp_path).names.tolist() == members


def test_of_two_files_of_one_object_one_is_read_and_the_other_reported(tmp_path):
    [name] = names(1)
    plain = cutouts.write(tmp_path / "fits_data" / (name + ENDING), cutouts.pixels(40)).read_bytes()
    (tmp_path / "fits_data" / (name + ENDING + ".gz")).write_bytes(gzip.compress(plain))
    survey = read(tmp_path)
    assert len(survey) == 1
    [row] = survey.quarantine.to_dict("records")
    assert row["file"] == name + ENDING + ".gz"
    assert row["reason"] == "second file"
    assert row["detail"] == "another file of this object is used"


def test_a_second_file_says_what_became_of_the_first(tmp_path):
    damaged, other = names(2)
    for name in (damaged, other):
        plain = cutouts.write(tmp_path / "fits_data" / (name + ENDING), cutouts.pixels(40)).read_bytes()
    (tmp_path / "fits_data" / (damaged + ENDING + ".gz")).write_bytes(gzip.compress(plain))
    (tmp_path / "fits_data" / (damaged + ENDING)).write_bytes(plain[:4000])
    survey = read(tmp_path)
    assert survey.names.tolist() == [other]
    rows = survey.quarantine.set_index("file")
    assert rows.loc[damaged + ENDING, "reason"] == "truncated"
    assert rows.loc[damaged + ENDING + ".gz", "detail"] == "another file of this object was tried: truncated"
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()


def test_files_may_lie_in_folders_within(tmp_path):
    a, b, c = names(3)
    for name, folder in ((a, "."), (b, "tract0"), (c, "tract1/patch"), (b, "tract1"), (c, ".hidden")):
        (tmp_path / "fits_data" / folder).mkdir(parents=True, exist_ok=True)
        cutouts.write(tmp_path / "fits_data" / folder / (name + ENDING), cutouts.pixels(40))
    survey = read(tmp_path)
    assert survey.names.tolist() == [a, b, c]
    assert survey.counts().loc[["usable", "second file", "found"], "files"].tolist() == [3, 1, 4]
    assert survey.quarantine["file"].tolist() == [f"tract1/{b}{ENDING}"]


def test_files_of_the_folder_come_before_those_in_folders_within(tmp_path):
    a, b = names(2)
    cutouts.write(tmp_path / "tract0" / (a + ENDING), cutouts.pixels(40))
    cutouts.write(tmp_path / "packed" / (b + ENDING), cutouts.pixels(40))
    survey = read(tmp_path)
    assert (survey.names.tolist(), survey.notes) == ([a], ())
    cutouts.write(tmp_path / (b + ENDING), cutouts.pixels(40))
    survey = read(tmp_path)
    assert survey.names.tolist() == [b]
    assert f"1 FITS files in folders within {tmp_path} are left alone" in survey.notes[0]


def test_lists_may_name_files(tmp_path):
    a, b = names(2)
    survey = read(write_survey(tmp_path, [a, b], raw=[a + ENDING, b], selected=[a + ENDING + ".gz"]))
    assert survey.labels.tolist() == [1, 0]


@pytest.mark.parametrize("which", ["selected", "graded"])
def test_a_list_of_flags_that_flags_nothing_is_an_error(tmp_path, which):
    a, b, stray = names(3)
    write_survey(tmp_path, [a, b], **{which: ["# flags", stray]})
    with pytest.raises(ValueError, match=rf"_{which}\.txt, line 2: '{re.escape(stray)}' is none of the 2"):
        read(tmp_path)
    write_list(tmp_path, which, [stray, a, stray])
    assert f"1 of 2 objects in {LISTS[which]} are not among the 2 of the survey" in read(tmp_path).notes[0]


def test_flags_of_objects_without_a_usable_file_are_an_error_too(tmp_path):
    a, b = names(2)
    write_survey(tmp_path, [a, b], raw=[a, b], selected=[a])
    (tmp_path / "fits_data" / (a + ENDING)).write_text("<html>")
    with pytest.raises(ValueError, match="is none of the 1 objects"):
        read(tmp_path)


def test_labels_of_unknown_objects_are_reported(tmp_path):
    a, b, stray, ghost = names(4)
    lists = {"raw": [a, b], "selected": [a, stray, ghost], "graded": [ghost, b]}
    survey = read(write_survey(tmp_path, [a, b, stray], **lists))
    assert survey.names.tolist() == [a, b]
    rows = survey.quarantine.set_index("name")
    assert rows["reason"].to_dict() == {stray: "present but unlisted", ghost: "listed but absent"}
    assert LISTS["selected"] in rows.loc[stray, "detail"]
    assert LISTS["selected"] in rows.loc[ghost, "detail"]
    assert LISTS["graded"] in rows.loc[ghost, "detail"]
    counts = survey.counts()
    assert counts["selected"][["usable", "present but unlisted", "listed but absent"]].tolist() == [1, 1, 1]
    assert (counts.loc["total"] == counts.loc["found"]).all()


def test_a_missing_folder_and_one_without_files_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read(tmp_path / "absent")
    write_list(tmp_path, "raw", names(3))
    with pytest.raises(FileNotFoundError, match=r"fits_data.*<name>_HSC-I_img\.fits"):
        read(tmp_path)


def test_files_that_the_list_does_not_know_are_an_error(tmp_path):
    write_survey(tmp_path, names(2), raw=names(2, first=10))
    with pytest.raises(ValueError, match="names none of the 2 FITS files"):
        read(tmp_path)


def test_a_survey_without_a_usable_file_is_an_error(tmp_path):
    (tmp_path / "fits_data").mkdir()
    (tmp_path / "fits_data" / f"a{ENDING}").write_text("<html>")
    with pytest.raises(ValueError, match=r"not one of 1 files.*a_HSC-I_img\.fits: not FITS"):
        read(tmp_path)


def test_files_whose_names_are_no_text_do_not_stop_the_rest(tmp_path):
    write_survey(tmp_path, names(2))
    with open(bytes(tmp_path / "fits_data") + b"/\xff\xfe.fits", "wb") as file:
        file.write(b"SIMPLE")
    survey = read(tmp_path)
    assert len(survey) == 2
    assert survey.quarantine["reason"].tolist() == ["unreadable"]


def spoil(path, fault, rng):
    """Make a good file bad in a way that has the given reason."""
    image = cutouts.pixels(40, seed=int(rng.integers(1000)))
    content = path.read_bytes()
    match fault:
        case "not FITS":
            path.write_bytes([b"<html>", rng.bytes(9000), b"PK\x03\x04"][rng.integers(3)])
        case "truncated":
            path.write_bytes(content[: rng.integers(2900, 5760 + image.nbytes)])
        case "no image":
            fits.HDUList([fits.PrimaryHDU()]).writeto(path, overwrite=True)
        case "wrong dimensions":
            cutouts.write(path, np.stack([image] * 3))
        case "no finite pixel":
            cutouts.write(path, np.full_like(image, [np.nan, np.inf][rng.integers(2)]))
        case "constant":
            image[:] = 3.5
            image[:5] = np.nan
            cutouts.write(path, image)
        case "under 32 px":
            cutouts.write(path, image[: rng.integers(1, 32)])
        case "unreadable":
            path.unlink()
            path.symlink_to("nowhere")
        case "listed but absent":
            path.unlink()
        case "second file":
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        case "ambiguous":
            cutouts.write(path, image, BUNIT="nJy")
        case "no such band":
            path.rename(path.with_name(path.name.replace("HSC-I", "HSC-G")))
        case "other band":
            shutil.copy(path, path.with_name(path.name.replace("HSC-I", "HSC-G")))
        case "companion":
            shutil.copy(path, path.with_name(path.name.replace("_img", "_mask")))
        case "present but unlisted":
            shutil.copy(path, path.with_name(f"J200000.00-{rng.integers(100000, 900000)}.00{ENDING}"))
        case "listed twice":
            pass


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_counts_add_up_for_any_mixture_of_faults(tmp_path, seed):
    rng = np.random.default_rng(seed)
    members = names(80)
    write_survey(tmp_path, members)
    of_one_band = [reason for reason in REASONS if reason != "lacks a band"]
    drawn = rng.choice(["usable", *of_one_band], len(members), p=[0.4, *[0.6 / 16] * 16])
    fates = dict(zip(members, drawn, strict=True))
    for name, fate in fates.items():
        if fate != "usable":
            spoil(tmp_path / "fits_data" / (name + ENDING), fate, rng)
    twice = [name for name, fate in fates.items() if fate == "listed twice"]
    raw = [*members, *twice, *twice[:1]]
    selected = rng.choice(members, 20, replace=False).tolist()
    rng.shuffle(raw)
    write_list(tmp_path, "raw", raw)
    write_list(tmp_path, "selected", selected)
    survey = read(tmp_path)

    good = [name for name, fate in fates.items() if fate in ("usable", *BESIDE)]
    assert survey.names.tolist() == good
    counts = survey.counts()
    assert (counts.loc["total"] == counts.loc["found"]).all()
    assert counts.loc["found", "raw"] == len(raw)
    assert counts.loc["found", "selected"] == 20
    assert counts.loc["found", "files"] == len(list((tmp_path / "fits_data").iterdir()))
    expected = pd.Series(fates).value_counts()
    for reason in set(REASONS) - set(BESIDE):
        assert counts.loc[reason, "raw"] == expected.get(reason, 0)
    for reason in set(BESIDE) - {"listed twice"}:
        assert counts.loc[reason, "files"] == expected.get(reason, 0)
    assert counts.loc["listed twice", "raw"] == len(raw) - len(members)
    assert counts.loc["usable", "selected"] == survey.labels.sum() == len(set(selected) & set(good))

    found = survey.quarantine["reason"].value_counts()
    for reason in REASONS:
        assert found.get(reason, 0) == max(counts.loc[reason, "raw"], counts.loc[reason, "files"])
    for row in survey.quarantine.itertuples():
        if row.name in fates and row.reason not in BESIDE:
            assert row.reason == fates[row.name]


def test_the_state_of_a_survey_is_that_of_its_lists_and_files(tmp_path):
    members = names(3)
    write_survey(tmp_path, members, raw=members, selected=members[:1])
    before = state_of(tmp_path)
    read(tmp_path)  # packs
    assert state_of(tmp_path) == before
    write_list(tmp_path, "selected", members[1:2])
    relabelled = state_of(tmp_path)
    os.utime(tmp_path / "fits_data" / (members[0] + ENDING), (1, 1))
    assert len({before, relabelled, state_of(tmp_path)}) == 3


def test_an_inventory_opens_no_file(tmp_path, monkeypatch):
    write_survey(tmp_path, names(3), raw=names(3))
    monkeypatch.setattr("lensq.survey.fits.read_image", None)
    inventory = take_inventory(tmp_path)
    assert inventory.files["name"].tolist() == names(3)
    assert inventory.files["chosen"].all()
    assert inventory.files["bytes"].tolist() == [14400] * 3


def write_files(folder, *files, **cards):
    for i, file in enumerate(files):
        cutouts.write(folder / file, cutouts.pixels(40, seed=i), **cards)


def fates(folder, band="i"):
    files = take_inventory(folder, band).files
    return {row.file: (row.name, row.band, row.fate) for row in files.itertuples()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    [
        "{}_HSC-{}_img.fits",
        "{}-{}.fits",
        "{}.{}.fits.gz",
        "{}/{}.fits",
        "{1}/{0}.fits",
        "{}/HSC-{}.fits",
        "{1}_{0}.fits",
        "{0}_HSC-{1}2_img.fits",
        "{1}-band/{0}.fits",
        "{0}_{1}_swarp.fits",
    ],
)
def test_one_object_has_a_file_a_band(tmp_path, layout):
    objects = ["alpha7", "beta", "source_y"]
    files = [
        layout.format(name, band.upper() if "HSC" in layout else band) for name in objects for band in "gri"
    ]
    write_files(tmp_path / "fits_data", *files)
    survey = read(tmp_path)
    assert survey.names.tolist() == objects
    assert survey.band == "i"
    assert survey.counts().loc[["usable", "other band", "found"], "files"].tolist() == [3, 6, 9]
    assert survey.summary.startswith("3 of 3 used, band i, 0.168 arcsec/px, zero point from FLUXMAG0")
    assert "quarantine" not in survey.summary
    for i in range(3):
        np.testing.assert_array_equal(survey.images[i], cutouts.pixels(40, seed=3 * i + 2))
        np.testing.assert_array_equal(
            read_survey(tmp_path, size=40, band="g").images[i], cutouts.pixels(40, seed=3 * i)
        )


def write_at(file, ra, seed, band):
    hdus = cutouts.hdus(cutouts.pixels(40, seed), FILTER=band)
    hdus[1].header["CRVAL1"] = ra
    file.parent.mkdir(parents=True, exist_ok=True)
    hdus.writeto(file)


def test_objects_of_a_service_are_known_by_their_positions(tmp_path):
    names = ["2-cutout-HSC-I-9813-pdr3_wide", "2-cutout-HSC-I-9814-pdr3_wide"]
    names += [f"{name} (1)" for name in names]
    for i, name in enumerate(names):
        write_at(tmp_path / f"{name}.fits", 150 + 0.1 * min(i, 2), i, "i")
    write_at(tmp_path / "again (2)-cutout-HSC-I-1-x.fits", 10.0, 9, "i")
    write_at(tmp_path / "2-cutout-HSC-I-9813-pdr3_wide (2).fits", 150.1, 9, "i")
    survey = read(tmp_path)
    assert [name[:9] for name in survey.names[:3]] == ["J100000.0", "J100024.0", "J100048.0"]
    assert survey.quarantine["reason"].tolist() == ["second file"] * 2
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()


def test_bands_of_one_name_that_lie_apart_are_no_object(tmp_path):
    for i in range(3):
        write_at(tmp_path / f"o{i}_i.fits", 150.0 + i, i, "i")
        write_at(tmp_path / f"o{i}_g.fits", 150.0 + i + 0.1 * (i == 1), i + 10, "g")
    survey = read_survey(tmp_path, size=40, bands="gi", progress=False)
    assert survey.names.tolist() == ["o0", "o2"]
    assert survey.quarantine["reason"].tolist() == ["ambiguous", "lacks a band"]
    assert survey.quarantine["detail"].str.fullmatch("g lies 360 arcsec from i of this name")[0]
    masked = read_survey(tmp_path, size=40, bands="gi", missing_band="mask", progress=False)
    assert masked.mask.any((2, 3)).tolist() == [[True, True], [False, True], [True, True]]
    np.testing.assert_array_equal(masked.coordinates.ra.deg.round(1), [150.0, 151.0, 152.0])


def test_files_beside_the_folder_of_cutouts_are_named(tmp_path):
    write_files(tmp_path, "fits_data/a.fits", "b.fits", "more/c.fits", "more/d.fits")
    survey = read(tmp_path)
    assert survey.names.tolist() == ["a"]
    assert survey.notes == (
        f"3 FITS files of {tmp_path} outside {tmp_path / 'fits_data'} are left alone; put all into fits_data",
    )


def test_a_folder_whose_name_is_no_text_stops_nothing(tmp_path):
    write_files(tmp_path, "a.fits", "b/c.fits")
    odd = bytes(tmp_path) + b"/fits_data"
    os.mkdir(odd)
    os.rename(bytes(tmp_path) + b"/b", odd + b"/d\xe9")
    os.rename(tmp_path / "a.fits", odd + b"/a.fits")
    survey = read(tmp_path)
    assert survey.names.tolist() == ["a"]
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()
    assert survey.quarantine["file"].str.contains("xe9", regex=False).all()


def test_a_folder_says_the_band_of_files_that_do_not(tmp_path):
    write_files(tmp_path, *(f"{band}/{name}.fits" for band in "gi" for name in "ab"), FILTER="")
    assert read(tmp_path).summary.startswith("2 of 2 used, band i,")
    assert read_survey(tmp_path, size=40, band="g", progress=False).band == "g"


def test_bands_of_space_telescopes_are_known_by_the_names_of_files(tmp_path):
    files = [f"{name}_{band}_drz.fits" for name in "ab" for band in ("VIS", "NIR_H", "f814w")]
    write_files(tmp_path, *files)
    assert {(name, band) for name, band, _ in fates(tmp_path, "VIS").values()} == {
        (name, band) for name in "ab" for band in ("VIS", "NIR_H", "F814W")
    }
    with pytest.raises(ValueError, match="no file of band i, but of F814W, NIR_H, VIS: choose one by band="):
        read(tmp_path)


def test_an_object_without_the_band_is_quarantined_and_a_band_that_is_nowhere_an_error(tmp_path):
    write_files(tmp_path, "a_g.fits", "a_i.fits", "b_g.fits", "b_r.fits")
    survey = read(tmp_path)
    assert survey.names.tolist() == ["a"]
    assert survey.quarantine["reason"].tolist() == ["other band", "no such band", "no such band"]
    assert survey.summary.startswith("1 of 2 used")
    with pytest.raises(ValueError, match=r"no file of band z, but of g, i, r: choose one by band="):
        read_survey(tmp_path, band="z")


def test_one_other_band_alone_is_read_and_said(tmp_path):
    write_files(tmp_path, "a_HSC-R_img.fits", "b_HSC-R_img.fits", FILTER="r")
    survey = read(tmp_path)
    assert (len(survey), survey.band) == (2, "r")
    assert "no file of band i: read in r" in survey.notes[0]
    assert "band r" in survey.summary


def test_bands_that_only_the_headers_tell_are_not_mixed(tmp_path):
    write_files(tmp_path, "a.fits", "b.fits", FILTER="i")
    write_files(tmp_path, "c.fits", FILTER="r")
    survey = read(tmp_path)
    assert survey.names.tolist() == ["a", "b"]
    assert survey.quarantine[["name", "reason"]].to_numpy().tolist() == [["c", "no such band"]]
    with pytest.raises(ValueError, match="no such band"):
        read_survey(tmp_path, band="z")


@pytest.mark.slow
def test_words_that_look_like_bands_are_names_where_they_tell_nothing(tmp_path):
    files = [f"point_{letter}.fits" for letter in "abcdefghijklmnopqrstuvwxyz"]
    write_files(tmp_path, *files)
    assert read(tmp_path).names.tolist() == [file[:-5] for file in files]


@pytest.mark.parametrize(
    ("files", "companions"),
    [
        (["a.fits", "a_mask.fits", "a.psf.fits"], 2),
        (["a.fits", "b.fits", "psf/a.fits", "psf/b.fits"], 2),
        (["x-image-i.fits", "x-invvar-i.fits"], 1),
        (["a_i.fits", "a_i_var.fits", "a_g.fits", "a_g_var.fits"], 2),
        (["primary_and_mask.fits", "primary_and_sky.fits"], 0),
        (["a.fits", *(f"a_{word}.fits" for word in ("flags", "conf", "unc", "rms_map", "snr", "noise2"))], 6),
        (["a_sci.fits", "a_wei.fits", "b_sciimg.fits", "b_mskimg.fits", "c.r.fits", "c.r.weight.fits.fz"], 3),
        (["exposure_maps/a.fits", "masks/a.fits", "science/a.fits", "weights/a.fits"], 3),
        (["2-psf-calexp-x-HSC-I-9469-4,2-0.1--0.4.fits", "3-psf-calexp-x-HSC-I-9469-4,2-0.2--0.4.fits"], 0),
        (["o/2-cutout-HSC-I-9469-x.fits", "o/2-psf-calexp-x-HSC-I-9469-4,2-0.1--0.4.fits"], 1),
    ],
)
def test_companions_are_files_beside_an_image(tmp_path, files, companions):
    write_files(tmp_path / "fits_data", *files)
    assert [fate for *_, fate in fates(tmp_path).values()].count("companion") == companions
    assert len(read(tmp_path)) == (len(files) - companions) // (2 if "a_g.fits" in files else 1)


@pytest.mark.parametrize(
    ("files", "lost"),
    [
        (["a_sci.fits", "a_wht.fits", "b_wht.fits"], "b_wht.fits"),
        (["a.stk.i.unconv.fits", "a.stk.i.unconv.mask.fits", "b.stk.i.unconv.mask.fits"], None),
        (["images/a.fits", "images/c.fits", "masks/a.fits", "masks/b.fits"], "masks/b.fits"),
        (["a/MER-VIS_1.fits", "a/MER-VIS-RMS_2.fits", "c.fits"], "a/MER-VIS-RMS_2.fits"),
    ],
)
def test_a_companion_whose_image_is_missing_is_no_image(tmp_path, files, lost):
    lost = lost or files[-1]
    write_files(tmp_path / "fits_data", *files)
    assert [file for file, (*_, fate) in fates(tmp_path).items() if fate == "no image"] == [lost]
    survey = read(tmp_path)
    assert survey.counts()["files"]["no image"] == 1
    assert len(survey) == len(files) - (1 if lost.startswith("a/") else 2)
    assert "there is none that goes with it, as" in survey.quarantine.set_index("file").loc[lost, "detail"]


@pytest.mark.parametrize(
    "layout", [("aux/a", "aux/b", "images/a", "images/b"), ("a/hsc", "a/ls", "b/hsc", "b/ls")]
)
def test_the_same_names_in_several_folders_are_ambiguous(tmp_path, layout):
    write_files(tmp_path, *(f"{path}_i.fits" for path in layout))
    with pytest.raises(
        ValueError, match=r"2 files have the name of one in another folder, such as a.*_i\.fits and"
    ):
        read(tmp_path)


def test_numbers_in_a_name_are_no_position_nor_a_hidden_file_an_object(tmp_path):
    write_files(tmp_path, "cutout_12_3.fits")
    (tmp_path / "._cutout_12_3.fits").write_bytes(b"Mac OS X")
    assert read(tmp_path).names.tolist() == ["cutout_12_3"]
    assert read(tmp_path).counts()["files"]["found"] == 1
    np.testing.assert_allclose(read(tmp_path).coordinates.ra.deg, 150, atol=1e-4)


def test_a_folder_that_is_a_link_is_reported(tmp_path):
    write_files(tmp_path / "elsewhere", "a.fits")
    (tmp_path / "survey/fits_data").mkdir(parents=True)
    (tmp_path / "survey/fits_data/link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="link/ it is a link, which is not followed"):
        read(tmp_path / "survey")
    write_files(tmp_path / "survey/fits_data", "b.fits")
    assert "link cannot be looked into (it is a link" in read(tmp_path / "survey").notes[0]


def test_services_objects_are_named_by_their_positions(tmp_path):
    write_files(tmp_path / "legacy", "cutout_150.0100_-2.0100.fits", "cutout_359.999999_+0.5.fits")
    assert read(tmp_path / "legacy").names.tolist() == ["J100002.40-020036.0", "J235959.99+003000.0"]
    hsc = "arch-{:03}/2-cutout-HSC-{}-9813-pdr3_wide.fits"
    for i in range(3):
        for band in "GI":
            hdus = cutouts.hdus(cutouts.pixels(40, seed=i), FILTER=band.lower())
            hdus[1].header["CRVAL1"], hdus[1].header["CRVAL2"] = 150 + 0.01 * i, -0.5
            (tmp_path / "hsc" / f"arch-{i:03}").mkdir(parents=True, exist_ok=True)
            hdus.writeto(tmp_path / "hsc" / hsc.format(i, band))
    survey = read(tmp_path / "hsc")
    assert survey.names.tolist() == ["J100000.00-003000.0", "J100002.40-003000.0", "J100004.80-003000.0"]
    assert survey.counts().loc[["usable", "other band"], "files"].tolist() == [3, 3]
    write_list(tmp_path / "hsc", "raw", survey.names[1:])
    write_list(tmp_path / "hsc", "selected", ["arch-002/2-cutout-HSC-I-9813-pdr3_wide.fits"])
    for i, band in enumerate("GRI"):  # the service numbers bands like objects
        file = tmp_path / f"object/arch/{i + 2}-cutout-HSC-{band}-9813-pdr3_wide.fits"
        cutouts.write(file, cutouts.pixels(40, seed=i), FILTER=band.lower())
    assert read_survey(tmp_path / "object", bands="gri", progress=False).images.shape[:2] == (1, 3)
    hdus.writeto(tmp_path / "object/arch/5-cutout-HSC-I-9813-pdr3_wide.fits")
    assert len(read(tmp_path / "object")) == 2  # of two in a folder, names do not tell which band is whose
    listed = read(tmp_path / "hsc")
    assert listed.names.tolist() == survey.names[1:].tolist()
    assert listed.labels.tolist() == [0, 1]
    assert (listed.counts().loc["total"] == listed.counts().loc["found"]).all()


def test_objects_in_folders_of_their_own_are_named_by_these(tmp_path):
    write_files(
        tmp_path / "fits_data", "one/image.fits", "two/image.fits", "two/image_mask.fits", "x/three.fits"
    )
    assert read(tmp_path).names.tolist() == ["one", "three", "two"]


@pytest.mark.slow
def test_more_than_a_tenth_in_quarantine_is_said(tmp_path):
    write_survey(tmp_path, names(10))
    (tmp_path / "fits_data" / f"a{ENDING}").write_text("<html>")
    assert read(tmp_path).summary.startswith("10 of 11 used")
    assert "quarantine" not in read(tmp_path).summary
    (tmp_path / "fits_data" / f"b{ENDING}").write_bytes(b"")
    assert "2 of 12 files and lines in quarantine (1 not FITS, 1 truncated)" in read(tmp_path).summary


def test_a_folder_that_may_not_be_looked_into_is_reported(tmp_path, monkeypatch):
    a, b = names(2)
    write_files(tmp_path / "fits_data", a + ENDING, f"closed/{b}{ENDING}")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    survey = read(tmp_path)
    assert survey.names.tolist() == [a]
    assert survey.quarantine[["file", "reason", "detail"]].to_numpy().tolist() == [
        ["closed/", "unreadable", "Permission denied"]
    ]
    assert f"{tmp_path / 'fits_data' / 'closed'} cannot be looked into (Permission denied)" in survey.notes[0]
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()
    monkeypatch.undo()
    assert read(tmp_path).names.tolist() == [a, b]


LINES = {
    "tabs": "{}\t{}\n",
    "semicolons": "{} ; {}\n",
    "bars": "{}|{}|x\n",
    "double quotes": '"{}",{}\n',
    "single quotes": "'{}'\n",
    "paths": "/data/fits_data/{}_HSC-I_img.fits\n",
    "windows paths": "C:\\data\\{}.fits\r\n",
    "second column": "{1},{0}\n",
    "comments": "{} # {}\n",
    "blanks": "{}   {}\n",
}


@pytest.mark.parametrize("header", ["", "# a list\n"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_as_people_keep_them_are_understood(tmp_path, line, header, encoding):
    members = [f"J1000{i:02}.00-020000.00" for i in range(4)]
    write_files(tmp_path / "fits_data", *(name + ENDING for name in members))
    text = header + "".join(line.format(name, i + 1) for i, name in enumerate(members))
    for change in (str, str.lower, lambda text: text.replace("-02", "\u221202")):
        for which, lines in (("raw", text), ("selected", "".join(text.splitlines(True)[:-2]))):
            (tmp_path / LISTS[which]).write_bytes(change(lines).encode(encoding))
        survey = take_inventory(tmp_path)
        assert survey.lists["raw"] == members
        assert survey.lists["selected"] == members[:2]


def test_headers_name_the_columns(tmp_path):
    a, b = names(2)
    write_files(tmp_path / "fits_data", a + ENDING, b + ENDING)
    (tmp_path / LISTS["selected"]).write_text(f"id,object name,grade\n1,{a},0\n2,{b},1\n")
    assert read(tmp_path).labels.tolist() == [1, 1]
    assert take_inventory(tmp_path).lists["selected"] == [a, b]


def test_a_line_that_is_a_name_as_it_stands_is_that_object_whatever_marks_it_holds(tmp_path):
    members = ["one,two;three", "a'b\"c {1}", "four\t#5", "<img src=x>"]
    write_files(tmp_path, *(f"{name}.fits" for name in members))
    write_list(tmp_path, "selected", members)
    assert take_inventory(tmp_path).lists["selected"] == members


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{0}\n{0},0\n{1},1", r"line 2: .* with a 0 beside it: take the line out"),
        (b"name,label\n{0},1\n{1},0", r"line 3: .* with a 0 beside"),
        (b'{0}\n"{1}', r"line 2: .*unexpected end of data; write one name a line"),
        (b"{0}\n\n,{1}", r"line 3: no name in column 1; write one name a line"),
        (b"{0}\n\x00\x01\x02", r"line 2: this is no text; save it as"),
    ],
)
def test_lists_that_could_mean_two_things_are_refused(tmp_path, content, message):
    members = names(2)
    write_files(tmp_path / "fits_data", *(name + ENDING for name in members))
    for i, name in enumerate(members):
        content = content.replace(b"{%d}" % i, name.encode())
    (tmp_path / LISTS["selected"]).write_bytes(content)
    with pytest.raises(ValueError, match=r"candidates_list_selected\.txt, " + message):
        read(tmp_path)
