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

from lensq.survey import ingest, processes, store
from lensq.survey.hdus import UnusableError
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
def reads(monkeypatch, tmp_path):
    """A function that returns the files that were opened since it was called last, whoever opened them."""
    log = tmp_path / "opened.txt"

    def decode(path, **options):
        with log.open("a") as file:
            file.write(Path(path).name.split("_")[0] + "\n")
        return original(path, **options)

    def since():
        opened = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return opened

    original = ingest.read_image
    monkeypatch.setattr(ingest, "read_image", decode)
    return since


def assert_same(one, other):
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.names, other.names)
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.group, other.group)
    np.testing.assert_array_equal(one.split, other.split)
    assert one.quarantine.equals(other.quarantine)


def files_in(folder):
    return sorted(path.name for path in (folder / "packed" / "48-crop").iterdir())


WHOLE = ["images.npy", "index.parquet", "masks.npy"]


@pytest.mark.slow
def test_files_are_read_once_and_then_memory_mapped(folder, reads):
    survey = read(folder)
    assert sorted(reads()) == [name(i) for i in range(N + 1)]
    again = read(folder)
    assert not reads()
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


@pytest.mark.slow
def test_processes_pack_the_same_as_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "FILES_IN_A_PART", 7)
    assert_same(read(folder), read(folder, store=tmp_path / "elsewhere", workers=2))


@pytest.mark.slow
def test_sizes_have_stores_of_their_own(folder):
    surveys = [read(folder), read(folder, size=64), read(folder, size=64, resize=True)]
    assert {survey.images.shape for survey in surveys[1:]} == {(N, 64, 64)}
    assert len({survey.fingerprint for survey in surveys}) == 3
    assert surveys[2].resized
    assert surveys[2].mask.all()
    assert {path.name for path in (folder / "packed").iterdir() if path.is_dir()} == {
        *("48-crop", "64-crop", "64-resize")
    }


@pytest.mark.slow
def test_changed_new_and_removed_files_are_noticed(folder, reads, tmp_path):
    old = read(folder)
    cutouts.write(file_of(folder, 7), cutouts.pixels(48, 1007))
    cutouts.write(file_of(folder, N), cutouts.pixels(48, 1060))
    cutouts.write(folder / "fits_data" / "J000030.00+010000.00_HSC-I_img.fits", cutouts.pixels(48, 2000))
    file_of(folder, 20).unlink()
    file_of(folder, 30).write_bytes(b"")
    new = read(folder)
    assert new.fingerprint != old.fingerprint
    np.testing.assert_array_equal(new.images[new.names == name(7)][0], cutouts.pixels(48, 1007))
    assert set(old.names) ^ set(new.names) == {"J000030.00+010000.00", name(20), name(30), name(N)}
    assert_same(new, read(folder, store=tmp_path / "fresh"))
    assert old.images.shape == (N, 48, 48)  # what was open stays whole
    np.testing.assert_array_equal(old.images[7], cutouts.pixels(48, 7))
    assert files_in(folder) == WHOLE


@pytest.mark.slow
def test_the_same_bytes_at_another_time_are_found_the_same(folder, reads):
    old = read(folder)
    reads()
    os.utime(file_of(folder, 3), ns=(1, 1))
    assert_same(read(folder), old)
    assert name(3) in reads()


@pytest.mark.slow
def test_files_that_become_readable_are_read(folder, monkeypatch, reads):
    def refuse(path, **options):
        if name(5) in str(path):
            raise UnusableError("unreadable", "Permission denied")
        return counted(path, **options)

    counted = ingest.read_image
    monkeypatch.setattr(ingest, "read_image", refuse)
    assert len(read(folder)) == N - 1
    monkeypatch.setattr(ingest, "read_image", counted)
    assert len(read(folder)) == N


