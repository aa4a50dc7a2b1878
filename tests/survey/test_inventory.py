import gzip
import os
import shutil

import cutouts
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lensq.survey.hdus import UnusableError
from lensq.survey.inventory import REASONS, state_of, take_inventory
from lensq.survey.lists import LISTS
from lensq.survey.survey import read_survey

ENDING = "_HSC-I_img.fits"


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


def test_lists_give_names_and_labels(tmp_path):
    a, b, c, d = names(4)
    survey = read(write_survey(tmp_path, [c, a, d, b], raw=[d, b, a, c], selected=[c, a], graded=[a, b]))
    assert survey.names.tolist() == [a, b, c, d]
    assert survey.labels.tolist() == [1, 0, 1, 0]
    assert survey.graded.tolist() == [True, True, False, False]
    assert survey.quarantine.empty
    for i, name in enumerate([c, a, d, b]):
        np.testing.assert_array_equal(survey.images[survey.names == name][0], cutouts.pixels(40, seed=i))


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


@pytest.mark.parametrize("place", [".", "fits_data"])
def test_a_folder_without_lists_is_unlabelled(tmp_path, place):
    for i, file in enumerate(
        ["one.fits", "J100000.00+100000.00_HSC-I_img.FITS", "J110000.00+100000.00_HSC-R_img.fits"]
    ):
        cutouts.write(tmp_path / place / file, cutouts.pixels(40, seed=i))
    (tmp_path / place / "notes.txt").write_text("no FITS")
    (tmp_path / place / "folder.fits").mkdir()
    survey = read(tmp_path)
    assert survey.names.tolist() == ["J100000.00+100000.00", "J110000.00+100000.00_HSC-R_img", "one"]
    assert (survey.labels == -1).all()
    assert not survey.graded.any()
    np.testing.assert_allclose(survey.coordinates.ra.deg, [150, 165, 150], atol=1e-4)  # the last by WCS
    assert survey.counts()["files"]["found"] == 3


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


def test_a_folder_of_folders_is_named(tmp_path):
    [name] = names(1)
    (tmp_path / "tract0").mkdir()
    cutouts.write(tmp_path / "tract0" / (name + ENDING), cutouts.pixels(40))
    with pytest.raises(FileNotFoundError, match="but in tract0; put the cutouts into fits_data"):
        read(tmp_path)


def test_lists_may_name_files(tmp_path):
    a, b = names(2)
    survey = read(write_survey(tmp_path, [a, b], raw=[a + ENDING, b], selected=[a + ENDING + ".gz"]))
    assert survey.labels.tolist() == [1, 0]


def test_a_list_of_flags_that_flags_nothing_is_heard(tmp_path, caplog):
    a, b, stray = names(3)
    read(write_survey(tmp_path, [a, b], selected=[stray]))
    assert f"candidates_list_selected.txt names no object of the survey, such as {stray}" in caplog.text


def test_labels_of_unknown_objects_are_reported(tmp_path):
    a, b, stray, ghost = names(4)
    lists = {"raw": [a, b], "selected": [a, stray, ghost], "graded": [ghost]}
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
        case "present but unlisted":
            shutil.copy(path, path.with_name(f"J200000.00-{rng.integers(100000, 900000)}.00{ENDING}"))
        case "listed twice":
            pass


@pytest.mark.parametrize("seed", range(6))
def test_counts_add_up_for_any_mixture_of_faults(tmp_path, seed):
    rng = np.random.default_rng(seed)
    members = names(80)
    write_survey(tmp_path, members)
    fates = dict(
        zip(members, rng.choice(["usable", *REASONS], len(members), p=[0.4, *[0.05] * 12]), strict=True)
    )
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

    good = [
        name
        for name, fate in fates.items()
        if fate in ("usable", "present but unlisted", "second file", "listed twice")
    ]
    assert survey.names.tolist() == good
    counts = survey.counts()
    assert (counts.loc["total"] == counts.loc["found"]).all()
    assert counts.loc["found", "raw"] == len(raw)
    assert counts.loc["found", "selected"] == 20
    assert counts.loc["found", "files"] == len(list((tmp_path / "fits_data").iterdir()))
    expected = pd.Series(fates).value_counts()
    for reason in set(REASONS) - {"listed twice", "present but unlisted", "second file"}:
        assert counts.loc[reason, "raw"] == expected.get(reason, 0)
    for reason in ("present but unlisted", "second file"):
        assert counts.loc[reason, "files"] == expected.get(reason, 0)
    assert counts.loc["listed twice", "raw"] == len(raw) - len(members)
    assert counts.loc["usable", "selected"] == survey.labels.sum() == len(set(selected) & set(good))

    found = survey.quarantine["reason"].value_counts()
    for reason in REASONS:
        assert found.get(reason, 0) == max(counts.loc[reason, "raw"], counts.loc[reason, "files"])
    for row in survey.quarantine.itertuples():
        if row.name in fates and row.reason != "listed twice":
            assert row.reason == fates[row.name]


def test_the_reasons_are_those_that_the_reader_gives():
    assert set(REASONS) == {
        *("not FITS", "truncated", "no image", "wrong dimensions", "no finite pixel", "constant"),
        *("under 32 px", "unreadable", "listed but absent", "present but unlisted", "second file"),
        "listed twice",
    }
    for reason in REASONS[:8]:
        assert f'"{reason}"' in UnusableError.__doc__


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
