"""Do two samples come from one distribution? Tests and measures on counts and on values.

Everything works on many latent dimensions, or many bootstrap resamples, at once.
"""

import numpy as np
from scipy import special, stats

_LEAST_EXPECTED = 5.0


def pool_sparse_bins(normal: np.ndarray, anomaly: np.ndarray, least: float = _LEAST_EXPECTED):
    """Merge neighbouring bins until both classes expect at least `least` objects in each.

    Bins are merged from the lowest upwards, a remainder joins the last full bin. Only the sums over the
    classes decide, so the pooling does not look at the difference that is to be tested.

    Args:
        normal: (..., K) counts of normals.
        anomaly: (..., K) counts of anomalies.
        least: the smallest expected count.

    Returns:
        The two count arrays of the same shape, with each merged group in one place and zeros elsewhere, and
        (...) the number of bins left.
    """
    both = normal + anomaly
    total = both.sum(axis=-1, keepdims=True)
    rarer = np.minimum(normal.sum(axis=-1), anomaly.sum(axis=-1))[..., None]
    expected = both * np.divide(rarer, total, out=np.zeros_like(total), where=total > 0)
    group = np.zeros(both.shape, np.int64)
    current = np.zeros(both.shape[:-1], np.int64)
    held = np.zeros(both.shape[:-1])
    for k in range(both.shape[-1]):
        group[..., k] = current
        held = held + expected[..., k]
        full = held >= least * (1 - 1e-9)
        current = current + full
        held = np.where(full, 0.0, held)
    number = np.maximum(current, 1)
    group = np.minimum(group, number[..., None] - 1)
    pooled = []
    for counts in (normal, anomaly):
        merged = np.zeros_like(counts)
        for k in range(counts.shape[-1]):
            np.put_along_axis(
                merged,
                group[..., k : k + 1],
                np.take_along_axis(merged, group[..., k : k + 1], -1) + counts[..., k : k + 1],
                -1,
            )
        pooled.append(merged)
    return pooled[0], pooled[1], number


def two_sample_chi_squared(normal: np.ndarray, anomaly: np.ndarray):
    """Chi-squared test that two samples of counts come from one distribution.

    Pearson's statistic of the 2 x K contingency table (Press et al. 2007, Numerical Recipes, eq. 14.3.3),
    after `pool_sparse_bins`.

    Args:
        normal: (..., K) counts.
        anomaly: (..., K) counts.

    Returns:
        chi-squared, degrees of freedom (bins left - 1), p-value and Cramer's V, each of shape (...). With
        one bin left nothing can be said: chi-squared 0, p-value 1, V 0.
    """
    normal, anomaly, number = pool_sparse_bins(np.asarray(normal, float), np.asarray(anomaly, float))
    n, m = normal.sum(axis=-1, keepdims=True), anomaly.sum(axis=-1, keepdims=True)
    both = normal + anomaly
    difference = np.sqrt(m / n) * normal - np.sqrt(n / m) * anomaly
    chi2 = np.divide(difference**2, both, out=np.zeros_like(both), where=both > 0).sum(axis=-1)
    chi2 = np.where(number > 1, chi2, 0.0)
    dof = number - 1
    p = np.where(dof > 0, stats.chi2.sf(chi2, np.maximum(dof, 1)), 1.0)
    return chi2, dof, p, np.sqrt(chi2 / (n + m)[..., 0])


def welch_t(values: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welch's t of anomalies minus normals and its two-sided p-value, by dimension; 0 and 1 if constant."""
    a, b = values[positive], values[~positive]
    va, vb = a.var(axis=0, ddof=1) / len(a), b.var(axis=0, ddof=1) / len(b)
    varies = va + vb > 0
    error = np.where(varies, va + vb, 1.0)
    t = np.where(varies, (a.mean(axis=0) - b.mean(axis=0)) / np.sqrt(error), 0.0)
    dof = error**2 / np.maximum(va**2 / (len(a) - 1) + vb**2 / (len(b) - 1), np.finfo(float).tiny)
    return t, np.where(varies, 2 * stats.t.sf(np.abs(t), dof), 1.0)


def information(normal: np.ndarray, anomaly: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relative entropy of anomalies from normals, and mutual information of bin and class, in nats.

    Relative entropy adds half a count to each bin that holds an object, so that it stays finite.
    """
    used = (normal + anomaly) > 0
    p, q = (normal + 0.5) * used, (anomaly + 0.5) * used
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    joint = np.stack([normal, anomaly]) / (normal + anomaly).sum(axis=-1, keepdims=True)
    marginal = joint.sum(axis=0) * joint.sum(axis=-1, keepdims=True)
    return special.rel_entr(q, p).sum(axis=-1), special.rel_entr(joint, marginal).sum(axis=(0, -1))
