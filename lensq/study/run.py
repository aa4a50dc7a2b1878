"""What `make book`, `make candidates`, `make lab` and `make sweep` do.

    PROFILE=smoke SURVEY=/data/hsc python -m lensq.study.run book

What a user gives comes by the environment and goes to Snakemake in a file, so that no shell reads it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

from lensq.study.job import RUNNING, error_in, run_notebook
from lensq.study.page import to_page
from lensq.study.profiles import read_profile
from lensq.study.sweep import CHOSEN, read_sweep
from lensq.survey.planes import band_names

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


def build_folder(
    profile: str = "laptop", survey: Path | None = None, bands: tuple[str, ...] = ("i",)
) -> Path:
    """`_build` for the laptop's study; a folder in it for each other profile, survey of one's own and bands.

    The name is harmless whatever the survey's is, and no two surveys share one.
    """
    parts = [profile] * (profile != "laptop") + ["".join(bands)] * (bands != ("i",))
    if survey:
        parts += [survey.name, hashlib.sha256(os.fsencode(survey)).hexdigest()[:6]]
    return ROOT.joinpath("_build", *[re.sub(r"[^\w.-]", "_", "-".join(parts))] * bool(parts))


def read_given(command: str) -> tuple[Path, dict[str, str]]:
    """The build folder and Snakemake's configuration, from the environment.

    Raises:
        SystemExit: a value cannot work; the message is one line.
    """
    names = ("PROFILE", "SURVEY", "BANDS", "VARIANT", "GRID")
    given = {name.lower(): os.environ[name] for name in names if os.environ.get(name)}
    for name, value in given.items():
        if not value.isprintable():
            raise SystemExit(f"{name.upper()}={value!a} has characters that cannot be printed: rename it")
    profile = given.setdefault("profile", "laptop")
    try:
        bands = band_names(given.get("bands", "i"))
    except ValueError as error:
        raise SystemExit(f"BANDS={given['bands']}: {error}") from None
    if survey := given.get("survey"):
        given["survey"] = os.path.abspath(survey)
        if not Path(survey).is_dir():
            raise SystemExit(f"SURVEY={survey} is no folder: name that of the FITS cutouts or HDF5 file")
    elif command == "candidates":
        raise SystemExit("Name the folder: make candidates SURVEY=<folder>")
    try:
        study = read_profile(NOTEBOOKS / "profiles" / f"{profile}.yml", NOTEBOOKS)
        chosen = study["09_latent_chi_squared"].get("variant", CHOSEN)
        if command == "sweep":
            given["variant"], _ = read_sweep(given, chosen, NOTEBOOKS)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    own = os.environ.get("BUILD")
    place = build_folder(profile, survey and Path(given["survey"]), bands)
    return Path(own).resolve() if own else place, given


def hold(build: Path) -> tuple[TextIO, bool]:
    """Lock a build folder for as long as the returned file is open, and tell whether the last run was killed.

    Jobs of a run that was killed end by themselves within a second or two; they are waited for.

    Raises:
        SystemExit: somebody else is at work there.
    """
    build.mkdir(parents=True, exist_ok=True)
    file = (build / RUNNING).open("a+")
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.5)
        except OSError:  # a file system without locks
            break
    else:
        file.seek(0)
        number = file.read()
        alive = number.isdigit() and psutil.pid_exists(int(number))
        who = f"process {number}" if alive else "a snakemake that was started by hand, or on another machine,"
        file.close()
        raise SystemExit(f"{build}: {who} is at work there; wait until it is done, or end it")
    file.seek(0)
    killed = bool(file.read())
    file.truncate(0)
    print(os.getpid(), end="", file=file, flush=True)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)  # shared with the jobs, which hold it too
    return file, killed


def snakemake(build: Path, given: dict[str, str], *targets: str) -> None:
    """Bring targets of the graph up to date.

    Raises:
        SystemExit: a job failed, with its notebook's error; or somebody else is at work there.
    """
    lock, killed = hold(build)
    (build / "config.json").write_text(json.dumps(given))
    command = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(build)]
    command += ["--configfile", str(build / "config.json"), "--cores", os.environ.get("CORES") or "all"]
    with lock:
        if killed:
            _snakemake([*command, "--quiet", "all", "--unlock"])
        began = time.time()
        code = _snakemake([*command, "--quiet", "rules", "host", "--rerun-incomplete", "--", *targets])
        lock.truncate(0)
    if code:
        logs = [log for log in sorted(build.glob("logs/*.ipynb")) if log.stat().st_mtime >= began]
        raise SystemExit("\n".join(filter(None, map(error_in, logs))) or f"make {' '.join(targets)} failed")


def _snakemake(command: list[str]) -> int:
    from snakemake.cli import main

    place = Path.cwd()
    try:
        main(command)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        os.chdir(place)
    return 0


def unpack(archive: Path, build: Path) -> Path:
    """The trained models of an archive that `make release` made, in a folder laid out like one of results.

    Raises:
        SystemExit: it is not the file that its release lists, or not that of the models.
    """
    sums = archive.with_name("SHA256SUMS")
    try:
        listed = dict(line.split()[::-1] for line in sums.read_text().splitlines())
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise SystemExit(f"MODEL={archive}: {error}; it lies beside the SHA256SUMS of its release") from None
    if listed.get(archive.name) != digest:
        raise SystemExit(f"MODEL={archive} is not what {sums} lists: fetch both again")
    folder = build / f"model-{digest[:12]}"
    with tarfile.open(archive) as file:
        if "./injected/none/model.pt" not in file.getnames():
            raise SystemExit(f"MODEL={archive} holds no detector: name the release's models.tar.gz")
        file.extractall(folder, filter="data")
    return folder


def candidates(build: Path, given: dict[str, str]) -> None:
    """Rank a survey with the models of the simulated one, or of a release, named by MODEL.

    With its own where TRAIN is set and it is large.
    """
    from lensq.detection.candidates import TO_TRAIN
    from lensq.survey.survey import read_survey

    ranked = build / "candidates.ipynb"
    bands = {"bands": given["bands"]} if "bands" in given else {}
    archive = os.environ.get("MODEL")
    if archive and os.environ.get("TRAIN"):
        raise SystemExit("MODEL ranks with models that are trained, TRAIN trains them: give one of the two")
    if os.environ.get("TRAIN") and len(read_survey(given["survey"], **bands)) >= TO_TRAIN:
        snakemake(build, given, "src/notebooks/14_candidates.ipynb")
        shutil.copy(build / "src/notebooks/14_candidates.ipynb", ranked)
    else:
        simulated = build_folder(given["profile"], bands=band_names(given.get("bands", "i")))
        trained = unpack(Path(archive), build) if archive else simulated / "results"
        if not archive:
            if not (trained / "injected/none/model.pt").is_file():
                print("lensq: training on the simulated survey first, once (some 15 minutes on two cores)")
            own = {"profile": given["profile"], **bands}  # nothing, if they are of this code
            snakemake(simulated, own, "src/notebooks/11_injected_lenses.ipynb")
        results = build / "results"
        results.mkdir(parents=True, exist_ok=True)
        places = {"survey": given["survey"], "trained": str(trained), "results": str(results), **bands}
        log = build / "logs" / ranked.name
        log.parent.mkdir(exist_ok=True)
        run_notebook(NOTEBOOKS / "14_candidates.ipynb", log, places)
        shutil.copy(log, ranked)
    print(f"The ranked list: {build}/results/candidates.csv; to look at: {to_page(ranked).as_uri()}")


def stand_in(build: Path, given: dict[str, str]) -> Path:
    """Let injected lenses take the place of labels in the book of a survey that has none.

    Returns:
        The build folder, another than that in which `make candidates` trains on the survey as it is.
    """
    from lensq.classifiers.recovery import write_injected
    from lensq.survey.lists import LISTS

    if "survey" not in given or (Path(given["survey"]) / LISTS["selected"]).is_file():
        return build
    build = build.with_name(f"{build.name}-injected")
    print("lensq: the survey has no labels; lenses are injected into a copy of it, and flagged", flush=True)
    bands = {"bands": given["bands"]} if "bands" in given else {}
    copy = write_injected(given["survey"], build / "survey", **bands)
    given |= {"listed": given["survey"], "survey": str(copy)}
    return build


def lab(build: Path, given: dict[str, str]) -> None:
    """Become JupyterLab, on the ranked list of a survey, which is made if need be, or on notebook 00."""
    page = NOTEBOOKS / "00_start_here.ipynb"
    if "survey" in given:
        page = build / "candidates.ipynb"
        if not page.is_file():
            candidates(build, given)
    root = ROOT if page.is_relative_to(ROOT) else page.parent
    options = ["--allow-root"] * (os.geteuid() == 0)
    os.execvp("jupyter", ["jupyter", "lab", *options, f"--ServerApp.root_dir={root}", str(page)])


def main(command: str) -> None:
    """Run a command of the Makefile."""
    build, given = read_given(command)
    if command == "candidates":
        candidates(build, given)
    elif command == "lab":
        lab(build, given)
    elif command == "sweep":
        snakemake(build, given, "sweep")
        print(f"The runs, compared: {(build / 'sweep' / given['variant'] / 'index.html').as_uri()}")
    else:
        build = stand_in(build, given)
        print(f"lensq 2/2: running the study, profile {given['profile']}, in {build}", flush=True)
        snakemake(build, given, "book")
        print(f"The book is built. Open {(build / 'html/index.html').as_uri()}")
    if (summary := build / "results" / "summary.txt").is_file():
        print(summary.read_text().strip())


if __name__ == "__main__":
    main(sys.argv[1])
