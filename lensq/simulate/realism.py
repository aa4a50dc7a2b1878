"""Shortcuts: which simple numbers of an image alone tell lenses from ordinary objects."""

import numpy as np
import pandas as pd
from astropy.stats import mad_std
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score


def geometry(images: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, S, S), 0 where masked; the mask; and each pixel's distance in px from the object.

    The object is at the brightest pixel of the smoothed central part.
    """
    images = np.asarray(images, dtype=np.float64)
    mask = np.isfinite(images) if mask is None else np.asarray(mask, bool) & np.isfinite(images)
    images = np.where(mask, images, 0.0)
    size = images.shape[1]
    low, high = size // 2 - size // 8, size // 2 + size // 8
    part = uniform_filter(images, (0, 3, 3))[:, low:high, low:high].reshape(len(images), -1)
    cy, cx = np.unravel_index(part.argmax(1)[:, None, None], (high - low, high - low))
    y, x = np.mgrid[:size, :size] - low
    return images, mask, np.hypot(x - cx, y - cy)


def light_within(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Sum of the chosen pixels of each image: (N,)."""
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
    images, mask, radius = geometry(images, mask)
    side = np.arange(images.shape[1])
    edge = np.minimum(side, side[::-1]) < len(side) // 8
    border = np.where(mask & (edge[:, None] | edge), images, np.nan).reshape(len(images), -1)
    return pd.DataFrame(
        {
            "peak": np.where(mask & (radius < 12), images, -np.inf).max((1, 2)),
            "inner_flux": light_within(images, mask & (radius < 5)),
            "ring_flux": light_within(images, mask & (radius >= 5) & (radius < 12)),
            "border_noise": mad_std(border, axis=1, ignore_nan=True),
            "border_median": np.nanmedian(border, axis=1),
        }
    )


def shortcut_table(features: pd.DataFrame, is_lens: np.ndarray) -> pd.DataFrame:
    """AUROC of each feature alone, lenses against ordinary objects; 0.5 is no shortcut.

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
