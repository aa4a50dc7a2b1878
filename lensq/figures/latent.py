"""Figures of the latent space: training, statistics over dimensions, and the space itself."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lensq.figures import style
from lensq.statistics.guard import labelled
from lensq.statistics.latent import latent_values

_ROWS = {
    "chi2": "chi-squared",
    "cramers_v": "Cramér's V",
    "ks": "Kolmogorov-\nSmirnov",
    "welch_t": "Welch t",
    "relative_entropy": "relative\nentropy (nats)",
    "mutual_information": "mutual\ninformation (nats)",
    "difference_mu": "difference of\nmean $\\mu$",
    "difference_logvar": "difference of\nmean log $\\sigma^2$",
}
_TERMS = {"loss": "loss", "reconstruction": "reconstruction (nats)", "kl": "KL (nats)"}
_TERMS |= {"mutual_information": "mutual information (nats)", "total_correlation": "total correlation (nats)"}
_TERMS |= {"dimension_wise_kl": "dimension-wise KL (nats)", "feature": "feature loss"}
_TERMS |= {"svdd_distance": "distance from centre", "svdd": "hypersphere term"}
_TERMS |= {"cluster_kl": "KL of clusters (nats)", "balance": "imbalance (nats)"}
_TERMS["cross_entropy"] = "cross-entropy (nats)"
_AXIS = {"kl": "log10 KL (nats)", "mu": "$\\mu$", "logvar": "log $\\sigma^2$"}


def _drawn_values(scores: pd.DataFrame, statistic: str, dimensions=None) -> np.ndarray:
    values = latent_values(scores, statistic, dimensions)
    return np.log10(np.maximum(values, 1e-8)) if statistic == "kl" else values


@style.styled
def training_curves(history: pd.DataFrame) -> Figure:
    """Each term of the loss over epochs, training and validation in one panel.

    Args:
        history: columns `epoch`, `train_<term>`, `validation_<term>`; `Model.history`.
    """
    terms = [c.removeprefix("train_") for c in history.columns if c.startswith("train_")]
    terms = sorted(terms, key=lambda term: (term == "gradient_norm") - (term == "loss"))
    figure, axes = style.panels(len(terms), 3, 2.2, sharex=True)
    for axis, term in zip(axes, terms, strict=True):
        for part, colour, line in (("train", style.CYCLE[0], "-"), ("validation", style.CYCLE[1], "--")):
            if f"{part}_{term}" in history:
                values = history[f"{part}_{term}"]
                axis.plot(history["epoch"], values, line, marker=".", markersize=4, color=colour, label=part)
        axis.set_ylabel(_TERMS.get(term, style.readable(term)))
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[-3:]:
        axis.set_xlabel("epoch")
    style.shared_legend(figure, axes[0])
    return figure


@style.styled
def loss_histograms(scores: pd.DataFrame, *, against: str = "label") -> Figure:
    """Each term of the loss, object by object, ordinary against lens; densities are logarithmic.

    Args:
        scores: Scores table; the terms that the variant has are drawn, after the negative ELBO.
        against: the column that tells the classes.
    """
    rows, positive = labelled(scores, against)
    terms = {"negative ELBO (nats)": -rows["elbo"]} if "elbo" in rows else {}
    terms |= {label: rows[name] for name, label in _TERMS.items() if name in rows}
    return style.class_histograms(terms, positive)[0]


@style.styled
def dimension_rows(statistics: pd.DataFrame, chosen: Sequence[int] = ()) -> Figure:
    """Every statistic over the latent dimensions, one row each, the chosen dimensions in green.

    In the row of chi-squared a dashed line marks mean + 1.5 standard deviations.

    Args:
        statistics: table of `lensq.statistics.latent.dimension_statistics`.
        chosen: dimensions to mark.
    """
    figure, axes = style.panels(len(_ROWS), 1, 1.15, sharex=True)
    colours = [style.CHOSEN if d in set(chosen) else style.LEFT for d in statistics["dimension"]]
    for axis, (column, label) in zip(axes, _ROWS.items(), strict=True):
        axis.bar(statistics["dimension"], statistics[column], color=colours, width=0.8)
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
        axis.axhline(0, color="0.4", linewidth=0.6)
        if column == "chi2":
            bar = statistics[column].mean() + 1.5 * statistics[column].std(ddof=0)
            axis.axhline(bar, color="0.3", linestyle="--", linewidth=1)
    axes[-1].set(xlabel="latent dimension", xlim=(-0.7, len(statistics) - 0.3))
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels(axes)
    return figure


@style.styled
def box_plots(scores: pd.DataFrame, statistic: str = "mu", *, against: str = "label") -> Figure:
    """Ordinary and lens side by side in each dimension: median, quartiles, 5% and 95%.

    Args:
        scores: Scores table.
        statistic: `mu`, `logvar` or `kl`.
        against: the column that tells the classes.
    """
    rows, positive = labelled(scores, against)
    values = _drawn_values(rows, statistic)
    dimensions = np.arange(values.shape[1])
    look = {"widths": 0.34, "whis": (5, 95), "showfliers": False, "patch_artist": True, "manage_ticks": False}
    figure, axes = style.panels(-(-len(dimensions) // 32), 1, 2.4, sharey=True)
    for place, axis in zip(np.array_split(dimensions, len(axes)), axes, strict=True):
        for name, members, shift in (("ordinary", ~positive, -0.2), ("lens", positive, 0.2)):
            colour = {"color": style.COLOURS[name]}
            look |= {"whiskerprops": colour, "capprops": colour, "medianprops": {"color": "black"}}
            look["boxprops"] = {"facecolor": style.COLOURS[name], "edgecolor": "none", "alpha": 0.75}
            label = f"{name} ({members.sum():,})"
            axis.boxplot(values[np.ix_(members, place)], positions=place + shift, label=label, **look)
        axis.set(ylabel=_AXIS[statistic], xlim=(place[0] - 0.7, place[-1] + 0.7))
        axis.set_xticks(place, place)
        axis.tick_params(axis="x", labelsize=8.5 if len(place) <= 24 else 6.5)
        axis.grid(False, axis="x")
    axes[-1].set_xlabel("latent dimension")
    style.shared_legend(figure, axes[0])
    return figure


@style.styled
def dimension_histograms(
    scores: pd.DataFrame, dimensions: Sequence[int], statistic: str = "kl", *, against: str = "label"
) -> Figure:
    """Histograms of one statistic in chosen dimensions, ordinary against lens.

    Args:
        scores: Scores table.
        dimensions: which, a panel each.
        statistic: `kl`, `mu` or `logvar`.
        against: the column that tells the classes.
    """
    rows, positive = labelled(scores, against)
    values = _drawn_values(rows, statistic, dimensions)
    labels = [f"{_AXIS[statistic]}, dimension {dimension}" for dimension in dimensions]
    return style.class_histograms(dict(zip(labels, values.T, strict=True)), positive)[0]


@style.styled
def kl_by_rank(
    scores: pd.DataFrame, statistics: pd.DataFrame, *, n: int = 5, against: str = "label"
) -> Figure:
    """Mean KL over the n lowest, middle, highest, and all but the highest dimensions by chi-squared.

    Args:
        scores: Scores table.
        statistics: table of `lensq.statistics.latent.dimension_statistics`.
        n: dimensions in a group; at most a third of them.
        against: the column that tells the classes.
    """
    rows, positive = labelled(scores, against)
    order = statistics.sort_values("chi2", kind="stable")["dimension"].to_numpy()
    n = max(1, min(n, len(order) // 3))
    middle = (len(order) - n) // 2
    groups = {f"{n} lowest": order[:n], f"{n} middle": order[middle : middle + n]}
    groups |= {f"{n} highest": order[-n:], f"all but {n} highest": order[:-n]}
    means = {name: latent_values(rows, "kl", members).mean(axis=1) for name, members in groups.items()}
    drawn = {f"log10 mean KL (nats), {name}": np.log10(np.maximum(m, 1e-8)) for name, m in means.items()}
    return style.class_histograms(drawn, positive, 2)[0]


@style.styled
def stability_rows(stability: pd.DataFrame) -> Figure:
    """How often each dimension is chosen, a row a number of anomalies; dots mark the choice on all objects.

    Args:
        stability: table of `lensq.statistics.latent.choice_stability`.
    """
    table = stability.pivot(index="n_anomalies", columns="dimension", values="frequency")
    agreement = stability.groupby("n_anomalies")["agreement"].first()
    figure, (axis,) = style.panels(1, 1, 0.8 + 0.42 * len(table))
    drawn = axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    chosen = sorted(stability.loc[stability["chosen"], "dimension"].unique())
    for row in range(len(table)):
        axis.plot(chosen, np.full(len(chosen), row), "o", color=style.LENS, markersize=4)
    labels = [f"{n:,} (agreement {agreement[n]:.2f})" for n in table.index]
    axis.set_yticks(range(len(table)), labels)
    axis.set(xlabel="latent dimension", ylabel="anomalies")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(False)
    figure.colorbar(drawn, ax=axis, label="share of resamples", pad=0.01)
    return figure


@style.styled
def latent_map(*maps: pd.DataFrame, titles: Sequence[str] = ()) -> Figure:
    """Joint t-SNE maps side by side, lenses drawn over ordinary objects. The axes have no unit.

    Where the maps know classes, the four commonest of ordinary objects have colours of their own.

    Args:
        *maps: tables of `lensq.statistics.latent.joint_map`.
        titles: what each is a map of, for more than one.
    """
    several = len(maps) > 1
    figure, axes = style.panels(len(maps), 3 if len(maps) > 2 else 2, 2.8 if several else 5.5)
    commonest = []
    if all("class" in table for table in maps):
        classes = pd.concat([table.loc[~table["positive"], "class"] for table in maps])
        commonest = classes.value_counts().index[:4].tolist()
    unlike_lenses = [style.CYCLE[i] for i in (2, 3, 5, 6)]
    colours = style.COLOURS | dict(zip(commonest, unlike_lenses, strict=False))
    for i, (axis, table) in enumerate(zip(axes, maps, strict=True)):
        kind = table["class"].where(table["class"].isin(commonest), "ordinary") if commonest else "ordinary"
        kind = pd.Series(kind, table.index).mask(table["positive"], "lens")
        for name in ("ordinary", *commonest, "lens"):
            x, y = table.loc[kind == name, ["x", "y"]].to_numpy().T
            called = "other" if commonest and name == "ordinary" else name.replace("_", " and ")
            label = f"{called} ({len(x):,})"
            look = {"alpha": 0.6, "linewidths": 0, "label": label}
            axis.scatter(x, y, 9 if name == "lens" else 5, colours[name], **look)
        axis.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        axis.set_aspect("equal", adjustable="datalim")
        if titles:
            axis.set_title(titles[i])
    style.shared_legend(figure, axes[0], columns=4, markerscale=2.5)
    return figure
