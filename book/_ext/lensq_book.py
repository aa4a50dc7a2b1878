"""What the book needs of Sphinx beyond Jupyter Book: a guard, a figure, and the repository's address.

The guard stops a build on notebooks that have not been run, with one message in place of a page of
warnings about missing numbers. The directive `notebook-figure` shows a figure of an executed notebook on
another page, under a number and perhaps a caption of its own:

    :::{notebook-figure} ../notebooks/10_thresholding.ipynb::fig-10-detectors
    :name: fig-front-detectors

    A caption in place of the notebook's.
    :::

The directive `notebook-text` shows Markdown that a notebook has glued: `path/to/notebook.ipynb::key`.

The roles {binder}`notebooks/a.ipynb` and {repository}`text` link to a file on Binder and to the repository,
whose address stands in `_config.yml` alone. While it is empty they say so, and no page has a button that
would lead there. The page of a notebook ends with date and duration of its run.
"""

import hashlib
import json
import os
from base64 import b64decode
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective, SphinxRole


def _code_cells(notebook: Path) -> list[dict]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def has_been_run(notebook: Path) -> bool:
    """Whether every code cell of a notebook that holds code carries an execution count."""
    return all(cell["execution_count"] is not None for cell in _code_cells(notebook))


def stop_unless_run(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """End the build if a notebook of the book has not been run.

    Raises:
        SystemExit: Sphinx and Jupyter Book let it through, so the message stands alone.
    """
    notebooks = [Path(env.doc2path(name)) for name in sorted(env.found_docs)]
    waiting = [file.name for file in notebooks if file.suffix == ".ipynb" and not has_been_run(file)]
    if waiting:
        raise SystemExit(f"\nthe notebooks have not been run; run `make book`\n({', '.join(waiting)})")


def run_of(notebook: Path) -> str:
    """When a notebook was run and how long it took, in words; nothing if papermill did not run it."""
    run = json.loads(notebook.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
    if not run.get("duration"):
        return ""
    return f"This page was run on {run['end_time'][:10]}, in {run['duration']:,.0f} seconds."


def say_the_run(app: Sphinx, doctree: nodes.document) -> None:
    """Close the page of a notebook with date and duration of its run."""
    file = Path(app.env.doc2path(app.env.docname))
    if file.suffix == ".ipynb" and (words := run_of(file)):
        doctree.children[-1] += nodes.paragraph("", "", nodes.emphasis("", words), classes=["run"])


def find_figure(notebook: Path, name: str) -> tuple[bytes, str, str]:
    """A figure of an executed notebook, by its name in the cell's metadata (`mystnb`, `figure`, `name`).

    Returns:
        The PNG, its alternative text and its caption, as the cell has them.

    Raises:
        ValueError: the notebook has no such figure, or its cell no PNG.
    """
    names = []
    for cell in _code_cells(notebook):
        render = cell["metadata"].get("mystnb", {})
        figure = render.get("figure", {})
        names.append(figure.get("name"))
        if names[-1] == name:
            for output in cell["outputs"]:
                if png := output.get("data", {}).get("image/png"):
                    alt = render.get("image", {}).get("alt", "")
                    return b64decode("".join(png)), alt, figure.get("caption", "")
            raise ValueError(f"{notebook.name}: the cell of figure {name!r} has no PNG output")
    known = ", ".join(sorted(filter(None, names))) or "none"
    raise ValueError(f"{notebook.name} has no figure {name!r}; it has {known}")


class NotebookFigure(SphinxDirective):
    """A figure out of an executed notebook: `path/to/notebook.ipynb::figure-name`."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged_required, "alt": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return a figure with image, alternative text and caption."""
        path, _, name = self.arguments[0].partition("::")
        relative, file = self.env.relfn2path(path, self.env.docname)
        self.env.note_dependency(relative)
        try:
            png, alt, caption = find_figure(Path(file), name)
        except (OSError, ValueError) as error:
            raise self.error(str(error)) from error
        image = nodes.image(uri=self._stored(png), alt=self.options.get("alt", alt))
        figure = nodes.figure("", image, classes=["plot"])
        self.set_source_info(figure)
        self.add_name(figure)
        text = nodes.Element()
        self.state.nested_parse(self.content or [caption], self.content_offset, text)
        figure += nodes.caption("", "", *text[0].children)
        return [figure]

    def _stored(self, png: bytes) -> str:
        """Write the image where MyST-NB writes its own, and return the path that Sphinx wants."""
        folder = Path(self.env.mystnb_config.output_folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{hashlib.sha256(png).hexdigest()}.png"
        file.write_bytes(png)
        return "/" + Path(os.path.relpath(file, self.env.srcdir)).as_posix()


def find_text(notebook: Path, key: str) -> str:
    """What an executed notebook glued under a key, as Markdown.

    Raises:
        ValueError: the notebook has glued no Markdown under that key.
    """
    for cell in _code_cells(notebook):
        for output in cell["outputs"]:
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == key:
                for kind, text in output["data"].items():
                    if kind.endswith("text/markdown"):
                        return "".join(text)
    raise ValueError(f"{notebook.name} has glued no Markdown as {key!r}")


class NotebookText(SphinxDirective):
    """Markdown that an executed notebook glued: `path/to/notebook.ipynb::key`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what the Markdown says."""
        path, _, key = self.arguments[0].partition("::")
        relative, file = self.env.relfn2path(path, self.env.docname)
        self.env.note_dependency(relative)
        try:
            text = find_text(Path(file), key)
        except (OSError, ValueError) as error:
            raise self.error(str(error)) from error
        found = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source=relative), self.content_offset, found)
        return found.children


NO_ADDRESS = "(not yet: this copy of the study has no address, repository: url in _config.yml is empty)"
BUTTONS = ("use_repository_button", "use_issues_button", "use_edit_page_button")


def show_buttons(app: Sphinx, config: Config) -> None:
    """Turn on the buttons that lead to the repository and to Binder, if it has an address."""
    options = config.html_theme_options
    options.update(dict.fromkeys(BUTTONS, bool(options.get("repository_url"))))
    if not options.get("repository_url"):
        options.pop("launch_buttons", None)


def binder_link(options: dict, path: str = "") -> str:
    """Where Binder opens a file of the repository in JupyterLab; nothing while there is no address.

    Args:
        options: the theme's options, as Jupyter Book fills them from `_config.yml`.
        path: the file, seen from the repository's root.
    """
    if not options["repository_url"]:
        return ""
    name = options["repository_url"].removeprefix("https://github.com/")
    hub = options["launch_buttons"]["binderhub_url"]
    return f"{hub}/v2/gh/{name}/{options['repository_branch']}?urlpath=lab/tree/{path}"


def _link(raw: str, text: str, url: str) -> list[nodes.Node]:
    return [nodes.reference(raw, text, refuri=url) if url else nodes.emphasis(raw, NO_ADDRESS)]


class BinderRole(SphinxRole):
    """A file's address on Binder, as a link."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """Return the link, or why there is none."""
        url = binder_link(self.config.html_theme_options, self.text)
        return _link(self.rawtext, url, url), []


class RepositoryRole(SphinxRole):
    """Some words, as a link to the repository."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """Return the link, or why there is none."""
        return _link(self.rawtext, self.text, self.config.html_theme_options["repository_url"]), []


def setup(app: Sphinx) -> dict[str, object]:
    """Register all of it with Sphinx."""
    app.connect("config-inited", show_buttons)
    app.connect("env-before-read-docs", stop_unless_run)
    app.connect("doctree-read", say_the_run)
    app.add_directive("notebook-figure", NotebookFigure)
    app.add_directive("notebook-text", NotebookText)
    app.add_role("binder", BinderRole())
    app.add_role("repository", RepositoryRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
