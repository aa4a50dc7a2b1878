"""Which latent dimensions are discriminative: they differ between anomalies and ordinary objects.

For each latent dimension the values of one statistic of the posterior (its KL divergence from the prior,
its mean or its log variance) are compared between ordinary objects and anomalies: a two-sample chi-squared
test on counts, with what it needs to be read rightly (degrees of freedom, p-value, q-value of Benjamini and
Hochberg, effect size), and other measures of difference beside it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse, stats
from sklearn.manifold import TSNE

from lensq.statistics import twosample
from lensq.statistics.guard import labelled, require_split
from lensq.statistics.metrics import resampled_counts

STATISTICS = ("kl", "mu", "logvar")
RULES = ("mean+1.5sd", "bh", "top")
_SMALLEST_KL = 1e-8  # nats; keeps the logarithm of a collapsed dimension finite


def latent_dimensions(scores: pd.DataFrame) -> int:
    """Number of latent dimensions of a Scores table: its columns `mu_0`, `mu_1`, ...

    Raises:
        ValueError: if the table has none.
    """
    number = sum(name.startswith("mu_") and name[3:].isdigit() for name in scores.columns)
    if not number:
        raise ValueError("no latent columns mu_0, mu_1, ... in the scores; score with a VAE first")
    return number


def latent_values(
    scores: pd.DataFrame, statistic: str = "kl", dimensions: Sequence[int] | None = None
) -> np.ndarray:
    """One statistic of the posterior as a matrix.

    Args:
        scores: Scores table of N objects.
        statistic: `kl` (nats), `mu` or `logvar`.
        dimensions: which dimensions, in this order; all of them by default.

    Returns:
        (N, D) float64.

    Raises:
        ValueError: if the statistic is unknown, or a column is missing or not finite.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic {statistic!r} is none of {', '.join(STATISTICS)}")
    dimensions = range(latent_dimensions(scores)) if dimensions is None else dimensions
    return finite_columns(scores, [f"{statistic}_{d}" for d in dimensions])


