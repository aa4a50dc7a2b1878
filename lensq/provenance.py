"""Which code made a file: fingerprints of rooms, closed over what they import."""

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def _file_of(room: str) -> Path:
    flat = _PACKAGE.joinpath(*room.split("."))
    file = flat / "__init__.py" if flat.is_dir() else flat.with_suffix(".py")
    if not file.is_file():
        raise ValueError(f"lensq has no room {room!r} (looked for {file})")
    return file


def _imported(file: Path) -> set[str]:
    """Rooms of lensq that a source file imports, also inside functions."""
    parents = file.relative_to(_PACKAGE).with_suffix("").parts
    here = parents[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("lensq.") for alias in node.names if "lensq." in alias.name}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level + 1]
            elif node.module and node.module.split(".")[0] == "lensq":
                base = ()
            else:
                continue
            module = (node.module or "").removeprefix("lensq").lstrip(".") if not node.level else node.module
            prefix = ".".join((*base, *(module.split(".") if module else ())))
            found |= {prefix} if prefix else set()
            found |= {f"{prefix}.{alias.name}".lstrip(".") for alias in node.names}
    return found


def is_room(room: str) -> bool:
    """Whether lensq has a module or package of this name, such as `"training"` or `"simulate.sky"`."""
    path = _PACKAGE.joinpath(*room.split("."))
    return bool(room) and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


@cache
def source_files(*rooms: str) -> tuple[Path, ...]:
    """Source files of these rooms and of every room that they import, sorted.

    Args:
        rooms: Names such as `"training"` or `"simulate.population"`.

    Raises:
        ValueError: A room does not exist.
    """
    todo, seen = [_file_of(room) for room in rooms], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += [_file_of(room) for room in _imported(file) if is_room(room)]
    return tuple(sorted(seen))


def code_fingerprint(*rooms: str) -> str:
    """Sixteen hexadecimal digits that change when the code of these rooms, or of what they import, changes.

    Comments, blank lines and layout do not count, so that tidying does not rerun a study.
    """
    digest = hashlib.sha256()
    for file in source_files(*rooms):
        digest.update(file.relative_to(_PACKAGE).as_posix().encode())
        digest.update(ast.dump(ast.parse(file.read_bytes())).encode())
    return digest.hexdigest()[:16]
