"""The list of candidates on a page: HTML without scripts or requests, every word of it escaped."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
from IPython.display import HTML

from lensq.figures.links import sky_links
from lensq.figures.pictures import drawn
from lensq.figures.style import LENS, ORDINARY

_STYLE = """<style>
.lensq-sheet {display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem}
.lensq-sheet figure {margin: 0; font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere}
.lensq-sheet img {width: 100%; box-sizing: border-box; image-rendering: pixelated; background: #c9b8a8;
  border: 3px solid #bbb}
details > .lensq-sheet {margin-top: .7rem}
.lensq-said {border-left: 4px solid #0173b2; padding: .2rem 1rem; margin: 1rem 0}
</style>"""


def said(lines: Sequence[str]) -> HTML:
    """Sentences as a list, for the first screen of a page."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return HTML(f'{_STYLE}<div class="lensq-said"><ul>{items}</ul></div>')


def mosaic(images: np.ndarray, candidates: pd.DataFrame, *, opened: int = 12, **shown: Any) -> HTML:
    """Cutouts in the order of the table, with rank, name, score and links by position.

    Frames: lens colour where `label` is 1, the colour of ordinary objects where it is 0, grey where unknown.

    Args:
        images: (N, S, S) or (N, C, S, S) flux.
        candidates: N rows: `name`, `ra`, `dec`, `score`; perhaps `rank`, `label`, `known_as`, `set_apart`.
        opened: how many are seen at once; the others fold out.
        shown: `mask` (masked pixels are left clear), `bands` and `rgb`: see `lensq.figures.pictures.drawn`.

    Returns:
        The page's part; "None." without objects.
    """
    if candidates.empty:
        return HTML("<p>None.</p>")
    pictures = drawn(images, **shown)
    tiles = [_tile(*pair) for pair in zip(pictures, candidates.to_dict("records"), strict=True)]
    first, rest = ("".join(part) for part in (tiles[:opened], tiles[opened:]))
    sheet = f'{_STYLE}<div class="lensq-sheet">{first}</div>'
    if rest:
        more = f"<summary>{len(tiles) - opened:,} more</summary>"
        sheet += f'<details>{more}<div class="lensq-sheet">{rest}</div></details>'
    return HTML(sheet)


def _tile(picture: np.ndarray, row: dict) -> str:
    name = escape(str(row["name"]))
    place = "" if pd.isna(row.get("rank")) else f"{row['rank']}. "
    notes = [escape(str(row[key])) for key in ("known_as", "set_apart") if pd.notna(row.get(key))]
    known = sky_links(row["ra"], row["dec"])
    links = [f'<a href="{escape(known[which])}" rel="noreferrer">{which}</a>' for which in known]
    colour = {1: LENS, 0: ORDINARY}.get(row.get("label"), "#bbb")
    lines = [f"{place}<b>{name}</b>", f"score {row['score']:.2f}", *filter(None, notes), " ".join(links)]
    return (
        f'<figure><img style="border-color: {colour}" alt="Cutout of {name}" src="{_png(picture)}">'
        f"<figcaption>{'<br>'.join(filter(None, lines))}</figcaption></figure>"
    )


def _png(picture: np.ndarray) -> str:
    """A picture (S, S) from 0 to 1, NaN where clear, or in colour (S, S, 4), as a data address."""
    buffer = BytesIO()
    matplotlib.image.imsave(buffer, picture, vmin=0, vmax=1, cmap="gray", origin="lower", format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