def finite_columns(scores: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Columns of a Scores table as (N, K) float64; ValueError where one is not there or not finite."""
    if missing := [name for name in columns if name not in scores]:
        raise ValueError(f"the scores lack the columns {', '.join(missing)}")
    values = scores[list(columns)].to_numpy(np.float64)
    if bad := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"{bad} values of {', '.join(columns[:4])} are not finite; score the objects again")
    return values


def compared_values(scores: pd.DataFrame, statistic: str) -> np.ndarray:
    """`latent_values` as dimensions are compared by them: of the KL divergence the natural logarithm."""
    values = latent_values(scores, statistic)
    return np.log(np.maximum(values, _SMALLEST_KL)) if statistic == "kl" else values


def bin_numbers(values: np.ndarray, reference: np.ndarray, bins: int) -> np.ndarray:
    """(N, D) values to (N, D) bin numbers, edges at the quantiles of each column of the (R, D) reference."""
    edges = np.quantile(reference, np.arange(1, bins) / bins, axis=0)
    numbers = [np.searchsorted(np.unique(e), v, side="right") for e, v in zip(edges.T, values.T, strict=True)]
    return np.stack(numbers, axis=1)


def _counts(numbers: np.ndarray, bins: int, weights: np.ndarray) -> np.ndarray:
    """Weighted counts by bin: numbers (N, D), weights (B, N) to (B, D, bins)."""
    n, d = numbers.shape
    columns = (numbers + np.arange(d) * bins).ravel()
    entries = np.ones(n * d, np.float32), columns, np.arange(0, n * d + 1, d)
    indicator = sparse.csr_array(entries, shape=(n, d * bins))
    return np.asarray(weights @ indicator, np.float64).reshape(len(weights), d, bins)


def dimension_statistics(
    scores: pd.DataFrame, statistic: str = "kl", *, against: str = "label", bins: int = 20
) -> pd.DataFrame:
    """How much each latent dimension differs between ordinary objects and anomalies.

    Args:
        scores: Scores table, rows of the selection split only.
        statistic: `kl` (compared as its natural logarithm), `mu` or `logvar`.
        against: the column of the classes, see `lensq.statistics.guard.labelled`.
        bins: number of bins, with edges at quantiles of the ordinary objects, before neighbours are pooled
            until the rarer class expects at least 5 objects in each (with fewer than 10 one bin is left, and
            the test finds nothing).

    Returns:
        One row a latent dimension: `dimension`; `chi2`, `dof`, `p`, `q` (p adjusted by Benjamini and
        Hochberg 1995 over the dimensions), `cramers_v`; `ks`, `ks_p` (two-sample Kolmogorov-Smirnov);
        `welch_t`, `welch_p` (anomalies minus the ordinary); `relative_entropy` (of anomalies from
        the ordinary, nats); `mutual_information` (of bin and class, nats); `difference_mu`,
        `difference_logvar` (means of anomalies minus means of the ordinary); `n_normals`, `n_anomalies`.

    Raises:
        LeakageError: if a row is not of the selection split.
        ValueError: if a class has fewer than two objects, or see `latent_values`.
    """
    require_split(scores, "selection", purpose="dimension_statistics")
    rows, positive = labelled(scores, against)
    if min(positive.sum(), (~positive).sum()) < 2:
        raise ValueError("dimension_statistics needs at least two objects of each class")
    values = compared_values(rows, statistic)
    weights = np.stack([~positive, positive]).astype(np.float32)
    counts = _counts(bin_numbers(values, values[~positive], bins), bins, weights)
    groups = twosample.sparse_bin_groups(counts[0], min(weights.sum(axis=1)))
    normal, anomaly = twosample.merge_bins(counts, groups)
    chi2, dof, p, cramers_v = twosample.two_sample_chi_squared(normal, anomaly)
    table = pd.DataFrame({"dimension": np.arange(values.shape[1]), "chi2": chi2, "dof": dof, "p": p})
    table = table.assign(q=stats.false_discovery_control(p), cramers_v=cramers_v)
    table["ks"], table["ks_p"] = stats.ks_2samp(values[positive], values[~positive], method="asymp")
    table["welch_t"], table["welch_p"] = twosample.welch_t(values, positive)
    table["relative_entropy"], table["mutual_information"] = twosample.information(normal, anomaly)
    for name in ("mu", "logvar"):
        own = latent_values(rows, name)
        table[f"difference_{name}"] = own[positive].mean(axis=0) - own[~positive].mean(axis=0)
    return table.assign(n_normals=np.count_nonzero(~positive), n_anomalies=np.count_nonzero(positive))


def null_p_values(
    scores: pd.DataFrame,
    statistic: str = "kl",
    *,
    against: str = "label",
    bins: int = 20,
    repeats: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """The tests on two halves of the ordinary objects, where there is nothing to find.

    Args:
        scores: Scores table, rows of the selection split only.
        statistic: see `dimension_statistics`, likewise `against` and `bins`.
        repeats: how often the ordinary objects are halved.
        seed: seed of the halving.

    Returns:
        One row a repeat and dimension: `repeat` and the columns of `dimension_statistics`.

    Raises:
        LeakageError: if a row is not of the selection split.
    """
    require_split(scores, "selection", purpose="null_p_values")
    rows, positive = labelled(scores, against)
    ordinary, rng = rows[~positive], np.random.default_rng(seed)
    tables = {}
    for repeat in range(repeats):
        halves = ordinary.assign(**{against: rng.permutation(len(ordinary)) % 2})
        tables[repeat] = dimension_statistics(halves, statistic, against=against, bins=bins)
    return pd.concat(tables, names=["repeat"]).reset_index("repeat").reset_index(drop=True)


def _chosen(
    strength, q, effect, rule: str = "top", *, n: int = 5, alpha: float = 0.05, least_effect: float = 0.0
) -> np.ndarray:
    """Which dimensions a rule of `choose_dimensions` takes: (..., D) arrays to a (..., D) mask."""
    if rule == "mean+1.5sd":
        bar = strength.mean(axis=-1, keepdims=True) + 1.5 * strength.std(axis=-1, keepdims=True)
        return strength > bar
    if rule == "bh":
        return (q <= alpha) & (effect >= least_effect)
    if rule == "top":
        rank = np.argsort(np.argsort(-strength, axis=-1, kind="stable"), axis=-1)
        return rank < n
    raise ValueError(f"rule {rule!r} is none of {', '.join(RULES)}")


def choose_dimensions(
    statistics: pd.DataFrame, rule: str = "top", *, by: str = "chi2", **options
) -> tuple[int, ...]:
    """Choose the discriminative dimensions from a table of `dimension_statistics`.

    Args:
        statistics: table of `dimension_statistics`.
        rule: `mean+1.5sd`, more than 1.5 standard deviations above the mean over dimensions (the reference
            study's rule); `bh`, q-value at most `alpha` and Cramer's V at least `least_effect`; `top`, the
            `n` highest.
        by: the column that orders the dimensions (its absolute value), and that the first and the last
            rule look at.
        **options: `n`, how many for `top` (5); for `bh` `alpha`, false discovery rate among the dimensions
            (0.05), and `least_effect`, smallest Cramer's V (0): with thousands of objects every difference is
            significant, and few are large.

    Returns:
        Dimension numbers, the most discriminative first; may be empty for the first two rules.

    Raises:
        ValueError: if the rule is unknown.
    """
    strength = statistics[by].abs().to_numpy()
    mask = _chosen(strength, statistics["q"], statistics["cramers_v"], rule, **options)
    order = np.argsort(-strength, kind="stable")
    return tuple(statistics["dimension"].to_numpy()[order[mask[order]]].tolist())


def choice_stability(
    scores: pd.DataFrame,
    statistic: str = "kl",
    *,
    against: str = "label",
    bins: int = 20,
    anomalies: Sequence[int] = (10, 30, 100),
    resamples: int = 200,
    seed: int = 0,
    **rule,
) -> pd.DataFrame:
    """How often each dimension is chosen when the objects are drawn anew, with few and with all anomalies.

    Both classes are resampled with replacement. Bin edges stay those of all ordinary objects.

    Args:
        scores: Scores table, rows of the selection split only.
        statistic: see `dimension_statistics`, likewise `against` and `bins`.
        anomalies: how many anomalies a resample has; numbers beyond what there is are left out, and all
            there are comes last.
        resamples: resamples for each number of anomalies.
        seed: seed of the draws.
        **rule: `rule`, `n`, `alpha` and `least_effect` of `choose_dimensions`.

    Returns:
        One row a number of anomalies and dimension: `n_anomalies`, `dimension`, `frequency` (share of
        resamples that chose it), `chosen` (chosen with all objects as they are), `agreement` (mean Jaccard
        index of the resamples' choices with that choice; one value for each number of anomalies).

    Raises:
        LeakageError: if a row is not of the selection split.
    """
    require_split(scores, "selection", purpose="choice_stability")
    rows, positive = labelled(scores, against)
    values = compared_values(rows, statistic)
    numbers = bin_numbers(values, values[~positive], bins)
    classes = [numbers[~positive], numbers[positive]]
    counts = [_counts(part, bins, np.ones((1, len(part)), np.float32)) for part in classes]
    whole = _chosen(*_evidence(*counts, counts[0][0], len(classes[1])), **rule)[0]
    rng = np.random.default_rng(seed)
    tables = []
    for size in [*(a for a in anomalies if a < len(classes[1])), len(classes[1])]:
        pairs = zip(classes, (len(classes[0]), size), strict=True)
        drawn = [_counts(part, bins, resampled_counts(len(part), n, resamples, rng)) for part, n in pairs]
        chi2, q, effect = _evidence(*drawn, counts[0][0], size)
        picked = _chosen(chi2 + 1e-9 * rng.random(chi2.shape), q, effect, **rule)  # ties in random order
        union = (picked | whole).sum(axis=1)
        jaccard = np.where(union > 0, (picked & whole).sum(axis=1) / np.maximum(union, 1), 1.0)
        table = pd.DataFrame({"dimension": range(len(whole)), "frequency": picked.mean(axis=0)})
        tables.append(table.assign(chosen=whole, agreement=jaccard.mean(), n_anomalies=size))
    table = pd.concat(tables, ignore_index=True)
    return table[["n_anomalies", "dimension", "frequency", "chosen", "agreement"]]


def _evidence(normal, anomaly, reference, size: int):
    """Chi-squared, q and Cramer's V (B, D) of counts (B, D, bins), merged by what `size` objects expect."""
    groups = twosample.sparse_bin_groups(reference, min(int(normal[0, 0].sum()), size))
    merged = (twosample.merge_bins(c, groups) for c in (normal, anomaly))
    chi2, _, p, effect = twosample.two_sample_chi_squared(*merged)
    return chi2, stats.false_discovery_control(p, axis=-1), effect


def joint_map(
    scores: pd.DataFrame,
    statistic: str = "mu",
    *,
    against: str = "label",
    n_normals: int = 1500,
    n_anomalies: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """One t-SNE map of ordinary objects and anomalies together (van der Maaten and Hinton 2008).

    Its perplexity, the effective number of neighbours, is 30, or a third of the objects if that is less.

    A map fitted for each class apart could not be compared; here both classes lie in the same plane.

    Args:
        scores: Scores table.
        statistic: `mu`, `logvar` or `kl` (as its logarithm); each dimension is standardised.
        against: the column of the classes.
        n_normals: at most this many ordinary objects, drawn without replacement.
        n_anomalies: at most this many anomalies.
        seed: seed of the draw and of t-SNE.

    Returns:
        One row an object: `name`, `positive`, `x`, `y` (no units), and `class` where the scores have it.
    """
    rows, positive = labelled(scores, against)
    rng = np.random.default_rng(seed)
    ordinary = rng.permutation(np.flatnonzero(~positive))[:n_normals]
    kept = np.sort(np.r_[ordinary, rng.permutation(np.flatnonzero(positive))[:n_anomalies]])
    values = compared_values(rows.iloc[kept], statistic)
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    perplexity = min(30.0, max((len(kept) - 1) / 3, 1.0))
    embedding = TSNE(perplexity=perplexity, random_state=seed).fit_transform(values)
    table = rows.iloc[kept].filter(["name", "class"]).reset_index(drop=True).assign(positive=positive[kept])
    return table.assign(x=embedding[:, 0], y=embedding[:, 1])
