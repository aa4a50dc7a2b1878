"""How the study's detectors do on surveys of another simulator: train on one, evaluate on another, once.

    python benchmarks/yardstick.py TRAIN TEST --json results/yardstick.json --csv ../book/yardstick.csv

TRAIN and TEST are survey folders in the usual layout whose labels are the truth. A variant is trained on
TRAIN's train tiles, its encoder fine-tuned on injected lenses, then with a hundred labels of train objects or
with all labels of the train and selection tiles, as in notebook 11; the baselines and the supervised network
are those of notebook 12, and so is the table. Every object of TEST is evaluated. Ten minutes on a core.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from report import machine, options, write

import lensq
from lensq.classifiers.baselines import fit_baselines
from lensq.classifiers.finetuning import finetune, label_the_top
from lensq.classifiers.supervised import fit_supervised
from lensq.detection.entries import baseline_entries, trained_entries, variant_entries
from lensq.detection.leaderboard import COLUMNS, lead, objects, rank_entries
from lensq.scores.residual import CENTRAL_RADIUS


def for_the_book(table: pd.DataFrame, leads: dict[str, list[float]]) -> pd.DataFrame:
    """The best row of each detector as text: AP with its interval, its paired lead, and what else decides."""
    best = table.sort_values("AP", ascending=False).drop_duplicates("model")
    interval = [f"{row.AP:.2f} ({row.AP_low:.2f} to {row.AP_high:.2f})" for row in best.itertuples()]
    paired = {key.split(" of ")[1].removesuffix(", less PCA(16)"): value for key, value in leads.items()}
    paired = [paired.get(f"{row.model}, {row.score}") for row in best.itertuples()]
    paired = [p and f"{p[0]:+.2f} ({p[1]:+.2f} to {p[2]:+.2f})" for p in paired]
    names = best["model"] + ": " + best["score"].str.replace("_", " ")
    columns = {"detector": names, "labels": best["labels_used"].map("{:,.0f}".format), "AP": interval}
    columns["AP less PCA(16)"] = paired
    rest = {"F1": "F1", "recall_fpr_1e-2": "recall at FPR 1e-2"}
    rest |= {"recall_fpr_1e-3": "at 1e-3"} if best["recall_fpr_1e-3"].notna().any() else {}
    rest |= {"AUROC": "AUROC"}
    columns |= {name: best[key].map("{:.2f}".format, na_action="ignore") for key, name in rest.items()}
    return pd.DataFrame(columns)


def run(given) -> None:
    began = machine()
    sample = lensq.read_survey(given.train)
    held_out = lensq.read_survey(given.test)
    held_out = replace(held_out, split=np.full(len(held_out), "test", dtype=sample.split.dtype))
    if shared := len(np.intersect1d(sample.names, held_out.names)):
        raise SystemExit(
            f"{shared} objects are in both folders; models would be tested on what they learnt from"
        )
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        results = Path(scratch)
        out = results / given.variant
        model = lensq.fit(sample, given.variant, out=out, epochs=given.epochs, latent=16, width=16)
        lensq.score(model, sample, out=out / "scores.parquet")
        injected = results / "injected"
        none = finetune(model, sample, out=injected / "none", steps=given.injected_steps)
        few = {"steps": 300, "learning_rate": 1e-3, "share_labelled": 0.25}
        label_the_top(model, sample, none, sample.labels, out=injected / "few", budget=given.asked, **few)
        known = np.where(np.isin(sample.split, ["train", "selection"]), sample.labels, -1)
        finetune(model, sample, known, out=injected / "all", start=none, steps=1200)
        network = fit_supervised(sample, sample.labels, out=results / "supervised", width=16)
        baselines = fit_baselines(
            sample.images, sample.mask, objects(sample), radius=CENTRAL_RADIUS / sample.native_pixels
        )
        entries = variant_entries(results, sample, held_out)
        entries |= baseline_entries(baselines, sample, held_out)
        fits = entries["fits of point sources", "delta_chi_squared"]
        entries |= trained_entries(results, network, sample.labels, sample, held_out, fits=fits)
    selection, test = objects(sample, "selection"), objects(held_out, "test")
    table = rank_entries(entries, selection, test)
    print(table[list(COLUMNS)].round(3).to_string(index=False))
    pca = "PCA(16)", "pca_residual"
    figures, ratios = json.loads(table[list(COLUMNS)].to_json(orient="records")), {}
    for key in entries:
        if "injected" in key[0] or key[0] == given.variant:
            row = lead(entries, key, pca, test).loc["AP"]
            ratios[f"AP of {key[0]}, {key[1]}, less PCA(16)"] = row[["difference", "low", "high"]].tolist()
    print(pd.Series(ratios).to_string())
    if given.csv:
        for_the_book(table, ratios).to_csv(given.csv, index=False)
    counts = {"objects": len(held_out), "lenses": int((held_out.labels == 1).sum())}
    figures.append({"what": "test survey", **counts})
    given.train, given.test, given.csv = given.train.name, given.test.name, None  # no place of this machine
    write(given, "Detectors on surveys of another simulator, labels as truth", figures, ratios, began)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--variant", default="SVDD_VAE")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--injected-steps", type=int, default=3000)
    parser.add_argument("--asked", type=int, default=100, help="labels that the labeller is asked for")
    parser.add_argument("--csv", type=Path, help="file for the book's table")
    parser.add_argument("--scratch", help="folder for the models")
    run(parser.parse_args())
