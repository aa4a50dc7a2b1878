"""Hashes of code: what changes them, and what does not."""

import json
import shutil

import pytest

from lensq.survey import provenance

FORMULA = '"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1\n'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package: d.c imports b within a function, b imports a; d leads out of c by its stub."""
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "a.py").write_text(FORMULA)
    (tmp_path / "b.py").write_text("def g():\n    from lensq.a import f\n    return f\n")
    typed = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from lensq.d.e import y\n"
    (tmp_path / "d/c.py").write_text(f"import numpy\nfrom lensq.b import g\n{typed}")
    (tmp_path / "d/e.py").write_text("y = 1\n")
    (tmp_path / "d/__init__.py").write_text("import lazy_loader\n")
    (tmp_path / "d/__init__.pyi").write_text("from . import c as c\nfrom .c import g as g\n")
    forget()
    yield tmp_path
    forget()


def forget():
    for cached in (
        provenance.source_files,
        provenance._code,
        provenance._imports,
        provenance._files_of,
        provenance._leads,
    ):
        cached.cache_clear()


def changed(edit, of=provenance.code_hash, what="d.c") -> bool:
    before = of(what)
    edit()
    forget()
    return of(what) != before


def test_imports_are_followed_inside_functions_and_through_stubs_but_not_for_types(package):
    for name in ("d.c", "d.g"):
        names = [file.relative_to(package).as_posix() for file in provenance.source_files(name)]
        assert names == ["a.py", "b.py", "d/c.py"]
    assert provenance.source_files("a") == (package / "a.py",)


def test_a_formula_changes_the_hash(package):
    assert changed(lambda: (package / "a.py").write_text(FORMULA.replace("+ 1", "+ 2")))


def test_docstrings_comments_and_layout_do_not(package):
    edited = FORMULA.replace("Doc.", "Another.").replace("x + 1", "x  +  1  # why")
    assert not changed(lambda: (package / "a.py").write_text(edited))


def test_a_docstring_that_goes_leaves_the_hash(package):
    assert not changed(lambda: (package / "a.py").write_text("def f(x):\n    return x + 1\n"))


def test_what_is_imported_for_types_alone_does_not_count(package):
    assert not changed(lambda: (package / "d/e.py").write_text("y = 2\n"))
    code = "import numpy\nfrom lensq.b import g\nfrom typing import TYPE_CHECKING\n"
    assert not changed(lambda: (package / "d/c.py").write_text(code))


def test_a_module_above_does_not_matter(package):
    assert not changed(lambda: shutil.rmtree(package / "d"), what="b")


def test_a_notebook_rests_on_the_code_it_calls_and_the_scripts_beside_it(package):
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["lensq.nothing"]},
        {
            "cell_type": "code",
            "metadata": {},
            "source": ["%matplotlib inline\n", "import lensq\n", "lensq.d.g()"],
        },
    ]
    notebook = package / "01.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    how = {"of": provenance.notebook_hash, "what": notebook}
    assert not changed(lambda: (package / "a.py").write_text("# why\n" + FORMULA), **how)
    assert changed(lambda: (package / "a.py").write_text(FORMULA.replace("+ 1", "- 1")), **how)
    assert changed(lambda: (package / "d/look.js").write_text("1"), **how)
    assert not changed(lambda: (package / "d/e.py").write_text("y = 3\n"), **how)


def test_an_unknown_module_is_named(package):
    with pytest.raises(ValueError, match="no module 'z'"):
        provenance.code_hash("z")


@pytest.mark.parametrize("step", ["models.training", "scores.scoring", "classifiers.finetuning"])
def test_how_files_are_read_is_no_part_of_what_trains_on_their_pixels(step):
    # The survey's fingerprint tells whether the pixels changed.
    names = [file.stem for file in provenance.source_files(step) if file.parent.name == "survey"]
    assert set(names) <= {"files", "images", "provenance"}
