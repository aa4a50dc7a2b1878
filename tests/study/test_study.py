"""What the workflow knows of the notebooks, and the workflow itself at smoke size."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from conftest import ROOT, environment, snakemake

from lensq.classifiers.classifier import Classifier
from lensq.simulate import simulate_survey
from lensq.study import job, run
from lensq.study.profiles import read_profile
from lensq.study.run import build_folder, hold

pytestmark = pytest.mark.slow  # Snakemake takes seconds to begin

PROFILES = sorted((ROOT / "notebooks" / "profiles").glob("*.yml"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture
def notebooks(tmp_path) -> Path:
    """A folder with one notebook that declares two parameters."""
    parameters = nbformat.v4.new_code_cell(
        "epochs: int = 3  # passes, 1 or more\nrate: float = 0.5  # a rate", metadata={"tags": ["parameters"]}
    )
    code = nbformat.v4.new_code_cell("import lensq\n%matplotlib inline\nlensq.read_survey")
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, code]), tmp_path / "01_a.ipynb")
    return tmp_path


def profile(folder: Path, text: str) -> Path:
    file = folder / "p.yml"
    file.write_text(text)
    return file


def test_shared_keys_reach_the_notebooks_that_declare_them(notebooks):
    read = read_profile(profile(notebooks, "every notebook: {epochs: 7}\n01_a: {rate: 1}\n"), notebooks)
    assert read == {"01_a": {"epochs": 7, "rate": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("01_a: {epoch: 7}", "01_a: there is no parameter 'epoch'; did you mean epochs"),
        ("every notebook: {epoch: 7}", "parameters that no notebook declares: epoch"),
        ("02_b: {epochs: 7}", "name no notebook: 02_b"),
        ("01_a: {epochs: many}", "must be int"),
        ("01_a: {epochs: true}", "must be int"),
        ("01_a: {epochs: 0}", "must be 1 or more"),
    ],
)
def test_a_wrong_key_type_or_value_is_an_error(notebooks, text, message):
    with pytest.raises(ValueError, match=message):
        read_profile(profile(notebooks, text), notebooks)


def test_a_missing_profile_names_those_there_are(notebooks):
    profile(notebooks, "")
    with pytest.raises(FileNotFoundError, match="there are p"):
        read_profile(notebooks / "q.yml", notebooks)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_is_accepted(path):
    assert set(read_profile(path, ROOT / "notebooks")) == {file.stem for file in NOTEBOOKS}


def test_the_three_profiles_are_there():
    assert {path.stem for path in PROFILES} == {"smoke", "laptop", "paper"}


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "notebooks/sweep.ipynb"], ids=lambda path: path.stem)
def test_notebooks_are_committed_clean_and_short(path):
    # What git has: JupyterLab may have saved outputs to the file since.
    shown = ["git", "show", f":{path.relative_to(ROOT)}"]
    run = subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=False)
    notebook = nbformat.reads(path.read_text() if run.returncode else run.stdout, as_version=4)
    nbformat.validate(notebook)
    first = notebook.cells[0].source
    assert first.startswith("# ")
    assert "You will learn" in first
    assert "What it costs" in first
    for before, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
            if "parameters" not in cell.metadata.get("tags", []):
                assert len([line for line in cell.source.splitlines() if line.strip()]) <= 6, cell.source
            assert before.cell_type == "markdown" or "parameters" in before.metadata.get("tags", []), (
                cell.source
            )
    declared = next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for line in declared.splitlines():
        assert re.fullmatch(r"\w+: (int|float|str|bool|list) = .+  # .+", line), f"undocumented: {line}"


def test_an_unknown_key_stops_the_workflow_before_any_work(tmp_path):
    run = snakemake(tmp_path, profile="none")
    assert run.returncode
    assert "there is no such profile" in run.stderr
    assert not list(tmp_path.glob("survey*"))


@pytest.mark.study
@pytest.mark.timeout(1200)
def test_a_second_run_does_nothing(study):
    run = snakemake(study, "--dry-run")
    assert run.returncode == 0, run.stderr
    assert "Nothing to be done" in run.stdout + run.stderr


def rerun(folder: Path, study: Path, *edits: tuple[str, str, str], profile: str = "smoke") -> set[str]:
    """The numbers of the notebooks that Snakemake would run again after edits of a copy of the package."""
    shutil.rmtree(folder / "lensq", ignore_errors=True)
    shutil.copytree(ROOT / "lensq", folder / "lensq")
    for file, old, new in edits:
        text = (folder / "lensq" / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (folder / "lensq" / file).write_text(text.replace(old, new, 1))
    run = snakemake(study, "--dry-run", profile=profile, PYTHONPATH=str(folder))
    assert run.returncode == 0, run.stderr[-3000:]
    return set(re.findall(r"^(?:local)?rule (\d\d)_\w+:", run.stdout + run.stderr, re.MULTILINE))


@pytest.mark.study
def test_words_rerun_nothing_and_a_formula_reruns_what_depends_on_it(study, tmp_path):
    words = [
        ("survey/survey.py", '"""', '"""A word more. '),
        ("models/training.py", "def fit(", "# A comment.\ndef fit("),
        ("statistics/metrics.py", '"""', '"""A word more. '),
    ]
    assert rerun(tmp_path, study, *words) == set()
    trained = rerun(tmp_path, study, ("models/training.py", "def fit(", "CHANGED = 1\n\n\ndef fit("))
    assert {f"{n:02}" for n in range(2, 9)} <= trained
    assert not {"00", "01"} & trained
    assert rerun(tmp_path, study, ("study/costs.py", "1e12", "1e11")) == {"16"}


@pytest.mark.study
@pytest.mark.parametrize(
    ("old", "new", "first"), [("bins: 4", "bins: 5", "15"), ("lists: 20", "lists: 21", "10")]
)
def test_a_changed_parameter_reruns_its_notebook_and_what_depends_on_it(study, tmp_path, old, new, first):
    text = (ROOT / "notebooks/profiles/smoke.yml").read_text()
    assert old in text
    (tmp_path / "changed.yml").write_text(text.replace(old, new))
    again = rerun(tmp_path, study, profile=str(tmp_path / "changed"))
    assert {first, "16"} <= again
    assert min(again) == first


@pytest.mark.study
def test_every_notebook_ran_with_its_profile(study):
    smoke = read_profile(ROOT / "notebooks/profiles/smoke.yml", ROOT / "notebooks")
    for name, parameters in smoke.items():
        notebook = nbformat.read(study / "src/notebooks" / f"{name}.ipynb", as_version=4)
        assert notebook.metadata.papermill.exception is None
        assert parameters.items() <= dict(notebook.metadata.papermill.parameters).items()
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                assert output.get("name") != "stderr" or "Warning" not in output.text, (name, output.text)


@pytest.mark.study
def test_the_numbers_of_the_survey_add_up(study):
    counts = json.loads((study / "results/survey.json").read_text())
    assert counts["usable"] + counts["quarantined"] == counts["listed"]


def make(*arguments: str) -> subprocess.CompletedProcess:
    """Make, with an environment that counts as installed."""
    command = ["make", "-C", str(ROOT), "-o", ".venv/.installed", *arguments]
    path = environment()["PATH"]  # make puts .venv/bin first, which may be elsewhere
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, env=env | {"PATH": path}, capture_output=True, text=True, check=False)


def test_surveys_of_the_same_name_have_builds_of_their_own():
    a, b = Path("/a/full"), Path("/b/full")
    builds = {build_folder("laptop", a), build_folder("laptop", b), build_folder("smoke", a)}
    builds |= {build_folder("paper"), build_folder()}
    assert len(builds) == 5
    assert build_folder() == ROOT / "_build"
    hostile = build_folder("smoke", Path("/a/x; y'$(z){w}"))
    assert re.fullmatch(r"[\w.-]+", hostile.name)


def test_a_list_that_failed_half_way_does_not_count_as_made(tmp_path, monkeypatch):
    monkeypatch.delenv("TRAIN", raising=False)
    monkeypatch.setattr(run, "build_folder", lambda profile, bands: tmp_path / "simulated")
    monkeypatch.setattr(run, "snakemake", lambda *_: None)

    def fails(notebook, out, parameters):
        out.touch()
        raise SystemExit("14_candidates: MemoryError")

    monkeypatch.setattr(run, "run_notebook", fails)
    with pytest.raises(SystemExit, match="MemoryError"):
        run.candidates(tmp_path / "mine", {"profile": "smoke", "survey": "/data/mine"})
    assert not (tmp_path / "mine" / "candidates.ipynb").exists()


@pytest.fixture
def release(tmp_path) -> Path:
    """The models of a release beside their checksum."""
    folder = tmp_path / "release"
    (folder / "injected/none").mkdir(parents=True)
    (folder / "injected/none/model.pt").write_bytes(b"weights")
    commands = "tar -czf models.tar.gz ./injected && tar -czf book.tar.gz --files-from /dev/null"
    subprocess.run(["bash", "-ec", f"{commands} && sha256sum *.gz > SHA256SUMS"], cwd=folder, check=True)
    return folder


def test_a_folder_is_ranked_with_the_models_of_a_release_and_nothing_is_trained(
    tmp_path, monkeypatch, release
):
    places = []
    monkeypatch.delenv("TRAIN", raising=False)
    monkeypatch.setenv("MODEL", str(release / "models.tar.gz"))
    monkeypatch.setattr(run, "snakemake", lambda *_: pytest.fail("something is trained"))
    monkeypatch.setattr(run, "to_page", lambda page: page)
    monkeypatch.setattr(run, "run_notebook", lambda _, out, given: (out.touch(), places.append(given)))
    run.candidates(tmp_path / "mine", {"profile": "smoke", "survey": "/data/mine"})
    (place,) = places
    assert Path(place["trained"], "injected/none/model.pt").read_bytes() == b"weights"
    assert place["results"] == str(tmp_path / "mine" / "results")
    monkeypatch.setenv("TRAIN", "yes")
    with pytest.raises(SystemExit, match="one of the two"):
        run.candidates(tmp_path / "mine", {"profile": "smoke", "survey": "/data/mine"})


@pytest.mark.parametrize(
    ("spoil", "name", "message"),
    [
        (lambda at: (at / "models.tar.gz").write_bytes(b"other"), "models.tar.gz", "is not what .*SUMS"),
        (lambda at: (at / "SHA256SUMS").unlink(), "models.tar.gz", "beside the SHA256SUMS"),
        (lambda at: None, "missing.tar.gz", "No such file"),
        (lambda at: None, "book.tar.gz", "holds no detector"),
    ],
    ids=["changed", "no checksums", "absent", "the book"],
)
def test_an_archive_that_is_not_the_released_models_is_refused(tmp_path, release, spoil, name, message):
    spoil(release)
    with pytest.raises(SystemExit, match=message):
        run.unpack(release / name, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_bands_reach_the_list_and_the_study_that_trains_the_model(tmp_path, monkeypatch):
    trained, given = [], []
    monkeypatch.delenv("TRAIN", raising=False)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "snakemake", lambda build, how, *_: trained.append((build, how)))
    monkeypatch.setattr(run, "to_page", lambda page: page)

    def rank(notebook, out, parameters):
        given.append(parameters["bands"])
        out.touch()

    monkeypatch.setattr(run, "run_notebook", rank)
    run.candidates(tmp_path / "mine", {"profile": "smoke", "survey": "/data/mine", "bands": "gri"})
    assert given == ["gri"]
    assert trained == [(tmp_path / "_build" / "smoke-gri", {"profile": "smoke", "bands": "gri"})]
    model = tmp_path / "_build/smoke-gri/results/injected/none/model.pt"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"of another version")
    run.candidates(tmp_path / "mine", {"profile": "smoke", "survey": "/data/mine", "bands": "gri"})
    assert len(trained) == 2  # the graph decides whether it is stale
    assert build_folder(bands=("VIS", "NIR_Y")) == tmp_path / "_build" / "VISNIR_Y"


def test_the_lab_opens_the_list_of_a_survey_and_makes_it_first(tmp_path, monkeypatch):
    opened, made = [], []
    monkeypatch.setattr(run.os, "execvp", lambda program, command: opened.append((program, command)))

    def rank(build, given):
        made.append(given["survey"])
        build.mkdir(parents=True)
        (build / "candidates.ipynb").touch()

    monkeypatch.setattr(run, "candidates", rank)
    run.lab(tmp_path, {"profile": "laptop"})
    survey = {"profile": "laptop", "survey": "/data/mine"}
    for _ in range(2):
        run.lab(tmp_path / "mine", survey)
    assert made == ["/data/mine"]
    assert [program for program, _ in opened] == ["jupyter"] * 3
    pages = [command[-1] for _, command in opened]
    listed = str(tmp_path / "mine" / "candidates.ipynb")
    assert pages == [str(ROOT / "notebooks/00_start_here.ipynb"), listed, listed]
    roots = [next(o for o in command if "root_dir" in o).partition("=")[2] for _, command in opened]
    assert all(Path(page).is_relative_to(root) for page, root in zip(pages, roots, strict=True))


def test_the_book_of_a_survey_without_labels_is_of_a_copy_with_lenses_and_lists_the_survey(
    tmp_path, monkeypatch
):
    build, sky = tmp_path / "build", tmp_path / "sky"
    sky.mkdir()
    monkeypatch.setattr("lensq.classifiers.recovery.write_injected", lambda survey, folder: folder)
    given = {"profile": "smoke", "survey": str(sky)}
    injected = run.stand_in(build, given)
    assert injected == tmp_path / "build-injected"
    assert given == {"profile": "smoke", "survey": str(injected / "survey"), "listed": str(sky)}
    (sky / "candidates_list_selected.txt").touch()
    labelled = {"profile": "smoke", "survey": str(sky)}
    assert run.stand_in(build, labelled) == build
    assert "listed" not in labelled
    assert run.stand_in(build, {"profile": "smoke"}) == build


def test_a_log_that_a_full_disk_cut_short_says_so_in_one_line(tmp_path, monkeypatch):
    log = tmp_path / "14_candidates.ipynb"

    def full(notebook, out, parameters, **how):
        out.write_text('{"cells": [{"cell_ty')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "execute_notebook", full)
    with pytest.raises(SystemExit, match=r"14_candidates: .*14_candidates.ipynb ends early; \d+ MB are free"):
        job.run_notebook(tmp_path / "any.ipynb", log, {})


def test_a_page_begins_with_the_note_of_its_survey(tmp_path):
    (tmp_path / "survey").mkdir()
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Title"),
            nbformat.v4.new_code_cell('survey = ""', metadata={"tags": ["parameters"]}),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "page.ipynb")
    for note, cells in ((None, 2), ("note: On injected lenses.", 3)):
        if note:
            (tmp_path / "survey" / "survey.yml").write_text(note)
        job.run_notebook(tmp_path / "page.ipynb", tmp_path / "out.ipynb", {"survey": "survey"})
        page = nbformat.read(tmp_path / "out.ipynb", nbformat.NO_CONVERT)
        sources = [cell.source for cell in page.cells if "injected-parameters" not in str(cell.metadata)]
        assert sources[0] == "# Title"
        assert len(sources) == cells
    assert sources[1] == "```{attention}\nOn injected lenses.\n```"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["candidates", "SURVEY={}/y$(touch${{IFS}}pwned)"], "is no folder"),
        (["candidates", "SURVEY=$(shell touch {}/pwned)"], "is no folder"),
        (["candidates", "SURVEY=x'; touch {}/pwned; '"], "is no folder"),
        (["candidates", "SURVEY={}/a\nb"], "cannot be printed"),
        (["candidates"], "Name the folder"),
        (["book", "PROFILE=`touch {}/pwned`"], "there is no such profile"),
        (["book", "PROFILE=smoke", "SURVEY={}/none"], "is no folder"),
        (["book", "PROFILE=smoke", "BANDS=$(touch {}/pwned)"], "expected names of bands"),
        (["sweep", "VARIANT=$(touch {}/pwned)"], "is no variant"),
        (["sweep", "GRID=latent=$(touch {}/pwned)"], "write each parameter once"),
    ],
)
def test_what_make_is_given_reaches_no_shell_and_is_refused_in_one_line(tmp_path, arguments, message):
    run = make(*(argument.format(tmp_path) for argument in arguments))
    assert run.returncode
    said, *rest = run.stderr.splitlines()
    assert message in said
    assert all(line.startswith("make") for line in rest)
    assert not [*tmp_path.iterdir(), *ROOT.glob("*pwned*")]


@pytest.mark.parametrize(
    "name", ["O'Brien", "a;b", "a&b", "a(b)", "a{b}", "a b", "y$(touch${IFS}pwned)", '"q"']
)
def test_a_survey_of_any_name_goes_through_the_graph(tmp_path, name, monkeypatch):
    survey = tmp_path / name
    simulate_survey(survey, 24, seed=3, progress=False)
    monkeypatch.chdir(tmp_path)
    given = {"profile": "smoke", "survey": str(survey)}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(given))
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path / "build")]
    command += ["--configfile", str(config), "--cores", "1", "--dry-run", "--printshellcmds"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    line = next(
        line
        for line in (run.stdout + run.stderr).splitlines()
        if "00_start_here.ipynb" in line and "lensq.study.job" in line
    )
    words = shlex.split(line)
    assert yaml.safe_load(words[words.index("&&") - 1])["survey"] == str(survey)


def test_a_folder_at_work_is_named_and_one_of_a_killed_run_is_taken_over(tmp_path, monkeypatch):
    code = "import pathlib, sys; from lensq.study.run import hold; held = hold(pathlib.Path(sys.argv[1]))"
    code += "; print(held[1], flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as owner:
        assert owner.stdout.readline() == "False\n"
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(SystemExit, match=f"process {owner.pid} is at work there"):
            hold(tmp_path)
        owner.kill()
    file, killed = hold(tmp_path)
    assert killed
    file.truncate(0)
    file.close()
    file, killed = hold(tmp_path)
    assert not killed
    file.close()


def test_a_failed_notebook_ends_with_its_own_line_and_its_job_with_its_snakemake(tmp_path):
    source = "raise ValueError('the images are blue')"
    nbformat.write(_plain(source), tmp_path / "01_a.ipynb")
    command = [sys.executable, "-m", "lensq.study.job", str(tmp_path / "01_a.ipynb")]
    command += [str(tmp_path / "out.ipynb"), "{}"]
    env = environment() | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode
    assert run.stderr.splitlines()[-1].startswith("out: ValueError: the images are blue (in ")
    assert "Traceback" not in run.stderr

    nbformat.write(
        _plain("import time\nopen('begun', 'w').close()\ntime.sleep(300)"), tmp_path / "02_b.ipynb"
    )
    command[3] = str(tmp_path / "02_b.ipynb")
    # A shell between, as Snakemake has it; what stands for Snakemake is killed.
    inner = f"{shlex.join(command)} && true"
    starter = [sys.executable, "-c", f"import subprocess; subprocess.run(['bash', '-c', {inner!r}])"]
    with subprocess.Popen(starter, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as owner:
        _until(lambda: (tmp_path / "begun").exists())
        started = psutil.Process(owner.pid).children(recursive=True)
        owner.kill()
    _until(lambda: not any(process.is_running() and process.status() != "zombie" for process in started))


@pytest.mark.parametrize("always", [True, False])
def test_a_kernel_that_is_lost_is_started_once_more(tmp_path, always):
    when = f"if {always} or not os.environ.get('LENSQ_AGAIN'):"
    stop = f"import os, signal\n{when} os.kill(os.getpid(), signal.SIGSTOP)"
    notebook, log = tmp_path / "notebooks" / "a.ipynb", tmp_path / "logs" / "a.ipynb"
    notebook.parent.mkdir()
    log.parent.mkdir()
    nbformat.write(_plain(stop), notebook)
    given = str(notebook), "logs/a.ipynb", "{}"  # as Snakemake has it
    # Long enough for a kernel that only begins late, and no limit for the one that is to end well.
    idle = f"5 if {always} or not os.environ.get(job.AGAIN) else 600"
    code = f"import os, lensq.study.job as job; job.IDLE = {idle}; job.main{given}"
    command = f"{shlex.join([sys.executable, '-c', code])} && true"
    env = environment() | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert bool(run.returncode) is always
    done = nbformat.read(log, nbformat.NO_CONVERT)
    assert (done.cells[-1].metadata.papermill.status == "completed") is not always
    assert [path.name for path in notebook.parent.iterdir()] == ["a.ipynb"]
    assert run.stderr.count("a: its kernel did nothing for 5 s") == 1 + always


def _plain(source: str) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=metadata)


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.study
def test_the_way_to_a_list_can_be_gone_in_bands_without_i(tmp_path):
    values = yaml.safe_load((ROOT / "notebooks/profiles/smoke.yml").read_text())
    values["00_start_here"]["objects"] = 240
    (tmp_path / "small.yml").write_text(yaml.safe_dump(values))
    wanted = "bands=grz", "--", "src/notebooks/11_injected_lenses.ipynb"
    run = snakemake(tmp_path / "build", *wanted, profile=str(tmp_path / "small"))
    assert run.returncode == 0, run.stderr[-4000:]
    made = Classifier.load(tmp_path / "build/results/injected/none/model.pt")
    assert made.settings["bands"] == ["g", "r", "z"]


@pytest.mark.study
def test_a_survey_of_ones_own_is_read_again_when_it_has_changed(tmp_path):
    """Without a list, and with a file that cannot be read before all others."""
    survey = simulate_survey(tmp_path / "mine", 60, seed=5, progress=False)
    for path in survey.glob("*.txt"):
        path.unlink()
    (survey / "truth.parquet").unlink()
    (survey / "simulation.json").unlink()
    (survey / "fits_data/J000000.00+000000.00_HSC-I_img.fits").touch()
    first, *_ = sorted((survey / "fits_data").iterdir())
    assert first.stat().st_size == 0
    given = (f"survey={survey}", "--", "results/survey.json")
    run = snakemake(tmp_path / "build", *given)
    assert run.returncode == 0, run.stderr[-4000:]
    counts = json.loads((tmp_path / "build/results/survey.json").read_text())
    assert (counts["listed"], counts["usable"], counts["quarantined"]) == (61, 60, 1)
    again = snakemake(tmp_path / "build", given[0], "--dry-run", *given[1:])
    assert "Nothing to be done" in again.stdout + again.stderr
    first.unlink()
    changed = snakemake(tmp_path / "build", given[0], "--dry-run", *given[1:])
    assert "01_data_exploration" in changed.stdout
    ranked = snakemake(tmp_path / "build", given[0], "--dry-run", "--", "src/notebooks/14_candidates.ipynb")
    assert ranked.returncode == 0, ranked.stderr
    assert "14_candidates" in ranked.stdout
