"""The docstrings of the API pages render without a warning, as Sphinx and napoleon read them."""

import importlib
import inspect
import io
import re
import sys
from collections.abc import Iterator

import pytest
from conftest import ROOT
from docutils.core import publish_doctree
from sphinx.ext.napoleon import Config, GoogleDocstring

sys.path.insert(0, str(ROOT / "book/_ext"))
from lensq_api import led_out

PACKAGES = sorted(path.parent.name for path in (ROOT / "lensq").glob("*/__init__.pyi"))
READ = {"report_level": 2, "halt_level": 5, "input_encoding": "unicode", "raw_enabled": False}


def complaints(docstring: str, what: str = "function") -> str:
    """What a reader of reStructuredText says of a docstring, or nothing."""
    stream = io.StringIO()
    how = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)
    source = str(GoogleDocstring(inspect.cleandoc(docstring), how, what=what))
    source = f".. default-role:: code\n\n{source}\n"  # as _config.yml has it
    publish_doctree(source, settings_overrides=READ | {"warning_stream": stream})
    return stream.getvalue()


def documented(package: str) -> Iterator[tuple[str, str, str]]:
    """Name, docstring and kind of all that a page of the reference shows."""
    module = importlib.import_module(f"lensq.{package}" if package else "lensq")
    yield module.__name__, module.__doc__, "module"
    for name in led_out(package):
        found = getattr(module, name)
        kind = "class" if inspect.isclass(found) else "function"
        yield name, inspect.getdoc(found) or "", kind
        for part, member in vars(found).items() if kind == "class" else ():
            text = getattr(member, "__doc__", None)
            if not part.startswith("_") and text and text != type(member).__doc__:
                yield f"{name}.{part}", text, "method"


@pytest.mark.slow
@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_docstrings_render_without_a_warning(package):
    shown = list(documented(package))
    assert len(shown) > 3
    assert {name: said for name, text, what in shown if (said := complaints(text, what))} == {}
    assert [name for name, text, what in shown if not text.strip() and what != "method"] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_in_three_lines_what_it_is_and_what_leads_out(package):
    module = importlib.import_module(f"lensq.{package}")
    lines = [line for line in module.__doc__.splitlines() if line.strip()]
    assert len(lines) <= 3
    assert re.search(r"\b[Ll]eads? out", module.__doc__)
    assert set(re.findall(r"`(\w+)`", module.__doc__)) <= set(led_out(package)) | set(dir(module))


@pytest.mark.parametrize(
    "fault", ["*open emphasis", "``open literal", "A list:\n- a\n  - b\n c", ".. nothing:: x", "|none|"]
)
def test_a_docstring_that_does_not_render_is_seen(fault):
    assert complaints(f"A line.\n\n{fault}\n\nArgs:\n    x: a number.\n")
