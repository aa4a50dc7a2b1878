"""Where a position can be looked up; plain links, nothing is fetched until somebody clicks."""

from urllib.parse import quote

import numpy as np

_PAGES = {
    "Legacy": "https://www.legacysurvey.org/viewer?ra={ra:.6f}&dec={dec:.6f}&zoom=16&mark={ra:.6f},{dec:.6f}",
    "hscMap": "https://hsc-release.mtk.nao.ac.jp/hscMap-pdr3/app/#/?_={view}",
    "Aladin": "https://aladin.cds.unistra.fr/AladinLite/?target={target}&fov=0.02",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={target}&Radius=5&Radius.unit=arcsec",
}


def sky_links(ra: float, dec: float) -> dict[str, str]:
    """Addresses of a position (degrees) in viewers and archives by their name; none where it is unknown."""
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return {}
    view = f'{{"view":{{"a":{np.radians(ra):.8f},"d":{np.radians(dec):.8f},"fovy":0.0003,"roll":0}}}}'
    known = {"ra": ra, "dec": dec, "target": quote(f"{ra:.6f} {dec:+.6f}"), "view": quote(view)}
    return {name: page.format(**known) for name, page in _PAGES.items()}
