import os

import pytest

from lensq.survey.files import atomic


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic(path) as partial:
        assert partial.suffix == ".csv"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


def failing(path, error, remedy="make space"):
    with atomic(path, remedy) as partial:
        partial.write_text("new")
        raise error


def test_after_an_error_everything_is_as_it_was(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        failing(path, KeyError())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_folder_is_replaced_too(tmp_path):
    path = tmp_path / "store"
    for content in ("old", "new"):
        with atomic(path) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["store"]


def test_a_full_disk_names_the_path_and_the_remedy(tmp_path):
    full = OSError(28, "No space left on device")
    with pytest.raises(
        OSError, match=r"no space for .*table\.csv \(No space left on device\): 3 GB are needed"
    ):
        failing(tmp_path / "table.csv", full, "3 GB are needed")
