"""Baselines: what their scores mean, who they learn from, and that fake pixels do not matter."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from lensq.classifiers.baselines import (
    COLUMNS,
    USES_LABELS,
    fit_baselines,
    simple_features,
    tail_scores,
)
from lensq.detection.detectors import choose_detector, evaluate
from lensq.statistics.guard import LeakageError

SIZE = 32
FEATURES = ["log_flux", "core_share", "inner_share", "outer_share", "size", "ellipticity", "asymmetry"]
FEATURES += ["offset", "peaks", "peak_share"]


def star(x=0.0, y=0.0, flux=200.0, width=1.6, size=SIZE):
    grid_y, grid_x = np.mgrid[:size, :size] - size // 2
    light = np.exp(-((grid_x - x) ** 2 + (grid_y - y) ** 2) / (2 * width**2))
    return flux * light / (2 * np.pi * width**2)


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    n = 900
    lens = rng.random(n) < 0.15
    images = rng.normal(0, 0.05, (n, SIZE, SIZE))
    for i in range(n):
        flux, width = rng.uniform(30, 300), rng.uniform(1.5, 1.9)
        angle, radius = rng.uniform(0, 2 * np.pi), 3.5 if lens[i] else 0
        dx, dy = radius * np.cos(angle), radius * np.sin(angle)
        images[i] += star(dx, dy, 0.6 * flux, width) + star(-dx, -dy, 0.4 * flux, width)
    split = rng.choice(["train", "selection", "conformal", "test"], n, p=[0.5, 0.2, 0.1, 0.2])
    objects = pd.DataFrame(
        {"name": [f"J{i}" for i in range(n)], "split": split, "label": lens.astype(np.int8), "graded": False}
    )
    return images.astype(np.float32), np.ones(images.shape, bool), objects


@pytest.fixture(scope="module")
def fitted(sample):
    return fit_baselines(*sample, components=8)


@pytest.fixture(scope="module")
def table(sample, fitted):
    return fitted.score(*sample)


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_double_sources_stand_out_in_the_table_of_every_detector(table, column):
    test = table[table["split"] == "test"]
    detector = choose_detector(table[table["split"] == "selection"], column, direction=1)
    assert evaluate(detector, test, resamples=20).loc["AUROC", "value"] > 0.8
    assert test[column].nunique() > 0.95 * len(test)


@pytest.mark.slow
def test_a_score_depends_on_its_image_alone(sample, fitted, table):
    images, mask, objects = sample
    rows = np.random.default_rng(1).permutation(len(objects))[:60]
    again = fitted.score(images[rows], mask[rows], objects.iloc[rows])
    for column in COLUMNS:
        expected = table[column].to_numpy()
        assert np.abs(again[column].to_numpy() - expected[rows]).max() < 1e-4 * expected.std()


def test_what_the_masked_pixels_hold_does_not_matter(sample, fitted):
    images, mask, objects = (part[:80] for part in sample)
    masked = mask.copy()
    masked[:, :3] = False
    masked[::2, :, -4:] = False
    clean = fitted.score(np.where(masked, images, 0), masked, objects)
    dirty = fitted.score(np.where(masked, images, 1e6).astype(np.float32), masked, objects)
    pd.testing.assert_frame_equal(clean, dirty)


@pytest.mark.slow
def test_labels_reach_only_the_baseline_that_says_so(sample, fitted):
    images, mask, objects = sample
    dealt = objects.assign(label=np.random.default_rng(2).permutation(objects["label"]))
    other = fit_baselines(images, mask, dealt, components=8).score(images, mask, objects)
    expected = fitted.score(images, mask, objects)
    changed = {c for c in COLUMNS if not np.allclose(other[c], expected[c])}
    assert changed == USES_LABELS


@pytest.mark.slow
def test_labels_outside_selection_are_never_read(sample, fitted):
    images, mask, objects = sample
    hidden = objects.assign(label=objects["label"].where(objects["split"] == "selection", -1))
    other = fit_baselines(images, mask, hidden, components=8).score(images, mask, objects)
    assert np.allclose(other["pca_logistic"], fitted.score(images, mask, objects)["pca_logistic"])


@pytest.mark.slow
def test_selection_objects_are_scored_by_classifiers_that_did_not_see_them(sample, table):
    images, mask, objects = sample
    shuffled = objects.assign(label=np.random.default_rng(3).permutation(objects["label"]))
    fitted = fit_baselines(images, mask, shuffled, components=40)
    in_sample = fitted.score(images, mask, shuffled)
    scores = fitted.held_out(in_sample)
    selection = scores[scores["split"] == "selection"]
    learnt_by_heart = in_sample.loc[selection.index, "pca_logistic"]
    assert roc_auc_score(selection["label"], learnt_by_heart) > 0.75
    assert roc_auc_score(selection["label"], selection["pca_logistic"]) < 0.65


@pytest.mark.slow
def test_a_seed_gives_the_same_baselines_and_no_global_generator_moves(sample, fitted, table):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    again = fit_baselines(*sample, components=8).score(*sample)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    for column in COLUMNS:
        assert np.allclose(again[column], table[column]), column
    other = fit_baselines(*sample, components=8, seed=1).score(*sample)
    assert not np.allclose(other["deep_svdd"], table["deep_svdd"])


def test_each_baseline_says_what_it_cost(sample, fitted, table):
    assert set(fitted.train_s) == set(table.attrs["score_per_s"]) == set(COLUMNS)
    assert min(fitted.train_s.values()) > 0
    assert fitted.train_s["deep_svdd"] > fitted.train_s["pca_mse"]
    assert fitted.labels_used == (sample[2]["split"] == "selection").sum()


@pytest.mark.slow
def test_only_train_images_shape_what_needs_no_labels(sample, fitted):
    images, mask, objects = sample
    other = images.copy()
    foreign = (objects["split"] == "test").to_numpy()
    other[foreign] = np.random.default_rng(4).normal(size=other[foreign].shape)
    assert np.array_equal(fit_baselines(other, mask, objects, components=8).pca.mean_, fitted.pca.mean_)


def test_features_of_a_star_and_of_a_pair():
    images = np.stack([star(), star(5, 0, 100) + star(-5, 0, 100), star(3, 4), star(flux=400)])
    images = (images + np.random.default_rng(5).normal(0, 0.01, images.shape)).astype(np.float32)
    values = pd.DataFrame(simple_features(images, np.ones(images.shape, bool)), columns=FEATURES)
    assert values["peaks"].tolist() == [1, 2, 1, 1]
    assert values["offset"].tolist() == pytest.approx([0, 0, 5, 0], abs=0.15)
    assert values["ellipticity"][0] < 0.05
    # Two sources at distance 5: second moments 25 + 1.6^2 along, 1.6^2 across.
    assert values["ellipticity"][1] == pytest.approx(25 / (25 + 2 * 1.6**2), abs=0.08)
    assert values["size"][1] == pytest.approx(np.sqrt(25 + 2 * 1.6**2), rel=0.05)
    assert values["asymmetry"][0] < 0.1 < 1.5 < values["asymmetry"][2]
    assert values["core_share"][0] == pytest.approx(1 - np.exp(-(2.5**2) / (2 * 1.6**2)), abs=0.08)
    assert values["log_flux"][3] - values["log_flux"][0] == pytest.approx(np.log10(2), abs=0.05)


def test_features_follow_a_quarter_turn():
    rng = np.random.default_rng(6)
    odd = (star(4, 1, size=33) + rng.normal(0, 0.05, (3, 33, 33))).astype(np.float32)
    whole = np.ones(odd.shape, bool)
    turned = simple_features(np.ascontiguousarray(np.rot90(odd, axes=(1, 2))), whole)
    assert np.allclose(simple_features(odd, whole), turned, rtol=1e-4, atol=1e-5)


def test_tail_scores_by_hand():
    train = np.array([[1.0], [2], [3], [10]])  # skewed to the right
    scores = tail_scores(train, np.array([[0.0], [2.5], [11]]))
    # left tails (1 + 0, 1 + 2, 1 + 4) / 5, right tails (1 + 4, 1 + 2, 1 + 0) / 5
    assert scores.tolist() == pytest.approx([-np.log(1 / 5), -np.log(3 / 5), -np.log(1 / 5)])


def test_a_tail_on_each_features_skewed_side_counts_twofold():
    """One feature is skewed to the right, the other to the left."""
    train = np.array([[1.0], [2], [3], [10]]) * [1, -1]
    # Beyond a tail a feature says log 5; the first object is beyond both long tails, the second both short.
    scores = tail_scores(train, np.array([[11.0, -11], [0, 0]]))
    assert scores.tolist() == pytest.approx([2 * np.log(5), np.log(5)])


def test_tail_scores_grow_with_distance():
    rng = np.random.default_rng(7)
    scores = tail_scores(rng.normal(size=(2000, 5)), np.linspace(0, 4, 9)[:, None] * np.ones(5))
    assert (np.diff(scores) >= 0).all()
    assert scores[3] == pytest.approx(-5 * np.log(stats.norm.sf(1.5)), rel=0.05)


def test_too_little_to_learn_from_is_named(sample):
    images, mask, objects = (part[:40] for part in sample)
    with pytest.raises(ValueError, match="5 train objects cannot give 8 principal components"):
        fit_baselines(images, mask, objects.assign(split=["train"] * 5 + ["test"] * 35), components=8)
    few = objects.assign(split=["train"] * 20 + ["selection"] * 20, label=[0] * 38 + [1] * 2)
    with pytest.raises(ValueError, match="at least 5 labelled objects of each class"):
        fit_baselines(images, mask, few, components=4)


def test_a_threshold_is_still_chosen_behind_the_split_guard(table):
    with pytest.raises(LeakageError):
        choose_detector(table, "pca_residual")
