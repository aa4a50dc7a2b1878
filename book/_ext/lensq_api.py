"""`.. lensq-api:: survey`: the reference of what a package leads out, as its stub lists it."""

import ast
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import lensq

PACKAGE = Path(lensq.__file__).parent


def led_out(package: str = "") -> list[str]:
    """Functions and classes in a package's stub, or in that of lensq itself, in its order."""
    tree = ast.parse((PACKAGE / package / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return [alias.name for node in imports for alias in node.names if not alias.name.isupper()]


class Reference(SphinxDirective):
    """Autodoc of all that a package leads out; without an argument, of lensq's own names."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0] if self.arguments else ""
        prefix = f"lensq.{package}." if package else "lensq."
        lines: list[str] = []
        for name in led_out(package):
            if package and name in led_out():
                continue
            kind = "autoclass" if name[0].isupper() else "autofunction"
            lines += [f".. {kind}:: {prefix}{name}", *(["   :members:"] * (kind == "autoclass")), ""]
        found = self.parse_text_to_nodes(StringList(lines, source=f"lensq/{package}/__init__.pyi"))
        for fields in list(nodes.section("", *found).findall(nodes.field_list)):
            fold(fields)
        return found


def fold(fields: nodes.field_list) -> None:
    """Let parameters, result and errors of a function fold out, so that a page shows what there is."""
    named = ", ".join(field[0].astext().lower() for field in fields)
    if named == "type":
        return
    before, after = f"<details><summary>{named}</summary>", "</details>"
    within = [nodes.raw("", before, format="html"), fields.deepcopy(), nodes.raw("", after, format="html")]
    fields.replace_self(within)


def setup(app) -> dict[str, object]:
    app.add_directive("lensq-api", Reference)
    return {"parallel_read_safe": True}
