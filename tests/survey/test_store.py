import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cutouts
import numpy as np
import pytest
from astropy.io import fits

from lensq.survey import ingest, store
from lensq.survey.hdus import UnusableError
from lensq.survey.lists import LISTS
from lensq.survey.survey import read_survey

N = 60


@pytest.fixture
def folder(tmp_path):
    for i in range(N):
        side = [41, 48, 64][i % 3]
        cutouts.write(
            tmp_path / "survey" / "fits_data" / f"{name(i)}_HSC-I_img.fits", cutouts.pixels(side, i)
        )
    (tmp_path / "survey" / "fits_data" / f"{name(N)}_HSC-I_img.fits").write_text("<html>")
    return tmp_path / "survey"


def name(i):
    return f"J{i // 60:02}{i % 60:02}00.00+010000.00"


def file_of(folder, i):
    return folder / "fits_data" / f"{name(i)}_HSC-I_img.fits"


def read(folder, **options):
    return read_survey(folder, **{"workers": 1, "progress": False, **options})


@pytest.fixture
def reads(monkeypatch):
    """The files that were opened, in order."""
    opened = []

    def read_image(path):
        opened.append(Path(path).name.split("_")[0])
        return original(path)

    original = ingest.read_image
    monkeypatch.setattr(ingest, "read_image", read_image)
    return opened


def assert_same(one, other):
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.names, other.names)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.group, other.group)
    np.testing.assert_array_equal(one.split, other.split)
    assert one.quarantine.equals(other.quarantine)


def files_in(folder):
    return sorted(path.name.split("-")[0] for path in (folder / "packed" / "48-crop").iterdir())


WHOLE = ["images", "index.parquet", "lock", "masks"]


def test_files_are_read_once_and_then_memory_mapped(folder, reads):
    survey = read(folder)
    assert sorted(reads) == [name(i) for i in range(N + 1)]
    again = read(folder)
    assert len(reads) == N + 1
    assert_same(survey, again)
    for array, kind in ((again.images, np.float32), (again.mask, np.bool_)):
        assert isinstance(array, np.memmap)
        assert array.dtype == kind
        assert not array.flags.writeable
        assert array.shape == (N, 48, 48)
    assert files_in(folder) == WHOLE


def test_stamps_are_cropped_padded_and_masked(folder):
    survey = read(folder)
    for i in range(N):
        image = cutouts.pixels([41, 48, 64][i % 3], i)
        if i % 3 == 0:
            np.testing.assert_array_equal(survey.images[i][4:45, 4:45], image)
            assert survey.mask[i].sum() == 41 * 41
            assert survey.images[i][~survey.mask[i]].tolist() == [0.0] * (48**2 - 41**2)
        else:
            cut = image if i % 3 == 1 else image[8:56, 8:56]
            np.testing.assert_array_equal(survey.images[i], cut)
            assert survey.mask[i].all()


def test_processes_pack_the_same_as_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "FILES_IN_A_PART", 7)
    assert_same(read(folder), read(folder, store=tmp_path / "elsewhere", workers=2))


def test_sizes_have_stores_of_their_own(folder):
    surveys = [read(folder), read(folder, size=64), read(folder, size=64, resize=True)]
    assert {survey.images.shape for survey in surveys[1:]} == {(N, 64, 64)}
    assert len({survey.fingerprint for survey in surveys}) == 3
    assert surveys[2].resized
    assert surveys[2].mask.all()
    assert sorted(os.listdir(folder / "packed")) == ["48-crop", "64-crop", "64-resize"]


def test_changed_new_and_removed_files_are_noticed(folder, reads, tmp_path):
    old = read(folder)
    reads.clear()
    cutouts.write(file_of(folder, 7), cutouts.pixels(48, 1007))
    cutouts.write(file_of(folder, N), cutouts.pixels(48, 1060))
    cutouts.write(folder / "fits_data" / "J000030.00+010000.00_HSC-I_img.fits", cutouts.pixels(48, 2000))
    file_of(folder, 20).unlink()
    file_of(folder, 30).write_bytes(b"")
    new = read(folder)
    assert sorted(reads) == ["J000030.00+010000.00", name(7), name(30), name(N)]
    assert new.fingerprint != old.fingerprint
    np.testing.assert_array_equal(new.images[new.names == name(7)][0], cutouts.pixels(48, 1007))
    assert set(old.names) ^ set(new.names) == {"J000030.00+010000.00", name(20), name(30), name(N)}
    assert_same(new, read(folder, store=tmp_path / "fresh"))
    assert old.images.shape == (N, 48, 48)  # what was open stays whole
    np.testing.assert_array_equal(old.images[7], cutouts.pixels(48, 7))
    assert files_in(folder) == WHOLE


