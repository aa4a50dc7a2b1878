"""Every detector of the leaderboard on real pixels: cutouts of known lenses against real quasars.

    python benchmarks/real_pixels.py BUILD REAL --csv results/real_pixels.csv

BUILD is the folder of a built study, `_build`, whose models are taken as they are. REAL holds
`hsc_cosmos_qso_widedepth` (single quasars in COSMOS, brought to the noise of HSC Wide) and
`lensed_quasars_semireal_hsc/bright` and `faint` (the same known lenses twice, observed by HST, seen as HSC
would see them); these pixels do not come with the project. Writes for each detector and score the AUROC
with its 95% interval (quasars and whole lenses resampled), the date, and the commits of training and test.
"""

import argparse
import tempfile
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from lensq.classifiers.baselines import fit_baselines
from lensq.classifiers.classifier import Classifier
from lensq.detection.entries import FITS, baseline_entries, trained_entries, variant_entries
from lensq.detection.evaluation import record_of
from lensq.detection.leaderboard import objects
from lensq.scores.residual import CENTRAL_RADIUS
from lensq.statistics.metrics import compare
from lensq.survey.survey import Survey, read_survey

LENSES = ("lensed_quasars_semireal_hsc/bright", "lensed_quasars_semireal_hsc/faint")


def together(quasars: Survey, *lenses: Survey) -> Survey:
    """One survey, all of it test objects; the cutouts of one lens are of one group."""
    parts = [quasars, *lenses]
    arrays = [f.name for f in fields(Survey) if isinstance(getattr(quasars, f.name), np.ndarray)]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    joined["group"] = np.unique(joined["names"], return_inverse=True)[1]
    joined["labels"] = np.repeat(np.array([0, 1], np.int8), [len(quasars), sum(map(len, lenses))])
    joined["split"] = np.full(len(joined["names"]), "test")
    joined["coordinates"] = np.concatenate([part.coordinates for part in parts])
    return replace(quasars, **joined, fingerprint="+".join(part.fingerprint for part in parts))


def entries_on(real: Survey, data: Survey, results: Path) -> dict:
    """The entries of notebook 12, their test objects the real ones."""
    labels = data.labels if data.truth is None else data.truth["is_lens"].to_numpy(int)
    against = "label" if data.truth is None else "is_lens"
    radius = CENTRAL_RADIUS / data.native_pixels
    baselines = fit_baselines(data.images, data.mask, objects(data), against=against, radius=radius)
    network = Classifier.load(results / "supervised" / "model.pt")
    found = variant_entries(results, data, real, against=against, into="real", progress=False)
    found |= baseline_entries(baselines, data, real)
    return found | trained_entries(results, network, labels, data, real, fits=found[FITS], progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("--csv", type=Path, required=True, help="file for the book's table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results, folders = Path(scratch, "results"), ("hsc_cosmos_qso_widedepth", *LENSES)
        results.mkdir()
        for made in (given.build / "results").resolve().iterdir():  # nothing is written there
            (results / made.name).symlink_to(made)
        read = [
            read_survey(folder, store=Path(scratch, f"store{k}"), progress=False)
            for k, folder in enumerate([given.build / "survey", *(given.real / name for name in folders)])
        ]
        real = together(*read[1:])
        entries = entries_on(real, read[0], results)
        commits = [record_of(results, into)["scored"][-1]["commit"] for into in ("test", "real")]
    scores = dict(enumerate(entry.test for entry in entries.values()))
    table = compare(scores, real.labels == 1, groups=real.group)[["AUROC", "AUROC_low", "AUROC_high"]]
    kept = pd.DataFrame(list(entries), columns=["model", "score"]).join(table.round(4))
    kept = kept.sort_values("AUROC", ascending=False, kind="stable")
    lenses = real.labels == 1
    kept = kept.assign(
        quasars=int((~lenses).sum()),
        lenses=len(np.unique(real.names[lenses])),
        cutouts=int(lenses.sum()),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        **{
            what: commit[:10] + commit[40:]
            for what, commit in zip(("trained", "evaluated"), commits, strict=True)
        },
    )
    print(kept.iloc[:, :5].to_string(index=False))
    kept.to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
