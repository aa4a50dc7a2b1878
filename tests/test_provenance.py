"""Fingerprints of code."""

import shutil

import pytest

from lensq import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three rooms: c imports b, b imports a."""
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("def f():\n    from lensq.a import x\n    return x\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "__init__.py").write_text("from ..b import f\nfrom . import d\n")
    (tmp_path / "c" / "d.py").write_text("import numpy\n")
    provenance.source_files.cache_clear()
    yield tmp_path
    provenance.source_files.cache_clear()


def test_imports_are_followed_also_inside_functions_and_packages(package):
    names = [file.relative_to(package).as_posix() for file in provenance.source_files("c")]
    assert names == ["a.py", "b.py", "c/__init__.py", "c/d.py"]
    assert provenance.source_files("a") == (package / "a.py",)


def test_code_changes_the_fingerprint_and_comments_do_not(package):
    before = provenance.code_fingerprint("c")
    (package / "a.py").write_text("# why\n\nx   =   1\n")
    assert provenance.code_fingerprint("c") == before
    (package / "a.py").write_text("x = 2\n")
    assert provenance.code_fingerprint("c") != before


def test_a_room_above_does_not_matter(package):
    before = provenance.code_fingerprint("b")
    shutil.rmtree(package / "c")
    assert provenance.code_fingerprint("b") == before


def test_an_unknown_room_is_named(package):
    with pytest.raises(ValueError, match="no room 'z'"):
        provenance.code_fingerprint("z")
