"""The ranked list as a page for a reader who has no network: what its notebook's cells tagged `page` show."""

from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

# No script runs and nothing is fetched, whatever a file's name may hold.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Candidates</title>
<style>
body {font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem}
table {border-collapse: collapse; font-size: .85rem}
td, th {padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd}
.anchor-link {display: none}
</style>
<h1>Candidates</h1>
"""


def to_page(notebook: Path | str) -> Path:
    """Write the page beside the notebook.

    Args:
        notebook: executed.

    Returns:
        The page, the notebook's name with `.html`.
    """
    document = nbformat.read(notebook, as_version=4)
    document.cells = [cell for cell in document.cells if "page" in cell.metadata.get("tags", [])]
    document.metadata.pop("widgets", None)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(document)
    page = Path(notebook).with_suffix(".html")
    body = body.replace("<details>", "<details open>")  # what a book folds away is what this page is for
    page.write_text(_HEAD + body, encoding="utf-8")
    return page
