"""The picture of the README: `python book/cover.py` simulates a few hundred objects and draws some.

Rows: lenses with four images and with two, the widest first; objects that look like lenses and are none; and
other objects. The seed is fixed.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import lensq

FILE = Path(__file__).parent / "_static" / "cover.png"
ALIKE = ("star_star", "star_galaxy", "quasar_companion", "merger", "pair_galaxy")
COLUMNS = 12


def main(file: Path = FILE) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        lensq.simulate_survey(folder, 900, seed=2, anomaly_rate=0.3, progress=False)
        sample = lensq.read_survey(folder, progress=False)
        truth = sample.truth.reset_index(drop=True)
        lenses = truth[truth["is_lens"]].sort_values("separation", ascending=False)
        others = truth[~truth["is_lens"]]
        kinds = {
            "four images": lenses[lenses["n_images"] >= 4],
            "two images": lenses[lenses["n_images"] == 2],
            "look alike": others[others["class"].isin(ALIKE)],
            "ordinary": others[~others["class"].isin([*ALIKE, "artefact"])],
        }
        rows = np.concatenate([table.index[:COLUMNS] for table in kinds.values()])
        names = np.repeat(list(kinds), [min(COLUMNS, len(table)) for table in kinds.values()])
        figure = lensq.figures.class_gallery(
            sample.images[rows],
            names,
            mask=sample.mask[rows],
            columns=COLUMNS,
            pixel_scale=sample.pixel_scale,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    Image.open(buffer).convert("L").save(file, optimize=True)
    print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