def test_the_same_bytes_at_another_time_are_read_again_and_found_the_same(folder, reads):
    old = read(folder)
    reads.clear()
    os.utime(file_of(folder, 3), ns=(1, 1))
    assert_same(read(folder), old)
    assert reads == [name(3)]


def test_a_shorter_list_needs_no_reading(folder, reads, tmp_path):
    read(folder)
    reads.clear()
    (folder / LISTS["raw"]).write_text("".join(f"{name(i)}\n" for i in range(0, N, 2)))
    fewer = read(folder)
    assert not reads
    assert fewer.names.tolist() == [name(i) for i in range(0, N, 2)]
    np.testing.assert_array_equal(
        fewer.images[1][4:45, 4:45], cutouts.pixels([41, 48, 64][2], 2)[12:53, 12:53]
    )
    assert_same(fewer, read(folder, store=tmp_path / "fresh"))


def test_files_that_become_readable_are_read(folder, monkeypatch, reads):
    def refuse(path):
        if name(5) in str(path):
            raise UnusableError("unreadable", "Permission denied")
        return counted(path)

    counted = ingest.read_image
    monkeypatch.setattr(ingest, "read_image", refuse)
    assert len(read(folder)) == N - 1
    monkeypatch.setattr(ingest, "read_image", counted)
    reads.clear()
    assert len(read(folder)) == N
    assert reads == [name(5)]


def test_the_working_size_decides_what_is_constant(tmp_path):
    image = cutouts.pixels(64)
    image[8:56, 8:56] = 2.0
    cutouts.write(tmp_path / "a.fits", image)
    cutouts.write(tmp_path / "b.fits", np.where(image == 2, np.nan, image))
    cutouts.write(tmp_path / "c.fits", cutouts.pixels(64))
    assert read(tmp_path, size=64).names.tolist() == ["a", "b", "c"]
    survey = read(tmp_path, size=48)
    assert survey.names.tolist() == ["c"]
    assert survey.quarantine["reason"].tolist() == ["constant", "no finite pixel"]


SLOW = """
import sys, time
from lensq.survey import ingest, survey
ingest.FILES_IN_A_PART = 4
original = ingest.read_image
def slow(path):
    time.sleep(0.01)
    return original(path)
ingest.read_image = slow
survey.read_survey(sys.argv[1], workers=1)
"""


