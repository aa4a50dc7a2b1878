"""How well simulated objects agree with real ones: features of appearance, and a two-sample test on them.

`tests/simulate/test_simulate_realism.py` applies the test to real quasars where there are any.
"""

import numpy as np
import pandas as pd
from astropy.stats import mad_std
from scipy.ndimage import maximum_filter, uniform_filter
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from lensq.simulate.light import magnitude
from lensq.simulate.realism import geometry, light_within
from lensq.statistics.metrics import measure

_OUTER = 18.0  # px, where the outer region begins


def _outer(images: np.ndarray, mask: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Pixels of the outer region, NaN elsewhere, flattened to (N, pixels)."""
    far = np.minimum(_OUTER, 0.4 * images.shape[1])
    return np.where(mask & (radius > far), images, np.nan).reshape(len(images), -1)


def appearance(images: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """Ten features by which an image of a quasar is described; every image is centred on its peak first.

    Args:
        images: (N, S, S) counts at zero point 27.
        mask: (N, S, S) bool, True for real pixels; None: the finite ones.

    Returns:
        One row an image: `magnitude` (within 12 px; for matching, not a feature) and

        - `concentration`: light within 2.5 px over light within 12 px
        - `core`: light within 1.5 px over light within 4 px
        - `halo`: light from 6 to 12 px over light within 12 px
        - `elongation`: ellipticity of the second moments within 6 px
        - `asymmetry`: absolute difference with the image rotated by 180 degrees within 8 px, over its light
        - `neighbour`: brightest 3 x 3 px mean between 5 and 18 px, over the sky noise (log10)
        - `outer_99`: 99th percentile of the outer pixels
        - `background`: median of the outer pixels
        - `sky`: robust sigma of the outer pixels
        - `correlation`: of horizontally adjacent outer pixels, those above 3 sigma left out
    """
    images, mask, radius = geometry(images, mask)
    outer = _outer(images, mask, radius)
    background, sky = np.nanmedian(outer, axis=1), mad_std(outer, axis=1, ignore_nan=True)
    flat = np.where(mask, images - background[:, None, None], 0)
    total = np.maximum(light_within(flat, radius < 12), 1e-6)
    smooth = uniform_filter(flat, (0, 3, 3))
    peaks = np.where((maximum_filter(smooth, (0, 3, 3)) == smooth) & (radius > 5) & (radius < 18), smooth, 0)
    return pd.DataFrame(
        {
            "magnitude": magnitude(total),
            "concentration": light_within(flat, radius < 2.5) / total,
            "core": light_within(flat, radius < 1.5) / np.maximum(light_within(flat, radius < 4), 1e-6),
            "halo": light_within(flat, (radius >= 6) & (radius < 12)) / total,
            "elongation": _elongation(flat, radius),
            "asymmetry": _asymmetry(flat, radius),
            "neighbour": np.log10(np.maximum(peaks.max((1, 2)) / sky, 0.1)),
            "outer_99": np.nanpercentile(outer, 99, axis=1),
            "background": background,
            "sky": sky,
            "correlation": _correlation(outer.reshape(images.shape), background, sky),
        }
    )


def _elongation(images: np.ndarray, radius: np.ndarray) -> np.ndarray:
    weight = np.where(radius < 6, np.clip(images, 0, None), 0)
    total = np.maximum(weight.sum((1, 2)), 1e-6)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    dx = x - ((weight * x).sum((1, 2)) / total)[:, None, None]
    dy = y - ((weight * y).sum((1, 2)) / total)[:, None, None]
    xx, yy, xy = ((weight * q).sum((1, 2)) / total for q in (dx * dx, dy * dy, dx * dy))
    return np.hypot(xx - yy, 2 * xy) / np.maximum(xx + yy, 1e-6)


def _asymmetry(images: np.ndarray, radius: np.ndarray) -> np.ndarray:
    found = np.empty(len(images))
    for i, (image, r) in enumerate(zip(images, radius, strict=True)):
        y, x = np.unravel_index(r.argmin(), r.shape)
        part = image[y - 8 : y + 9, x - 8 : x + 9]
        found[i] = np.abs(part - part[::-1, ::-1]).sum() / max(np.abs(part).sum(), 1e-6)
    return found


def _correlation(outer: np.ndarray, background: np.ndarray, sky: np.ndarray) -> np.ndarray:
    scaled = (outer - background[:, None, None]) / sky[:, None, None]
    scaled = np.where(np.abs(scaled) < 3, scaled, np.nan)
    left, right = scaled[:, :, :-1], scaled[:, :, 1:]
    both = np.isfinite(left) & np.isfinite(right)
    left, right = np.where(both, left, 0), np.where(both, right, 0)
    return (left * right).sum((1, 2)) / np.sqrt((left**2).sum((1, 2)) * (right**2).sum((1, 2)))


def off_centre(images: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """How far the brightest pixel of the smoothed central part lies from the middle of each image, px (N,).

    Args:
        images: (N, S, S) counts.
        mask: (N, S, S) bool, True for real pixels; None: the finite ones.
    """
    images, _, radius = geometry(images, mask)
    middle = (images.shape[1] - 1) / 2
    y, x = np.unravel_index(radius.reshape(len(images), -1).argmin(1), images.shape[1:])
    return np.hypot(y - middle, x - middle)


def match_magnitudes(target: np.ndarray, pool: np.ndarray, each: int = 5) -> np.ndarray:
    """Rows of `pool` nearest in magnitude to those of `target`, `each` of them, none used twice."""
    left = np.ones(len(pool), bool)
    chosen = []
    for _ in range(each):
        for value in target:
            gap = np.where(left, np.abs(pool - value), np.inf)
            best = int(gap.argmin())
            if not np.isfinite(gap[best]):
                raise ValueError(
                    f"{len(pool)} simulated objects are too few to match {each} to each real one"
                )
            chosen.append(best)
            left[best] = False
    return np.array(chosen)


def rank_among(
    values: np.ndarray,
    magnitudes: np.ndarray,
    pool: np.ndarray,
    pool_magnitudes: np.ndarray,
    *,
    width: float = 0.25,
) -> np.ndarray:
    """Where objects stand among others of their brightness: 0 below, 1 above all, 0.5 for the typical one.

    Args:
        values: (N,) scores of the objects.
        magnitudes: (N,) of the objects.
        pool: (M,) scores of those that they are compared with.
        pool_magnitudes: (M,).
        width: compared are those within this many magnitudes.

    Returns:
        (N,) share of the compared ones that score lower, ties counted half.

    Raises:
        ValueError: An object has fewer than 20 of its brightness to be compared with.
    """
    ranks = np.empty(len(values))
    for i, (value, magnitude_i) in enumerate(zip(values, magnitudes, strict=True)):
        near = pool[np.abs(pool_magnitudes - magnitude_i) <= width]
        if len(near) < 20:
            raise ValueError(
                f"{len(near)} objects lie within {width} mag of {magnitude_i:.2f}: at least 20 are needed; "
                "compare with more objects"
            )
        ranks[i] = np.mean(near < value) + np.mean(near == value) / 2
    return ranks


def two_sample_auroc(
    real_images: np.ndarray, simulated_images: np.ndarray, *, seed: int, each: int = 5, trees: int = 300
) -> pd.Series:
    """Can a classifier tell simulated quasars from real ones? 0.5: no; 1: always.

    A random forest on the ten features of `appearance` is fitted on one half of the real images and
    their magnitude-matched simulated ones, and tested on the other half; then the halves are swapped.

    Args:
        real_images: (R, S, S) counts at zero point 27.
        simulated_images: (M, S, S), M at least `each` x R.
        seed: For the halves, the forest and the interval.
        each: Simulated images matched to a real one.
        trees: Size of the forest.

    Returns:
        The AUROC `value`, real above simulated, with its 95% bootstrap interval `low`, `high`.
    """
    real, simulated = appearance(real_images), appearance(simulated_images)
    chosen = match_magnitudes(real["magnitude"].to_numpy(), simulated["magnitude"].to_numpy(), each)
    features = pd.concat([real, simulated.iloc[chosen]]).drop(columns="magnitude")
    truth = np.arange(len(features)) < len(real)
    pairs = np.tile(np.arange(len(real)), each + 1)  # a real image and its matches are in one half
    forest = RandomForestClassifier(trees, min_samples_leaf=2, class_weight="balanced", random_state=seed)
    halves = GroupKFold(2, shuffle=True, random_state=seed)
    score = cross_val_predict(forest, features, truth, groups=pairs, cv=halves, method="predict_proba")
    score = score[:, 1]
    for _, test in halves.split(features, groups=pairs):
        score[test] = rankdata(score[test]) / len(test)  # two forests have no common scale
    return measure(score, truth, groups=pairs, seed=seed).loc["AUROC"]
