"""Figures on real pixels that are kept with the project, since the pixels are not."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from toy import toy_survey

from lensq.detection.entries import NAMES
from lensq.detection.leaderboard import with_interval
from lensq.models.variants import MODELS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from real_pixels import together  # noqa: E402

UNMEASURED: set[str] = set()  # variants of those who had no real pixels at hand


def test_the_cutouts_of_a_lens_are_resampled_together(tmp_path):
    quasars = toy_survey(tmp_path / "quasars", n=5)
    bright = replace(toy_survey(tmp_path / "bright", n=3, seed=1), names=np.array(["a", "b", "c"]))
    faint = replace(toy_survey(tmp_path / "faint", n=3, seed=2), names=np.array(["a", "b", "c"]))
    real = together(quasars, bright, faint)
    assert real.labels.tolist() == [0] * 5 + [1] * 6
    assert real.group[5:8].tolist() == real.group[8:].tolist()
    assert len(set(real.group)) == 8
    assert np.array_equal(real.images[5:8], bright.images)
    assert np.array_equal(real.images[8:], faint.images)
    assert real.rows("test").tolist() == list(range(11))
    assert len(real.coordinates) == 11


def test_every_detector_is_among_the_kept_figures():
    """A new detector needs a run of `benchmarks/real_pixels.py`."""
    kept = pd.read_csv(ROOT / "benchmarks" / "results" / "real_pixels.csv")
    pairs = set(kept[["model", "score"]].itertuples(index=False, name=None))
    for variant in MODELS.keys() - UNMEASURED:
        assert {(variant, "kl"), (variant, "central_residual")} <= pairs, f"{variant}: see UNMEASURED"
    assert {(name, column) for column, name in NAMES.items()} <= pairs
    assert {"fits of point sources", "supervised ResNet-18"} <= set(kept["model"])
    assert {f"SVDD_VAE + injected lenses{more}" for more in ("", " + few labels", " + all labels")} <= set(
        kept["model"]
    )
    assert (kept["AUROC_low"] <= kept["AUROC"]).all()
    assert (kept["AUROC"] <= kept["AUROC_high"]).all()
    row = kept.iloc[0]
    assert with_interval(kept, "AUROC")[0].startswith(f"{row['AUROC']:.3f} ({row['AUROC_low']:.3f} to")
    same = kept[["quasars", "lenses", "cutouts", "date", "trained", "evaluated"]].drop_duplicates()
    assert len(same) == 1
    assert "dirty" not in same["evaluated"].item()
