"""Which code made a file: a hash of the modules that a step runs, closed over what they import."""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def code_hash(*modules: str) -> str:
    """Sixteen hexadecimal digits that change when the code of these modules, or of what they import, changes.

    Docstrings, comments, blank lines, layout and imports for type checkers alone do not count, so that
    tidying reruns nothing.

    Args:
        modules: names below `lensq`, such as `"models.training"`, or of what a package leads to, such as
            `"figures.gallery"`.

    Raises:
        ValueError: there is no such module.
    """
    return _hash_of(source_files(*modules))


def notebook_hash(notebook: Path | str) -> str:
    """The `code_hash` of all that a notebook calls as `lensq....`, with the scripts and styles beside it."""
    found: set[str] = set()
    for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            lines = "".join(cell["source"]).splitlines()
            lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]
            tree = ast.parse("\n".join(lines))
            found |= {name for name in _names(tree) if _files_of(name)}
    sources = source_files(*sorted(found))
    shown = {file for folder in {source.parent for source in sources} for file in folder.glob("*.[jc]s*")}
    return _hash_of((*sources, *sorted(shown)))


@cache
def source_files(*modules: str) -> tuple[Path, ...]:
    """Source files of these modules and of every module that they import at run time, sorted.

    Raises:
        ValueError: there is no such module.
    """
    for module in modules:
        if not _files_of(module):
            raise ValueError(f"lensq has no module {module!r}")
    todo, seen = [file for module in modules for file in _files_of(module)], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += _imports(file)
    return tuple(sorted(seen))


@cache
def _imports(file: Path) -> list[Path]:
    return [found for name in _names(_tree(file)) for found in _files_of(name)]


def _hash_of(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(_PACKAGE).as_posix().encode())
        digest.update(_code(file) if file.suffix == ".py" else file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _code(file: Path) -> bytes:
    return ast.dump(_tree(file)).encode()


def _tree(file: Path) -> ast.Module:
    """The syntax tree of a file without its docstrings and what only type checkers import."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [child for child in node.body if not (_is_constant(child) or _for_checkers(child))]
    return tree


def _is_constant(node: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring, or one below a constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _for_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _names(tree: ast.AST) -> Iterator[str]:
    """What a module or a cell takes of lensq at run time, also inside functions: names below `lensq`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name[6:] for alias in node.names if alias.name.startswith("lensq."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lensq":
            base = node.module[6:]
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
        elif isinstance(node, ast.Attribute) and (dotted := ast.unparse(node)).startswith("lensq."):
            yield dotted[6:]


@cache
def _files_of(name: str) -> tuple[Path, ...]:
    """The module that defines a name below `lensq`; no file for a package, or what is none of lensq's."""
    place = _PACKAGE
    for part in name.split("."):
        if (place / f"{part}.py").is_file():
            return (place / f"{part}.py",)
        if (place / part).is_dir():
            place = place / part
        elif part in _leads(place):
            return _files_of(".".join((*place.relative_to(_PACKAGE).parts, _leads(place)[part], part)))
        else:
            break
    init = place / "__init__.py"  # of a package that imports what it leads to
    return () if _leads(place) else (init,) * init.is_file()


@cache
def _leads(package: Path) -> dict[str, str]:
    """Names that a package's stub imports from its modules, and from which."""
    stub = package / "__init__.pyi"
    if not stub.is_file():
        return {}
    nodes = [node for node in ast.parse(stub.read_bytes()).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in nodes if node.module for alias in node.names}