def test_a_killed_ingest_goes_on_where_it_was(folder, tmp_path, reads):
    uninterrupted = read(folder, store=tmp_path / "uninterrupted")
    reads.clear()
    packed = folder / "packed" / "48-crop"
    for parts in (3, 8):
        process = subprocess.Popen([sys.executable, "-c", SLOW, str(folder)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(packed.glob("partial-*/*.json"))) < parts and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not list(packed.glob("*.npy"))
        assert not list(packed.glob("index*"))
    done = 4 * len(list(packed.glob("partial-*/*.json")))
    assert done >= 32
    assert_same(read(folder), uninterrupted)
    assert len(reads) == N + 1 - done
    assert files_in(folder) == WHOLE


def test_files_that_change_while_an_ingest_is_interrupted_are_read_again(
    folder, tmp_path, reads, monkeypatch
):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_index", stop)
        with pytest.raises(KeyboardInterrupt):
            read(folder)
    reads.clear()
    cutouts.write(file_of(folder, 7), cutouts.pixels(48, 1007))
    file_of(folder, 20).unlink()
    survey = read(folder)
    assert reads == [name(7)]
    assert_same(survey, read(folder, store=tmp_path / "fresh"))
    assert files_in(folder) == WHOLE


@pytest.mark.parametrize("part", ["index.parquet", "images", "masks"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_store_is_packed_again(folder, part, damage):
    survey = read(folder)
    [path] = (folder / "packed" / "48-crop").glob(f"{part}*")
    if damage == "gone":
        path.unlink()
    else:
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)
        os.truncate(path, path.stat().st_size // 2)
    assert_same(read(folder), survey)


def test_a_store_of_another_format_is_packed_again(folder, reads, monkeypatch):
    read(folder)
    reads.clear()
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    read(folder)
    assert len(reads) == N + 1


def test_a_file_that_kills_its_reader_is_found_and_the_others_are_read(folder, tmp_path, monkeypatch):
    deadly = tmp_path / "deadly"
    deadly.mkdir()
    (deadly / "fitsio.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(deadly)
    monkeypatch.setattr(ingest, "FILES_IN_A_PART", 8)
    tiles = fits.CompImageHDU(cutouts.pixels(48), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), tiles]).writeto(file_of(folder, 20), overwrite=True)
    survey = read(folder, workers=2)
    assert len(survey) == N - 1
    row = survey.quarantine.set_index("name").loc[name(20)]
    assert row["reason"] == "unreadable"
    assert "exit code 7" in row["detail"]
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()


def test_processes_that_cannot_start_are_an_error(folder, monkeypatch, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tqdm.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    with pytest.raises(RuntimeError, match="workers=1"):
        read(folder, workers=2)


def test_an_error_of_a_process_is_raised_here(folder, tmp_path):
    files = [(file_of(folder, i).name, 1, 1, False) for i in range(8)]
    (tmp_path / "run-00000000.json" / "in the way").mkdir(parents=True)
    task = ingest.Task(folder / "fits_data", files, 48, False, tmp_path / "run")
    with pytest.raises(IsADirectoryError):
        ingest.read_files(task, workers=2, progress=False)


@pytest.mark.parametrize("by", ["file", "standard input"])
def test_a_script_without_a_guard_may_read_with_processes(folder, tmp_path, by):
    code = f"print('begins')\nimport lensq\nprint(len(lensq.read_survey({str(folder)!r}, workers=2)))\n"
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, str(tmp_path / "script.py")] if by == "file" else [sys.executable, "-"]
    run = subprocess.run(command, input=code, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["begins", str(N)]
    assert f"{N + 1}/{N + 1}" in run.stderr  # the progress bar


PLAIN = "import sys, lensq; print(lensq.read_survey(sys.argv[1], workers=1, progress=False).fingerprint)"


def test_processes_that_pack_at_once_wait_for_each_other(folder):
    command = [sys.executable, "-c", PLAIN, str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert found == {read(folder).fingerprint + "\n"}
    assert files_in(folder) == WHOLE


def test_who_waits_says_for_whom(folder):
    packed = folder / "packed" / "48-crop"
    packed.mkdir(parents=True)
    (packed / "lock").write_text("process 1 on a machine long gone")  # the lock itself went with its holder
    with store._locked(packed):
        command = [sys.executable, "-c", PLAIN, str(folder)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        message = waiting.stderr.readline()
        assert f"being packed by process {os.getpid()} on" in message
        assert waiting.poll() is None
        assert not list(packed.glob("*.npy"))
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0


def test_a_survey_that_cannot_be_written_to_is_packed_elsewhere(folder, tmp_path, monkeypatch, caplog):
    mkdir = Path.mkdir

    def read_only(path, *arguments, **options):
        if path.is_relative_to(folder):
            raise OSError(30, "Read-only file system", str(path))
        return mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(PermissionError, match=r"store="):
        read(folder, store=folder / "other")
    assert not (tmp_path / "cache").exists()
    assert len(read(folder)) == N
    [packed] = (tmp_path / "cache/lensq").iterdir()
    assert f"they go to {packed}" in caplog.text
    assert len(read(folder, store=tmp_path / "elsewhere")) == N
    assert not (folder / "packed").exists()


def test_a_packed_survey_opens_where_nothing_can_be_written(folder, monkeypatch):
    read(folder)

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(store.fcntl, "flock", refuse)
    assert len(read(folder)) == N


def test_a_full_disk_is_noticed_before_reading(folder, monkeypatch, reads):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"no room.*store="):
        read(folder)
    assert not reads


def test_a_file_system_without_locks_asks_for_another(folder, monkeypatch):
    def refuse(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(store.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"no locks.*store="):
        read(folder)


@pytest.mark.parametrize("links", [True, False])
def test_arrays_that_are_already_right_are_not_copied_row_by_row(folder, tmp_path, monkeypatch, links):
    expected = read(folder)

    def refuse(*arguments):
        raise OSError("no links here")

    def fail(*arguments):
        raise AssertionError("copied")

    if not links:
        monkeypatch.setattr(store.os, "link", refuse)
    file_of(folder, N).unlink()  # the bad one
    with monkeypatch.context() as patch:
        patch.setattr(store, "_copy", fail)
        surveys = [
            read(folder),
            read(folder, store=tmp_path / "fresh"),
            read(folder, store=tmp_path / "fresh"),
        ]
    for survey in surveys:
        np.testing.assert_array_equal(survey.images, expected.images)
        assert survey.fingerprint == expected.fingerprint
        assert survey.quarantine.empty
    assert files_in(folder) == WHOLE
