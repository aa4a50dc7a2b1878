"""Ways to use the latent dimensions: known Gaussians, and no row but those of train and selection tiles."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from lensq.classifiers import latent_space

SHIFT = 1.5
EXPECTED = norm.cdf(SHIFT / np.sqrt(2))  # AUROC of two unit Gaussians that far apart


def table(rng, n, positives, split, *, sign=1.0):
    """Posteriors of `n` objects in four dimensions; the positives lie farther on in the third."""
    is_lens = (np.arange(n) < positives).astype(int)
    mu, logvar = rng.normal(size=(n, 4)), rng.normal(size=(n, 4)) - 3
    mu[:, 2] += sign * SHIFT * is_lens
    columns = {f"mu_{d}": mu[:, d] for d in range(4)} | {f"logvar_{d}": logvar[:, d] for d in range(4)}
    columns |= {f"kl_{d}": rng.exponential(size=n) for d in range(4)}
    return pd.DataFrame(columns).assign(split=split, is_lens=is_lens)


@pytest.fixture
def ways(monkeypatch):
    rng = np.random.default_rng(0)
    injected = table(rng, 3000, 1000, "train")
    truth = injected[["is_lens"]]
    monkeypatch.setattr(latent_space, "injected_survey", lambda *_, **__: SimpleNamespace(truth=truth))
    monkeypatch.setattr(latent_space, "score", lambda *_, **__: injected.drop(columns="is_lens"))

    def evaluate(*parts, rows=1000, **options):
        survey = SimpleNamespace(rows=lambda split: np.arange(rows))
        scores = pd.concat(parts, ignore_index=True)
        return latent_space.latent_ways(None, survey, scores, against="is_lens", resamples=20, **options)

    evaluate.rng = rng
    return evaluate


def test_a_shift_of_known_size_is_found_in_its_dimension_and_by_all(ways):
    found = ways(table(ways.rng, 4000, 1000, "selection"), dimensions=1)
    for way in ("posterior mean, 1 dimensions", "all dimensions, linear"):
        assert found.loc[way, "AUROC"] == pytest.approx(EXPECTED, abs=0.02)
    assert found.loc["all dimensions, boosted trees", "AUROC"] == pytest.approx(EXPECTED, abs=0.04)
    assert found.loc["KL divergence, 1 dimensions", "AUROC"] == pytest.approx(0.5, abs=0.03)
    assert len(found) == 4  # no labels on train tiles, no row for what they teach


def test_labels_of_train_tiles_are_used_by_the_last_way_alone(ways):
    selection, other = (
        table(ways.rng, 4000, 1000, "selection"),
        table(ways.rng, 3000, 1000, "train", sign=-1.0),
    )
    found = ways(selection, other)
    assert found.loc["all dimensions, boosted trees trained with labels", "AUROC"] < 0.3
    assert found.loc["all dimensions, boosted trees", "AUROC"] > 0.8


def test_no_other_tiles_are_looked_at(ways):
    selection, test = table(ways.rng, 2000, 500, "selection"), table(ways.rng, 500, 100, "test")
    spoilt = test.assign(**{f"mu_{d}": np.nan for d in range(4)})
    pd.testing.assert_frame_equal(ways(selection, spoilt), ways(selection))


def test_too_few_train_objects_give_no_rows(ways):
    found = ways(table(ways.rng, 2000, 500, "selection"), rows=latent_space.FEWEST - 1)
    assert found.empty
    assert "AP" in found
