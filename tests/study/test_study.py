"""What the workflow knows of the notebooks, and the workflow itself at smoke size."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, snakemake

from lensq.simulate import simulate_survey
from lensq.study.profiles import read_profile

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
        ("every notebook: {epoch: 7}", "no notebook declares the parameter 'epoch'"),
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


def test_the_four_profiles_are_there():
    assert {path.stem for path in PROFILES} == {"smoke", "laptop", "full", "paper"}


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "notebooks/sweep.ipynb"], ids=lambda path: path.stem)
def test_notebooks_are_committed_clean_and_short(path):
    notebook = nbformat.read(path, as_version=4)
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


@pytest.mark.study
def test_an_edit_reruns_only_what_depends_on_it(study, tmp_path):
    """A changed threshold notebook reruns itself and its readers, not the training."""
    run = snakemake(study, "--dry-run", "--forcerun", "10_thresholding")
    jobs = set(re.findall(r"^rule (\w+):", run.stdout, re.MULTILINE)) - {"book"}
    jobs |= set(re.findall(r"^(\d\d_\w+) +\d+$", run.stdout, re.MULTILINE))
    assert "10_thresholding" in jobs
    assert not {job for job in jobs if job < "09"}


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


def made(*arguments: str) -> subprocess.CompletedProcess:
    """What make would do."""
    command = ["make", "--dry-run", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_surveys_of_the_same_name_have_builds_of_their_own():
    builds = [
        re.findall(r"--directory (\S+)", made("book", *own).stdout)
        for own in (
            [],
            ["SURVEY=/a/full"],
            ["SURVEY=/b/full"],
            ["SURVEY=/a/full", "PROFILE=smoke"],
            ["PROFILE=full"],
        )
    ]
    assert builds[0] == ["_build"]
    assert len({build for (build,) in builds}) == 5
    refused = made("candidates", "SURVEY=/a/my survey")
    assert refused.returncode
    assert "holds a blank" in refused.stderr


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
    told = (f"survey={survey}", "--", "results/survey.json")
    run = snakemake(tmp_path / "build", *told)
    assert run.returncode == 0, run.stderr[-4000:]
    counts = json.loads((tmp_path / "build/results/survey.json").read_text())
    assert (counts["listed"], counts["usable"], counts["quarantined"]) == (61, 60, 1)
    again = snakemake(tmp_path / "build", told[0], "--dry-run", *told[1:])
    assert "Nothing to be done" in again.stdout + again.stderr
    first.unlink()
    changed = snakemake(tmp_path / "build", told[0], "--dry-run", *told[1:])
    assert "01_data_exploration" in changed.stdout
    line = next(
        line
        for line in made("candidates", f"SURVEY={survey}", "TRAIN=yes").stdout.splitlines()
        if "14_candidates" in line
    )
    target = line.split(" -- ")[1].split()
    ranked = snakemake(tmp_path / "build", told[0], "--dry-run", "--", *target)
    assert ranked.returncode == 0, ranked.stderr
    assert "14_candidates" in ranked.stdout
