"""Does a network that has seen simulated sky alone take real quasars for ordinary, and real lenses not?

    python benchmarks/real_sky.py REAL [--train SURVEY] [--objects 6000] [--variant RESNET18_VAE] [--epochs 6]

REAL holds `hsc_cosmos_qso_widedepth` (cutouts of single quasars in COSMOS, brought to the noise of HSC
Wide) and `lensed_quasars_semireal_hsc/bright` and `faint` (the same known lenses twice, observed by HST,
seen as HSC would see them); these pixels do not come with the project. A simulated survey without lenses
is made, a variant is trained on its train tiles, and everything else is scored. Prints for each score

- the median rank of the real quasars among simulated objects of their magnitude that were not trained on:
  all classes, quasars only, and quasars that are as far off the centre of their cutout; a half is right;
- the AUROC of the lens cutouts against the real quasars, the interval resampling quasars and whole lenses.

`--train` takes another survey folder to train on and compare with.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from appearance import appearance, off_centre, rank_among

import lensq
from lensq.scores.scoring import label_free
from lensq.statistics.metrics import measure
from lensq.survey.survey import Survey

LENSES = ("lensed_quasars_semireal_hsc/bright", "lensed_quasars_semireal_hsc/faint")
QUASARS = ("point", "quasar_companion")


def table(model: lensq.Model, survey: Survey, rows: np.ndarray | None = None) -> pd.DataFrame:
    """Scores of a survey's rows, by default all, with magnitude within 12 px and whether it is centred."""
    rows = np.arange(len(survey)) if rows is None else rows
    scores = lensq.score(model, survey, progress=False).iloc[rows].reset_index(drop=True)
    pixels = survey.images[rows], survey.mask[rows]
    scores = scores.assign(magnitude=appearance(*pixels)["magnitude"], centred=off_centre(*pixels) < 1)
    return survey.add_truth(scores, ["class"])


def ranks(name: str, quasars: pd.DataFrame, pool: pd.DataFrame, width: float = 0.25) -> np.ndarray:
    """Ranks of the quasars among a pool by one score."""
    columns = (table[column].to_numpy() for table in (quasars, pool) for column in (name, "magnitude"))
    return rank_among(*columns, width=width)


def compare(quasars: pd.DataFrame, lenses: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """One row a score: median ranks of the quasars, AUROC of the lenses against them with its interval."""
    rows = {}
    both = pd.concat([quasars, lenses], ignore_index=True)
    positive = np.arange(len(both)) >= len(quasars)
    for name in label_free(simulated):
        rows[name] = {"all": np.median(ranks(name, quasars, simulated))}
        if "class" in simulated:
            like = simulated[simulated["class"].isin(QUASARS)]
            halves = [
                ranks(name, quasars[quasars["centred"] == c], like[like["centred"] == c], width=0.5)
                for c in (True, False)
            ]
            rows[name]["quasars"] = np.median(ranks(name, quasars, like))
            rows[name]["as centred"] = np.median(np.concatenate(halves))
        area = measure(both[name].to_numpy(), positive, groups=both["name"].to_numpy()).loc["AUROC"]
        rows[name] |= {"AUROC": area["value"], "low": area["low"], "high": area["high"]}
    return pd.DataFrame.from_dict(rows, orient="index")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("real", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--objects", type=int, default=6000)
    parser.add_argument("--variant", default="RESNET18_VAE")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=21)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        stores = iter(range(100))

        def read(folder: Path) -> Survey:
            return lensq.read_survey(folder, store=Path(scratch, f"store{next(stores)}"), progress=False)

        folder = asked.train or lensq.simulate_survey(
            Path(scratch, "survey"),
            asked.objects,
            seed=asked.seed,
            anomaly_rate=0.0,
            labels="truth",
            progress=False,
        )
        survey = read(folder)
        model = lensq.fit(
            survey,
            asked.variant,
            out=Path(scratch, "model"),
            epochs=asked.epochs,
            patience=None,
            latent=16,
            width=16,
            schedule="cosine",
            train_on="normals",
            progress=False,
        )
        quasars = table(model, read(asked.real / "hsc_cosmos_qso_widedepth"))
        lenses = pd.concat([table(model, read(asked.real / name)) for name in LENSES])
        rows = np.flatnonzero((survey.labels != 1) & ~np.isin(survey.split, ("train", "validation")))
        found = compare(quasars, lenses, table(model, survey, rows))
    print(f"{asked.variant}, {asked.epochs} epochs on {len(survey):,} objects of {asked.train or 'lensq'};")
    print(f"{len(quasars)} real quasars, {len(lenses)} cutouts of {lenses['name'].nunique()} lenses")
    print(found.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
