"""A sweep: the grid, the comparison, and the graph that runs it."""

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, snakemake
from sklearn.metrics import roc_auc_score

from lensq import figures
from lensq.statistics.guard import LeakageError
from lensq.study.sweep import compare_runs, over_seeds, read_grid, run_name, settings_of

NOTEBOOK = ROOT / "notebooks" / "05_BetaTC_VAE.ipynb"


def table(separation: float, n: int = 400) -> pd.DataFrame:
    """Selection rows whose positives lie that far above the others, in standard deviations."""
    rng = np.random.default_rng(3)
    label = np.arange(n) % 4 == 0
    return pd.DataFrame(
        {"split": "selection", "label": label.astype(int), "kl": rng.normal(size=n) + separation * label}
    )


def test_a_grid_is_every_combination():
    grid = read_grid("latent=8,16 beta=1.5 seed=0,1", NOTEBOOK)
    assert len(grid) == 4
    assert grid[0] == {"latent": 8, "beta": 1.5, "seed": 0}
    assert grid[-1] == {"latent": 16, "beta": 1.5, "seed": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latnet=8", "did you mean latent"),
        ("latent=0", "latent is 0, but must be 1 or more"),
        ("latent=8,many", "latent is 'many'"),
        ("schedule=soon", "must be one of"),
        ("latent", "write each parameter once"),
        ("latent=8 latent=9", "write each parameter once"),
        ("results=a,b", "write each parameter once"),
        ("", "the grid is empty"),
        ("latent=$(touch pwned)", "write each parameter once"),
        ("train_on=../../all", "write each parameter once"),
    ],
)
def test_a_wrong_grid_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        read_grid(text, NOTEBOOK)


def test_a_run_is_named_for_its_settings():
    settings = {"latent": 8, "beta": 0.5, "schedule": "cosine", "symmetries": True}
    assert run_name(settings) == "latent=8,beta=0.5,schedule=cosine,symmetries=True"
    assert settings_of(run_name(settings)) == settings


def test_runs_are_ranked_and_seeds_put_together():
    runs = {
        run_name({"latent": latent, "seed": seed}): table(latent / 8 + 0.05 * seed)
        for latent in (4, 16)
        for seed in (0, 1)
    }
    compared = compare_runs(runs, "kl", resamples=20)
    assert compared[["latent", "seed"]].to_numpy().tolist() == [[16, 1], [16, 0], [4, 1], [4, 0]]
    best = table(2.05)
    assert compared.loc[0, "AUROC"] == pytest.approx(roc_auc_score(best["label"], best["kl"]))
    assert (compared["AP_low"] <= compared["AP"]).all()
    together = over_seeds(compared)
    first = compared.loc[compared["latent"] == 16, "AP"]
    assert together.loc[0, ["latent", "seeds"]].tolist() == [16, 2]
    assert together.loc[0, "mean"] == pytest.approx(first.mean())
    assert together.loc[0, "sd"] == pytest.approx(abs(np.diff(first)[0]) / np.sqrt(2))
    figure = figures.sweep_lines(compared, "latent")
    means = figure.axes[0].lines[1].get_ydata()
    assert list(means) == pytest.approx(together.sort_values("latent")["mean"].tolist())


def test_a_sweep_may_not_look_at_test_rows():
    with pytest.raises(LeakageError, match="comparing the runs"):
        compare_runs({"latent=2": table(1).assign(split="test")}, "kl")


def test_a_sweep_over_seeds_alone_has_nothing_to_put_together():
    with pytest.raises(ValueError, match="nothing but the seed"):
        over_seeds(compare_runs({"seed=0": table(1)}, "kl", resamples=5))


@pytest.mark.slow
def test_the_graph_holds_a_run_for_every_combination(tmp_path):
    run = snakemake(tmp_path, "variant=SVDD_VAE", "grid=latent=2,3 seed=0,1", "--dry-run", "--", "sweep")
    assert run.returncode == 0, run.stderr
    for latent in (2, 3):
        for seed in (0, 1):
            assert f"sweep/SVDD_VAE/latent={latent},seed={seed}/SVDD_VAE/scores.parquet" in run.stdout
    assert "06_RESNET18" not in run.stdout


@pytest.mark.slow
def test_a_wrong_grid_stops_before_any_work(tmp_path):
    run = snakemake(tmp_path, "variant=SVDD_VAE", "grid=latent=0", "--", "sweep")
    assert run.returncode
    assert "latent is 0, but must be 1 or more" in run.stderr
    assert not list(tmp_path.glob("src"))
