"""The list of candidates on a page: HTML without scripts or requests, every word of it escaped."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from urllib.parse import quote

import matplotlib.image
import numpy as np
import pandas as pd
from IPython.display import HTML

from lensq.figures.pictures import stretch
from lensq.figures.style import LENS, NORMAL

_LINKS = {
    "Legacy": "https://www.legacysurvey.org/viewer?ra={ra}&dec={dec}&zoom=16&mark={ra},{dec}",
    "hscMap": "https://hsc-release.mtk.nao.ac.jp/hscMap-pdr3/app/#/?_=%7B%22view%22%3A%7B%22a%22%3A{a}%2C%22d%22%3A{d}"
    "%2C%22fovy%22%3A0.0003%2C%22roll%22%3A0%7D%7D",
    "Aladin": "https://aladin.cds.unistra.fr/AladinLite/?target={target}&fov=0.02",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={target}&Radius=5&Radius.unit=arcsec",
}
"""Where a position can be looked up; nothing is fetched until somebody clicks."""

_STYLE = """<style>
.lensq-sheet {display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem}
.lensq-sheet figure {margin: 0; font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere}
.lensq-sheet img {width: 100%; box-sizing: border-box; image-rendering: pixelated; background: #c9b8a8;
  border: 3px solid #bbb}
.lensq-said {border-left: 4px solid #0173b2; padding: .2rem 1rem; margin: 1rem 0}
</style>"""


def sky_links(ra: float, dec: float) -> dict[str, str]:
    """Addresses of a position (degrees) in viewers and archives; none where it is unknown."""
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return {}
    at = {"ra": f"{ra:.6f}", "dec": f"{dec:.6f}", "a": f"{np.radians(ra):.8f}", "d": f"{np.radians(dec):.8f}"}
    at["target"] = quote(f"{ra:.6f} {dec:+.6f}")
    return {name: address.format(**at) for name, address in _LINKS.items()}


def said(lines: Sequence[str]) -> HTML:
    """Sentences as a list, for the first screen of a page."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return HTML(f'{_STYLE}<div class="lensq-said"><ul>{items}</ul></div>')


def mosaic(images: np.ndarray, candidates: pd.DataFrame, *, mask: np.ndarray | None = None) -> HTML:
    """Cutouts in the order of the table, with rank, name, score and links by position.

    Frames: lens colour where `label` is 1, normal colour where it is 0, grey where unknown.

    Args:
        images: (N, S, S) flux.
        candidates: N rows: `name`, `ra`, `dec`, `score`; perhaps `rank`, `label`, `known_as`, `set_apart`.
        mask: (N, S, S) bool; masked pixels are left clear.
    """
    pictures = stretch(images, mask)
    tiles = [_tile(*pair) for pair in zip(pictures, candidates.to_dict("records"), strict=True)]
    return HTML(f'{_STYLE}<div class="lensq-sheet">{"".join(tiles)}</div>')


def _tile(picture: np.ndarray, row: dict) -> str:
    name = escape(str(row["name"]))
    place = "" if pd.isna(row.get("rank")) else f"{row['rank']}. "
    notes = [escape(str(row[key])) for key in ("known_as", "set_apart") if pd.notna(row.get(key))]
    links = [
        f'<a href="{escape(address)}" rel="noreferrer">{which}</a>'
        for which, address in sky_links(row["ra"], row["dec"]).items()
    ]
    colour = {1: LENS, 0: NORMAL}.get(row.get("label"), "#bbb")
    lines = [f"{place}<b>{name}</b>", f"score {row['score']:.2f}", *filter(None, notes), " ".join(links)]
    return (
        f'<figure><img style="border-color: {colour}" alt="Cutout of {name}" src="{_png(picture)}">'
        f"<figcaption>{'<br>'.join(filter(None, lines))}</figcaption></figure>"
    )


def _png(picture: np.ndarray) -> str:
    """A picture (S, S) from 0 to 1, NaN where clear, as a data address."""
    buffer = BytesIO()
    matplotlib.image.imsave(buffer, picture, vmin=0, vmax=1, cmap="gray", origin="lower", format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
