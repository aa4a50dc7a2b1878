"""What the book needs of Sphinx beyond Jupyter Book: a guard and a figure.

The guard stops a build on notebooks that have not been run, with one message in place of a page of
warnings about missing numbers. The directive `notebook-figure` shows a figure glued in a notebook on
another page, with a caption, a number and alternative text:

    :::{notebook-figure} ../notebooks/10_thresholding.ipynb::precision_recall
    :name: fig-front-precision-recall
    :alt: Precision against recall ...

    Caption.
    :::
"""

import hashlib
import json
import os
from base64 import b64decode
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)


def has_been_run(notebook: Path) -> bool:
    """Whether every code cell of a notebook that holds code carries an execution count."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    return all(cell["execution_count"] is not None for cell in code)


def stop_unless_run(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """End the build if a notebook of the book has not been run.

    Raises:
        SystemExit: Sphinx and Jupyter Book let it through, so the message stands alone.
    """
    notebooks = [Path(env.doc2path(name)) for name in sorted(env.found_docs)]
    waiting = [file.name for file in notebooks if file.suffix == ".ipynb" and not has_been_run(file)]
    if waiting:
        raise SystemExit(f"\nthe notebooks have not been run; run `make book`\n({', '.join(waiting)})")


class GluedImage(nodes.General, nodes.Element):
    """Stands for an image of another page until that page has been read."""


class NotebookFigure(SphinxDirective):
    """A figure glued in a notebook: `path/to/notebook.ipynb::key`, with a caption."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged, "alt": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Return a captioned figure with a placeholder in place of its image."""
        path, _, key = self.arguments[0].partition("::")
        docname = self.env.path2doc(self.env.relfn2path(path, self.env.docname)[1])
        if "alt" not in self.options or not self.content:
            raise self.error("notebook-figure needs the option 'alt' and a caption")
        image = GluedImage(docname=docname, key=key, alt=self.options["alt"])
        figure = nodes.figure("", image)
        self.set_source_info(figure)
        image.source, image.line = figure.source, figure.line
        self.add_name(figure)
        text = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, text)
        figure += nodes.caption("", "", *text[0].children)
        return [figure]


class FillGluedImages(SphinxPostTransform):
    """Put the images in their places once every notebook has been read."""

    default_priority = 5

    def run(self, **kwargs: object) -> None:
        """Write each image beside the book's others and refer to it."""
        builder, docname = self.app.builder, self.env.docname
        for node in list(self.document.findall(GluedImage)):
            glued = Path(self.env.mystnb_config.output_folder) / f"{node['docname']}.glue.json"
            data = json.loads(glued.read_text()) if glued.exists() else {}
            encoded = data.get(node["key"], {}).get("data", {}).get("image/png")
            if encoded is None:
                LOGGER.warning("no figure %r in %s", node["key"], node["docname"], location=node)
                node.parent.remove(node)
                continue
            png = b64decode(encoded)
            file = Path(builder.outdir) / builder.imagedir / f"{hashlib.sha256(png).hexdigest()}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png)
            uri = os.path.relpath(file, (Path(builder.outdir) / docname).parent)
            node.replace_self(nodes.image(uri=uri, candidates={"*": uri}, alt=node["alt"]))


def setup(app: Sphinx) -> dict[str, object]:
    """Register both with Sphinx."""
    app.connect("env-before-read-docs", stop_unless_run)
    app.add_node(GluedImage)
    app.add_directive("notebook-figure", NotebookFigure)
    app.add_post_transform(FillGluedImages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
