"""environment.yml, pyproject.toml and requirements.lock: one list of packages, in three forms."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, version

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

CONDA_NAMES = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
LISTED = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
CONDA = {
    r.name: r for r in map(Requirement, [e for e in LISTED if isinstance(e, str) and "python=" not in e])
}
PIP = next(entry["pip"] for entry in LISTED if isinstance(entry, dict))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if line[:1].isalnum()]
EXTRAS = PROJECT["optional-dependencies"]


def test_environment_and_project_name_the_same_packages_and_ranges():
    there = {CONDA_NAMES.get(name, name): r.specifier for name, r in CONDA.items() if name != "pip"}
    there |= {Requirement(entry).name: Requirement(entry).specifier for entry in PIP if entry != "-e ."}
    wanted = [*PROJECT["dependencies"], *EXTRAS["book"]]
    assert there == {r.name: r.specifier for r in map(Requirement, wanted)}


def test_environment_gives_ranges_and_the_package_itself():
    exact = [name for name, r in CONDA.items() if any(s.operator == "==" for s in r.specifier)]
    assert exact == []
    assert PIP[-1] == "-e ."
    (python,) = [entry.partition("=")[2] for entry in LISTED if str(entry).startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


def test_what_is_installed_lies_in_the_ranges_and_is_what_is_pinned():
    pinned = {canonicalize_name(r.name): r.specifier for r in PINS if not r.marker or r.marker.evaluate()}
    for requirement in map(Requirement, [*PROJECT["dependencies"], *EXTRAS["book"], *EXTRAS["test"]]):
        installed = version(requirement.name)
        assert requirement.specifier.contains(installed), requirement
        assert pinned[canonicalize_name(requirement.name)].contains(installed), requirement


def test_a_pin_names_the_extras_that_another_package_asks_for():
    """Without them pip takes the newest release of name[extra], which has no hash here."""
    pinned = {canonicalize_name(r.name): r.extras for r in PINS}
    installed = [d for d in distributions() if canonicalize_name(d.metadata["Name"]) in pinned]
    asked = [(d.metadata["Name"], Requirement(entry)) for d in installed for entry in d.requires or ()]
    asked = [(who, r) for who, r in asked if r.extras and (not r.marker or r.marker.evaluate({"extra": ""}))]
    assert "jupyter-events" in {canonicalize_name(who) for who, _ in asked}
    for who, requirement in asked:
        assert requirement.extras <= pinned[canonicalize_name(requirement.name)], (who, str(requirement))


def test_every_pin_of_the_lock_has_a_hash_and_no_host():
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        first, *hashes = entry.split("\n")
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+", first), first
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), first
    assert "://" not in LOCK


ASK = """
import json
from repo2docker.app import Repo2Docker

binder = Repo2Docker()
pack = next(pack for pack in (kind(binder.base_image) for kind in binder.buildpacks) if pack.detect())
steps = [script for _, script in pack.get_assemble_scripts()]
answer = {"pack": type(pack).__name__, "python": pack.python_version, "steps": steps}
print(json.dumps(answer | {"before_copy": pack._should_preassemble_env}))
"""


@pytest.fixture(scope="module")
def binder() -> dict:
    """What repo2docker, which builds Binder's images, would do with the repository."""
    run = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_binder_builds_from_environment_yml(binder):
    assert binder["pack"] == "CondaBuildPack"
    assert binder["python"] == "3.11"
    assert any(
        'env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in step for step in binder["steps"]
    )


def test_binder_copies_the_repository_before_it_installs_the_package(binder):
    """`-e .` needs the files; repo2docker would otherwise install before they are there."""
    assert binder["before_copy"] is False
