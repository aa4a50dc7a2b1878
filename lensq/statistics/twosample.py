"""Do two samples come from one distribution? Tests and measures on counts and on values.

Everything works on many latent dimensions, or many bootstrap resamples, at once.
"""

import warnings

import numpy as np
from scipy import special, stats

_LEAST_EXPECTED = 5.0


def sparse_bin_groups(reference: np.ndarray, size: int) -> np.ndarray:
    """Which neighbouring bins to merge so that a sample expects at least 5 objects in each.

    Bins are merged from the lowest upwards, and a remainder joins the last full bin. What is expected
    follows from the reference sample alone, so that the merging never looks at the sample under test.

    Args:
        reference: (..., K) counts of the reference sample.
        size: number of objects in the smaller sample.

    Returns:
        (..., K) number of the group of each bin, 0, 1, 2, ...
    """
    expected = size * reference / np.maximum(reference.sum(axis=-1, keepdims=True), 1)
    groups = np.zeros(reference.shape, np.int64)
    current = np.zeros(reference.shape[:-1], np.int64)
    held = np.zeros(reference.shape[:-1])
    for k in range(reference.shape[-1]):
        groups[..., k] = current
        held = held + expected[..., k]
        full = held >= _LEAST_EXPECTED * (1 - 1e-9)
        current = current + full
        held = np.where(full, 0.0, held)
    return np.minimum(groups, np.maximum(current - 1, 0)[..., None])


def merge_bins(counts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Counts (..., K) summed over groups (..., K), which broadcast: (..., K), zero beyond the last group."""
    return np.einsum("...k,...kg->...g", counts, groups[..., None] == np.arange(counts.shape[-1]))


def two_sample_chi_squared(normal: np.ndarray, anomaly: np.ndarray):
    """Chi-squared test that two samples of counts come from one distribution.

    Pearson's statistic of the 2 x K contingency table (Press et al. 2007, Numerical Recipes, eq. 14.3.3).
    Bins that are empty in both samples do not count.

    Args:
        normal: (..., K) counts, not all zero.
        anomaly: (..., K) counts, not all zero.

    Returns:
        chi-squared, degrees of freedom (bins - 1), p-value and Cramer's V, each of shape (...). With one bin
        nothing can be said: chi-squared 0, p-value 1, V 0.
    """
    normal, anomaly = np.asarray(normal, float), np.asarray(anomaly, float)
    n, m = normal.sum(axis=-1, keepdims=True), anomaly.sum(axis=-1, keepdims=True)
    both = normal + anomaly
    difference = np.sqrt(m / n) * normal - np.sqrt(n / m) * anomaly
    chi2 = np.divide(difference**2, both, out=np.zeros_like(both), where=both > 0).sum(axis=-1)
    dof = np.count_nonzero(both, axis=-1) - 1
    chi2 = np.where(dof > 0, chi2, 0.0)  # rounding leaves about 1e-31
    p = np.where(dof > 0, stats.chi2.sf(chi2, np.maximum(dof, 1)), 1.0)
    return chi2, dof, p, np.sqrt(chi2 / (n + m)[..., 0])


def welch_t(values: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welch's t-test for samples of unequal variance (Welch 1947), column by column.

    Args:
        values: (N, D).
        positive: (N,) bool, at least two of each kind.

    Returns:
        (D,) t of positives minus negatives and (D,) two-sided p-value; 0 and 1 where a column is constant.
    """
    t, p = np.zeros(values.shape[1]), np.ones(values.shape[1])
    varies = np.ptp(values, axis=0) > 0
    classes = values[positive][:, varies], values[~positive][:, varies]
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # constant in one class
        t[varies], p[varies] = stats.ttest_ind(*classes, equal_var=False)
    return t, p


def information(normal: np.ndarray, anomaly: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a bin tells about the class, in nats.

    Args:
        normal: (..., K) counts.
        anomaly: (..., K) counts.

    Returns:
        Relative entropy (Kullback-Leibler divergence) of anomalies from the ordinary, with half a count added
        to each bin that holds an object, so that it stays finite; and mutual information of bin and class.
        Each of shape (...).
    """
    used = normal + anomaly > 0
    p, q = (normal + 0.5) * used, (anomaly + 0.5) * used
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    joint = np.stack([normal, anomaly]) / (normal + anomaly).sum(axis=-1, keepdims=True)
    marginal = joint.sum(axis=0) * joint.sum(axis=-1, keepdims=True)
    return special.rel_entr(q, p).sum(axis=-1), special.rel_entr(joint, marginal).sum(axis=(0, -1))