@pytest.mark.slow
def test_a_survey_in_which_nothing_was_usable_can_be_mended(tmp_path):
    path = tmp_path / "fits_data" / f"{name(0)}_HSC-I_img.fits"
    path.parent.mkdir()
    path.write_text("<html>")
    for _ in range(2):
        with pytest.raises(ValueError, match="not one of 1 files can be used"):
            read(tmp_path)
    cutouts.write(path, cutouts.pixels(48))
    assert len(read(tmp_path)) == 1


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
original = ingest.read_image
def slow(path, **options):
    time.sleep(0.05)
    return original(path, **options)
ingest.read_image = slow
print("begins", flush=True)
survey.read_survey(sys.argv[1], workers=2, progress=False)
"""


@pytest.mark.slow
def test_a_killed_ingest_leaves_nothing_behind(folder, tmp_path):
    command = [sys.executable, "-c", SLOW, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob("packed/.partial*/images")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert list(folder.glob("packed/.partial*"))
    assert not (folder / "packed" / "48-crop").exists()
    while time.monotonic() < deadline:  # the processes that read end by themselves
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("processes that read live on")
    assert_same(read(folder), read(folder, store=tmp_path / "uninterrupted"))
    assert files_in(folder) == WHOLE
    assert sorted(os.listdir(folder / "packed")) == ["48-crop", "48-crop.lock"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["index.parquet", "images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "a byte"])
def test_a_damaged_store_is_packed_again(folder, part, damage):
    survey = read(folder)
    path = folder / "packed" / "48-crop" / part
    content = bytearray(path.read_bytes())
    path.unlink()
    content[len(content) // 2] ^= 1
    if damage != "gone":
        length = {"cut": len(content) // 2, "empty": 0, "a byte": len(content)}[damage]
        path.write_bytes(content[:length])
    assert_same(read(folder), survey)


@pytest.mark.slow
def test_files_that_change_names_change_pixels(tmp_path):
    """Of one size and time, as reproducible archives have them."""
    one, other = (cutouts.write(tmp_path / f"{n}.fits", cutouts.pixels(48, k)) for k, n in enumerate("ab"))
    for file in (one, other):
        os.utime(file, (1.6e9, 1.6e9))
    before = np.array(read(tmp_path).images)
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    np.testing.assert_array_equal(read(tmp_path).images, before[::-1])


def test_a_large_array_is_read_through_when_its_time_has_changed(folder, monkeypatch):
    monkeypatch.setattr(store, "CHECKED_ALWAYS", 1000)
    survey = read(folder)
    path = folder / "packed" / "48-crop" / "images.npy"
    with monkeypatch.context() as patch:
        patch.setattr(store, "_sum", None)
        read(folder)
        os.utime(path, ns=(1, 1))
        with pytest.raises(TypeError):
            read(folder)
    assert_same(read(folder), survey)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert_same(read(folder), survey)


@pytest.mark.slow
def test_a_store_of_another_format_is_packed_again(folder, reads, monkeypatch):
    read(folder)
    reads()
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    read(folder)
    assert len(reads()) == N + 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_kill_or_hang_their_reader_are_refused_and_the_others_read(folder, monkeypatch, workers):
    def deadly(path, **options):
        if name(20) in str(path):
            os._exit(7)
        if name(33) in str(path):
            time.sleep(1000)
        if name(40) in str(path):
            raise KeyError("of a library")
        return original(path, **options)

    original = ingest.read_image
    monkeypatch.setattr(ingest, "read_image", deadly)
    monkeypatch.setattr(ingest, "PART_TIME_LIMIT", 3)
    monkeypatch.setattr(ingest, "TIME_LIMIT", 2)
    survey = read(folder, workers=workers)
    assert len(survey) == N - 3
    rows = survey.quarantine.set_index("name")
    assert rows.loc[[name(20), name(33), name(40)], "reason"].tolist() == ["unreadable"] * 3
    assert "kills the process (exit code 7)" in rows.loc[name(20), "detail"]
    assert "longer than 2 s" in rows.loc[name(33), "detail"]
    assert rows.loc[name(40), "detail"] == "KeyError: 'of a library'"
    assert (survey.counts().loc["total"] == survey.counts().loc["found"]).all()


@pytest.mark.slow
def test_a_process_that_may_have_none_of_its_own_says_so_and_opens_what_is_packed(folder, monkeypatch):
    class Daemon:
        daemon = True

    with monkeypatch.context() as patch:
        patch.setattr(processes, "current_process", Daemon)
        with pytest.raises(RuntimeError, match="start none of its own"):
            read(folder)
    expected = read(folder)
    monkeypatch.setattr(processes, "current_process", Daemon)
    assert_same(read(folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["file", "standard input"])
def test_a_script_without_a_guard_may_read_with_processes(folder, tmp_path, by):
    code = "print('begins', flush=True)\nimport lensq\n"
    code += f"print(len(lensq.read_survey({str(folder)!r}, workers=2)))\n"
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, str(tmp_path / "script.py")] if by == "file" else [sys.executable, "-"]
    run = subprocess.run(command, input=code, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["begins", str(N)]
    assert f"{N + 1}/{N + 1}" in run.stderr  # the progress bar


PLAIN = "import sys, lensq; print(lensq.read_survey(sys.argv[1], workers=1, progress=False).fingerprint)"


@pytest.mark.slow
def test_processes_that_pack_at_once_wait_for_each_other(folder):
    command = [sys.executable, "-c", PLAIN, str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert found == {read(folder).fingerprint + "\n"}
    assert files_in(folder) == WHOLE


@pytest.mark.slow
def test_who_waits_says_for_whom(folder):
    packed = folder / "packed" / "48-crop"
    packed.parent.mkdir(parents=True)
    packed.with_name("48-crop.lock").write_text(
        "process 1 on a machine long gone"
    )  # the lock itself went with its holder
    with store._locked(packed):
        command = [sys.executable, "-c", PLAIN, str(folder)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        message = waiting.stderr.readline()
        assert f"being packed by process {os.getpid()} on" in message
        assert waiting.poll() is None
        assert not packed.exists()
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_packed_survey_opens_where_nothing_can_be_written(folder, monkeypatch):
    read(folder)

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(store.fcntl, "flock", refuse)
    assert len(read(folder)) == N


def test_a_read_only_survey_with_such_a_home_asks_for_a_store(folder, tmp_path, monkeypatch):
    def read_only(path, *arguments, **options):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for home in (str(tmp_path / "nowhere"), None):
        if home:
            monkeypatch.setenv("HOME", home)
        else:
            monkeypatch.delenv("HOME")
        with pytest.raises(PermissionError, match=r"cannot be written to .*store="):
            read(folder)


def test_a_full_disk_is_noticed_before_reading(folder, monkeypatch, reads):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"no space .*48-crop \(.* GB are needed.*store="):
        read(folder)
    assert not reads()


@pytest.mark.slow
def test_a_disk_that_fills_while_reading_names_path_and_need_and_leaves_nothing(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_index", full)
    with pytest.raises(OSError, match=r"no space for .*48-crop.* GB are needed.*store="):
        read(folder)
    assert os.listdir(folder / "packed") == ["48-crop.lock"]


def test_a_file_system_without_locks_asks_for_another(folder, monkeypatch):
    def refuse(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(store.fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"no locks.*store="):
        read(folder)


def test_images_follow_the_names_when_files_come_in_another_order(tmp_path):
    for i in range(5):
        hdus = cutouts.hdus(cutouts.pixels(48, i))
        hdus[1].header["CRVAL1"] = 150 - 0.1 * i
        hdus.writeto(tmp_path / f"{i}-cutout-HSC-I-9813-pdr3_wide.fits")
    (tmp_path / "2-cutout-HSC-I-9813-pdr3_wide.fits").write_text("<html>")
    survey = read(tmp_path)
    assert survey.files.tolist() == [f"{i}-cutout-HSC-I-9813-pdr3_wide.fits" for i in (4, 3, 1, 0)]
    for image, i in zip(survey.images, (4, 3, 1, 0), strict=True):
        np.testing.assert_array_equal(image, cutouts.pixels(48, i))
    assert isinstance(survey.images, np.memmap)
    assert_same(survey, read(tmp_path))
