"""How well the simulation agrees with the world: features of images, shortcuts, real pixels.

Two questions are asked of features that are simple enough to be read: can any of them alone tell
lenses from ordinary objects (a shortcut that a model may take), and can all of them together tell
simulated quasars from real ones (what still gives the simulation away)?
"""

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter, uniform_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from lensq.simulate.light import magnitude

_OUTER = 18.0  # px, where the outer region begins


def _centres(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightest pixel of the smoothed central part of each image, (N,) each."""
    size = images.shape[1]
    smooth = uniform_filter(images, (0, 3, 3))
    low, high = size // 2 - size // 8, size // 2 + size // 8
    part = smooth[:, low:high, low:high].reshape(len(images), -1)
    y, x = np.unravel_index(part.argmax(1), (high - low, high - low))
    return y + low, x + low


def _geometry(images: np.ndarray, mask: np.ndarray | None):
    images = np.asarray(images, dtype=np.float64)
    mask = np.isfinite(images) if mask is None else np.asarray(mask, bool) & np.isfinite(images)
    images = np.where(mask, images, 0.0)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    cy, cx = _centres(images)
    radius = np.hypot(x - cx[:, None, None], y - cy[:, None, None])
    return images, mask, radius


def _outer(images: np.ndarray, mask: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Pixels of the outer region, NaN elsewhere, flattened to (N, pixels)."""
    far = np.minimum(_OUTER, 0.4 * images.shape[1])
    return np.where(mask & (radius > far), images, np.nan).reshape(len(images), -1)


def _robust_sigma(values: np.ndarray) -> np.ndarray:
    median = np.nanmedian(values, axis=1, keepdims=True)
    return 1.4826 * np.nanmedian(np.abs(values - median), axis=1)


def _within(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.where(chosen, images, 0).sum((1, 2))


def shortcut_features(images: np.ndarray, mask: np.ndarray | None = None) -> pd.DataFrame:
    """Simple numbers that a model might use instead of the shape.

    Args:
        images: (N, S, S) counts at zero point 27.
        mask: (N, S, S) bool, True for real pixels; None: the finite ones.

    Returns:
        One row an image: `peak` (counts of the brightest pixel of the centre), `inner_flux` (counts
        within 5 px), `ring_flux` (counts from 5 to 12 px), `border_noise` and `border_median` (robust
        sigma and median of the outermost pixels, an eighth of the side deep).
    """
    images, mask, radius = _geometry(images, mask)
    border = np.where(mask & _frame(images.shape[1]), images, np.nan).reshape(len(images), -1)
    return pd.DataFrame(
        {
            "peak": np.where(mask & (radius < 12), images, -np.inf).max((1, 2)),
            "inner_flux": _within(images, mask & (radius < 5)),
            "ring_flux": _within(images, mask & (radius >= 5) & (radius < 12)),
            "border_noise": _robust_sigma(border),
            "border_median": np.nanmedian(border, axis=1),
        }
    )


def _frame(size: int) -> np.ndarray:
    edge = np.minimum(np.arange(size), np.arange(size)[::-1]) < size // 8
    return edge[:, None] | edge


def shortcut_table(features: pd.DataFrame, is_lens: np.ndarray) -> pd.DataFrame:
    """AUROC of each feature alone, lenses against the rest; 0.5 is no shortcut.

    Args:
        features: One row an object, one column a feature; NaN rows of a feature are left out.
        is_lens: (N,) bool.

    Returns:
        Columns `feature`, `auroc`, and `low`, `high`: its 95% interval after Hanley & McNeil (1982).

    Raises:
        ValueError: Only one class is present.
    """
    is_lens = np.asarray(is_lens, bool)
    if is_lens.all() or not is_lens.any():
        raise ValueError("is_lens holds one class only: give lenses and ordinary objects")
    rows = []
    for name in features:
        values = features[name].to_numpy(float)
        good = np.isfinite(values)
        area = roc_auc_score(is_lens[good], values[good])
        half = 1.96 * _auroc_error(area, int(is_lens[good].sum()), int((~is_lens[good]).sum()))
        rows.append({"feature": name, "auroc": area, "low": area - half, "high": area + half})
    return pd.DataFrame(rows)


def _auroc_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an AUROC, Hanley & McNeil (1982), equation 1."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return float(np.sqrt(variance / (positives * negatives)))


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
        - `asymmetry`: absolute difference with the image turned by 180 degrees within 8 px, over its light
        - `neighbour`: brightest 3 x 3 px mean between 5 and 18 px, over the sky noise (log10)
        - `outer_99`: 99th percentile of the outer pixels
        - `background`: median of the outer pixels
        - `sky`: robust sigma of the outer pixels
        - `correlation`: of horizontally adjacent outer pixels, those above 3 sigma left out
    """
    images, mask, radius = _geometry(images, mask)
    outer = _outer(images, mask, radius)
    background, sky = np.nanmedian(outer, axis=1), _robust_sigma(outer)
    flat = np.where(mask, images - background[:, None, None], 0)
    total = np.maximum(_within(flat, radius < 12), 1e-6)
    smooth = uniform_filter(flat, (0, 3, 3))
    peaks = np.where((maximum_filter(smooth, (0, 3, 3)) == smooth) & (radius > 5) & (radius < 18), smooth, 0)
    return pd.DataFrame(
        {
            "magnitude": magnitude(total),
            "concentration": _within(flat, radius < 2.5) / total,
            "core": _within(flat, radius < 1.5) / np.maximum(_within(flat, radius < 4), 1e-6),
            "halo": _within(flat, (radius >= 6) & (radius < 12)) / total,
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
    images, _, radius = _geometry(images, mask)
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
    real_images: np.ndarray,
    simulated_images: np.ndarray,
    *,
    seed: int,
    each: int = 5,
    trees: int = 300,
    resamples: int = 1000,
) -> tuple[pd.Series, pd.DataFrame]:
    """Can a classifier tell simulated quasars from real ones? 0.5: no; 1: always.

    A random forest on the ten features of `appearance` is fitted on one half of the real images and
    their magnitude-matched simulated ones, and tested on the other half; then the halves are swapped.

    Args:
        real_images: (R, S, S) counts at zero point 27.
        simulated_images: (M, S, S), M at least `each` x R.
        seed: For the halves, the forest and the interval.
        each: Simulated images matched to a real one.
        trees: Size of the forest.
        resamples: Bootstrap resamples of the test objects.

    Returns:
        Two tables: `auroc` with its 95% interval `low`, `high` and the numbers `real`, `simulated`;
        and, one row a feature, the medians of both samples, the AUROC of the feature alone (real above
        simulated) and its mean importance in the forests.
    """
    rng = np.random.default_rng(seed)
    real, simulated = appearance(real_images), appearance(simulated_images)
    simulated = simulated.iloc[
        match_magnitudes(real["magnitude"].to_numpy(), simulated["magnitude"].to_numpy(), each)
    ]
    columns = [name for name in real if name != "magnitude"]
    half_real = _halves(len(real), rng)
    half_simulated = np.tile(half_real, each)
    score_real, score_simulated = np.empty(len(real)), np.empty(len(simulated))
    importances = []
    for half in (0, 1):
        fit_on = pd.concat([real[half_real != half], simulated[half_simulated != half]])[columns]
        truth = np.repeat([1, 0], [(half_real != half).sum(), (half_simulated != half).sum()])
        forest = RandomForestClassifier(
            trees, min_samples_leaf=2, class_weight="balanced", random_state=int(rng.integers(2**31))
        ).fit(fit_on, truth)
        score_real[half_real == half] = forest.predict_proba(real[half_real == half][columns])[:, 1]
        score_simulated[half_simulated == half] = forest.predict_proba(
            simulated[half_simulated == half][columns]
        )[:, 1]
        importances.append(forest.feature_importances_)
    halves = [(score_real[half_real == h], score_simulated[half_simulated == h]) for h in (0, 1)]
    draws = [
        np.mean([_area(rng.choice(a, len(a)), rng.choice(b, len(b))) for a, b in halves])
        for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    result = pd.Series(
        {
            "auroc": np.mean([_area(a, b) for a, b in halves]),
            "low": low,
            "high": high,
            "real": len(real),
            "simulated": len(simulated),
        }
    )
    features = pd.DataFrame(
        {
            "feature": columns,
            "real": real[columns].median().to_numpy(),
            "simulated": simulated[columns].median().to_numpy(),
            "auroc": [_area(real[c].to_numpy(), simulated[c].to_numpy()) for c in columns],
            "importance": np.mean(importances, axis=0),
        }
    )
    return result, features


def _halves(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.arange(n) % 2)


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    return float(roc_auc_score(np.repeat([1, 0], [len(positive), len(negative)]), np.r_[positive, negative]))
