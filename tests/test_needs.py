"""The button that makes what a notebook needs: where it replaces nothing else, on as many cores as it may."""

import os
from types import SimpleNamespace

import pytest
from conftest import ROOT

import lensq
from lensq import needs

PROFILES = {"laptop": 20, "smoke": 24, "full": 28}  # objects


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with small profiles, nothing made."""
    folder = tmp_path / "project"
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "Snakefile").touch()
    for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        (folder / "notebooks" / notebook.name).symlink_to(notebook)
    for name, objects in PROFILES.items():
        text = f"00_start_here: {{objects: {objects}}}\n"
        (folder / "notebooks" / "profiles" / f"{name}.yml").write_text(text)
    monkeypatch.setattr(needs, "_ROOT", folder)
    monkeypatch.chdir(folder / "notebooks")
    return folder


@pytest.fixture
def offered(project, monkeypatch, capsys):
    """Ask for a button in a notebook with these values; its build folder and profiles, or what is said."""

    def ask(path: str, **parameters: object) -> tuple[str, list[str]] | str:
        buttons = []
        shell = SimpleNamespace(kernel=True, user_ns=parameters)
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)
        monkeypatch.setattr(needs, "_show", lambda _, build, profiles: buttons.append((build, profiles)))
        there = needs.offer(path, "06_RESNET18_BETATC_VAE")
        said = capsys.readouterr().out
        assert there == bool(buttons)
        if not there:
            return said
        assert said == ""
        ((build, profiles),) = buttons
        return os.path.relpath(build, project), profiles

    return ask


def simulate(folder, objects: int, seed: int = 1, **settings: object) -> None:
    lensq.simulate_survey(folder, objects, seed=seed, workers=1, progress=False, **settings)


def test_nothing_is_there(offered):
    assert offered("../_build/survey") == ("_build", ["smoke", "laptop"])
    assert offered("../_build/results/A/model.pt") == ("_build", ["smoke", "laptop"])
    assert offered("../_build/full/survey") == ("_build/full", ["full"])
    assert offered("../_build/full/results/A/model.pt") == ("_build/full", ["full"])


def test_the_survey_there_tells_the_profile(offered, project):
    simulate(project / "_build" / "survey", PROFILES["laptop"])
    simulate(project / "_build" / "full" / "survey", PROFILES["full"])
    assert offered("../_build/results/A/model.pt") == ("_build", ["laptop"])
    assert offered("../_build/full/results/A/model.pt") == ("_build/full", ["full"])


@pytest.mark.parametrize(
    "settings",
    [
        {"objects": 21},
        {"objects": 20, "seed": 2},
        {"objects": 20, "anomaly_rate": 0.1},
        {"objects": 20, "labels": "truth"},
        {"objects": 20, "mix": "hard"},
        {"objects": 20, "control": "flux"},
    ],
    ids=str,
)
def test_a_survey_that_no_profile_made_is_not_replaced(offered, project, settings):
    simulate(project / "_build" / "survey", **settings)
    said = offered("../_build/results/A/model.pt")
    assert "survey is not known to be of the profile smoke or laptop" in said
    assert "make book  # replaces" in said


def test_what_one_profile_made_another_does_not_replace(offered, project):
    simulate(project / "_build" / "full" / "survey", PROFILES["laptop"])
    assert "make book PROFILE=full  # replaces" in offered("../_build/full/results/A/model.pt")


@pytest.mark.parametrize("build", ["_build", "_build/full"])
def test_results_of_a_survey_that_lies_elsewhere_are_not_replaced(offered, project, build):
    (project / build / "results" / "A").mkdir(parents=True)
    assert f"{build}/results is not known" in offered(f"../{build}/results/A/model.pt")


def test_a_survey_of_ones_own_in_the_build_folder_is_not_replaced(offered, project):
    (project / "_build" / "survey" / "fits_data").mkdir(parents=True)
    assert "survey is not known" in offered("../_build/results/A/model.pt")


@pytest.mark.parametrize(
    ("build", "command"),
    [
        ("mine-123456", "make book SURVEY=<folder>\n"),
        ("full-mine-123456", "make book PROFILE=full SURVEY=<folder>\n"),
        ("fuller-123456", "make book SURVEY=<folder>\n"),
    ],
)
def test_results_of_ones_own_survey_are_made_by_make_book(offered, tmp_path, build, command):
    path = f"../_build/{build}/results/A/model.pt"
    assert command in offered(path)
    assert command in offered(path, survey=str(tmp_path / "nowhere"))
    assert command.replace("<folder>", str(tmp_path)) in offered(path, survey=str(tmp_path))


def test_a_folder_that_is_named_for_no_profile_gets_no_button(offered):
    assert "my_survey is no profile" in offered("../_build/my_survey/results/A/model.pt")
    assert "make book SURVEY=<folder>" in offered("../_build/my_survey/results/A/model.pt")


def test_results_are_made_of_the_survey_that_the_notebook_reads(offered, tmp_path):
    path = "../_build/results/A/model.pt"
    assert f"make book SURVEY={tmp_path}\n" in offered(path, survey=str(tmp_path))
    assert offered(path, survey="../_build/survey") == ("_build", ["smoke", "laptop"])


def test_any_survey_may_be_ranked_with_the_model_of_the_study(offered, tmp_path):
    path = "../_build/results/A/model.pt"
    made = offered(path, survey=str(tmp_path), trained="../_build/results")
    assert made == ("_build", ["smoke", "laptop"])


@pytest.mark.parametrize("path", ["/data/survey", "/data/_build/survey", "../_build/a/b/survey", "../survey"])
def test_elsewhere_there_is_no_button(offered, path):
    assert offered(path) == ""


def test_a_build_folder_that_is_a_link_is_the_same_folder(offered, project, tmp_path):
    (tmp_path / "large_disk").mkdir()
    (project / "_build").symlink_to(tmp_path / "large_disk")
    assert offered("../_build/survey") == ("../large_disk", ["smoke", "laptop"])


@pytest.mark.parametrize(
    ("cores", "machine", "container", "told", "expected"),
    [
        (8, 64e9, "max", "", 8),
        (8, 2e9, "max", "", 1),
        (8, 1e9, "max", "", 1),
        (8, 64e9, str(2 * 2**30), "", 1),
        (8, 64e9, str(5 * 10**9), "", 3),
        (8, 64e9, None, "", 8),
        (8, 64e9, "max", "2.0", 2),
        (8, 64e9, "max", "0.5", 1),
        (1, 64e9, "max", "4", 1),
        (8, 64e9, "max", "none", 8),
    ],
)
def test_as_many_cores_as_there_is_memory_for(
    cores, machine, container, told, expected, tmp_path, monkeypatch, project
):
    limit = tmp_path / "memory.max"
    if container:
        limit.write_text(f"{container}\n")
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(machine // 4096)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "sysconf", pages.get)
    monkeypatch.setattr(needs, "_CONTAINER", (str(tmp_path / "none"), str(limit)))
    monkeypatch.setenv("CPU_LIMIT", told)
    command = needs._command("00_start_here", project / "_build" / "full", "full")
    assert command[command.index("--cores") + 1] == str(expected)
    assert command[command.index("--directory") + 1] == str(project / "_build" / "full")
    assert "profile=full" in command
