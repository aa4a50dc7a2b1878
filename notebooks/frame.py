"""One frame for the notebooks of the seven variants: `make frame` writes frame.ipynb into each of them.

A cell of the frame is copied, with `<notebook>` and `<variant>` filled in. In place of a cell tagged
`own-<part>` stand the variant's own cells of that tag; one tagged `else-<part>` is copied where the variant
has none. Of the parameters a variant keeps its defaults, and those that it declares below the frame's
last one.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
VARIANTS = sorted(HERE.glob("0[2-8]_*.ipynb"))
_PARAMETER = re.compile(r"(\w+)(: \w+ = )(.+?)(  #.*)")


def read(path: Path) -> dict:
    """A notebook's JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _part(cell: dict, kinds: tuple[str, ...] = ("own-", "else-")) -> str:
    """The part of the page that a cell is tagged for, or nothing."""
    return next((tag.partition("-")[2] for tag in _tags(cell) if tag.startswith(kinds)), "")


def _parameters(frame: str, variant: str) -> str:
    """The frame's lines with the variant's defaults, then the lines that the variant has below them."""
    defaults = {name: default for name, _, default, _ in _PARAMETER.findall(variant)}
    kept = _PARAMETER.sub(lambda m: m[1] + m[2] + defaults.get(m[1], m[3]) + m[4], frame)
    last = _PARAMETER.findall(frame)[-1][0]
    return kept + "".join(re.findall(rf"^{last}: .*(\n[\s\S]*)", variant, re.MULTILINE))


def framed(frame: dict, variant: dict, notebook: str) -> dict:
    """A variant's notebook, made anew of the frame and of the cells that are its own.

    Args:
        frame, variant: JSON of the two notebooks.
        notebook: name of the variant's file without its ending, such as 02_SVDD_VAE.

    Raises:
        ValueError: a cell would be lost: it has no tag, or the frame has no such part.
    """
    parts = {_part(cell) for cell in frame["cells"]} - {""}
    own: dict[str, list[dict]] = {}
    for cell in variant["cells"]:
        if "frame" not in _tags(cell):
            if _part(cell, ("own-",)) not in parts:
                ways = ", ".join(f"own-{part}" for part in sorted(parts))
                start = "".join(cell["source"])[:60]
                raise ValueError(f"{notebook}: tag the cell {start!r} with one of {ways}")
            own.setdefault(_part(cell), []).append(cell)
    given = next(("".join(cell["source"]) for cell in variant["cells"] if "parameters" in _tags(cell)), "")
    names = {"<notebook>": notebook, "<variant>": notebook[3:]}
    cells, placed = [], set()
    for cell in frame["cells"]:
        if (part := _part(cell)) in own:
            cells += own[part] if part not in placed else []
            placed.add(part)
        elif not _part(cell, ("own-",)):
            new = json.loads(re.sub("|".join(names), lambda found: names[found[0]], json.dumps(cell)))
            new["metadata"]["tags"] = ["frame", *_tags(cell)]
            if "parameters" in _tags(cell):
                new["source"] = _parameters("".join(cell["source"]), given).splitlines(keepends=True)
            cells.append(new)
    return frame | {"cells": [cell | {"id": str(i)} for i, cell in enumerate(cells)]}


if __name__ == "__main__":
    for path in VARIANTS:
        made = framed(read(HERE / "frame.ipynb"), read(path), path.stem)
        path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
