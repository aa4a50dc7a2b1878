"""Figures show the numbers of their tables, in the right colours, with labels and units."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from matplotlib.colors import same_color, to_hex
from tables import scores_table
from toy import toy_survey

from lensq import figures
from lensq.detection.completeness import completeness_curve, completeness_map, share_by_class
from lensq.detection.conformal import fdr_study
from lensq.detection.detectors import Detector, choose_detector, compare_detectors, threshold_curves
from lensq.statistics.latent import choice_stability, dimension_statistics, joint_map, latent_values
from lensq.statistics.metrics import precision_at

ORDINARY, LENS = figures.COLOURS["ordinary"], figures.COLOURS["lens"]


@pytest.fixture(scope="module")
def scores():
    return scores_table(600, 120, shifts={1: 2.0, 4: 1.0}, split="selection")


@pytest.fixture(scope="module")
def statistics(scores):
    return dimension_statistics(scores)


@pytest.fixture(scope="module")
def cutouts():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 12
    images = rng.normal(0, 0.05, (12, 24, 24)) + 4 * np.exp(-(x**2 + y**2) / 6)
    mask = np.ones(images.shape, bool)
    mask[2, :4] = False
    return np.where(mask, images, 0).astype(np.float32), mask


def axes_of(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def shown(axis):
    (picture,) = axis.get_images()
    return picture.get_array()


def stairs(axis):
    return {to_hex(s.get_edgecolor()): s.get_data() for s in axis.patches if hasattr(s, "get_data")}


# Cutouts


def test_stretch_ignores_sky_unit_and_what_is_masked(cutouts):
    images, mask = cutouts
    first = figures.stretch(images, mask)
    assert np.isnan(first[~mask]).all()
    assert np.nanmin(first) >= 0
    assert np.allclose(np.nanmax(first, axis=(1, 2)), 1)
    assert np.allclose(first, figures.stretch(7 * images + 30, mask), atol=1e-5, equal_nan=True)
    assert np.allclose(first, figures.stretch(np.where(mask, images, 1e9), mask), equal_nan=True)


def test_stretch_keeps_the_order_of_fluxes_and_leaves_noise_dark(cutouts):
    images, _ = cutouts
    picture = figures.stretch(images[:1])[0]
    order = np.argsort(images[0].ravel())
    assert (np.diff(picture.ravel()[order]) >= -1e-12).all()
    sky = figures.stretch(np.random.default_rng(1).normal(5, 0.1, (1, 24, 24)))[0]
    assert np.median(sky) < 0.5
    assert np.isfinite(figures.stretch(np.full((1, 9, 9), 3.0))).all()
    assert np.isnan(figures.stretch(images[:1], np.zeros((1, 24, 24), bool))).all()


def test_gallery_shows_each_cutout_and_a_scale(cutouts):
    images, mask = cutouts
    axes = axes_of(figures.gallery(images[:5], mask=mask[:5], columns=3, pixel_scale=0.168))
    expected = figures.stretch(images[:5], mask[:5])
    for axis, picture in zip(axes, expected, strict=True):
        assert np.allclose(shown(axis).filled(np.nan), picture, equal_nan=True)
        assert shown(axis).mask.sum() == np.isnan(picture).sum()
    (bar,) = axes[0].get_lines()
    assert np.ptp(bar.get_xdata()) * 0.168 == pytest.approx(2)
    assert axes[0].texts[0].get_text() == '2"'


def test_the_scale_bar_follows_the_scale_and_is_left_out_without_one(cutouts, tmp_path):
    survey = replace(toy_survey(tmp_path, 4, 24), resized=True, native_side=48)  # of 24 px
    assert survey.pixel_scale == pytest.approx(0.168 * 48 / survey.size)
    for draw in (figures.gallery, lambda images, **how: figures.class_gallery(images, ["a"] * 4, **how)):
        (bar,) = axes_of(draw(cutouts[0][:4], pixel_scale=survey.pixel_scale))[0].get_lines()
        assert np.ptp(bar.get_xdata()) * survey.pixel_scale == pytest.approx(2)
        assert not axes_of(draw(cutouts[0][:4]))[0].get_lines()


HOSTILE = ["<img src=x onerror=alert(1)>", "a&b", "it's", 'quote"quote', "$\\frac{1}{$", "50%_^{"]


@pytest.mark.slow
def test_names_are_shown_as_they_are_and_never_as_mathematics(cutouts):
    images = cutouts[0][: len(HOSTILE)]
    axes = axes_of(figures.reconstruction_grid(images, images, captions=HOSTILE))[: len(HOSTILE)]
    assert [axis.get_title() for axis in axes] == HOSTILE
    assert not any(axis.title.get_parse_math() for axis in axes)
    labels = [axis.get_ylabel() for axis in axes_of(figures.class_gallery(images, HOSTILE, columns=1))]
    assert [label.replace("\n", " ") for label in labels] == [name.replace("_", " ") for name in HOSTILE]


def test_class_gallery_has_a_row_a_class(cutouts):
    images, _ = cutouts
    classes = ["star_star"] * 2 + ["lens"] * 5 + ["star_star"] * 5
    axes = axes_of(figures.class_gallery(images, classes, columns=4))
    labels = [axis.get_ylabel() for axis in axes if axis.get_ylabel()]
    assert labels == ["star\nstar", "lens"]
    expected = figures.stretch(images)[[0, 1, 7, 8, 2, 3, 4, 5]]
    assert len(axes) == 8
    for axis, picture in zip(axes, expected, strict=True):
        assert np.allclose(shown(axis), picture)


@pytest.mark.slow
def test_residuals_are_input_less_reconstruction(cutouts):
    images, mask = cutouts[0][:3], cutouts[1][:3]
    drawn = images * 0.8
    figure = figures.reconstruction_grid(images, drawn, mask=mask, captions=["x", "y", "z"])
    axes = axes_of(figure)
    assert [axis.get_ylabel() for axis in axes[::3]] == ["input", "reconstruction", "residual"]
    assert [axis.get_title() for axis in axes[:3]] == ["x", "y", "z"]
    for i, axis in enumerate(axes[6:]):
        assert np.allclose(shown(axis)[mask[i]], (images[i] - drawn[i])[mask[i]])
        low, high = axis.get_images()[0].get_clim()
        assert low == -high
    assert shown(axes[8]).mask.sum() == (~mask[2]).sum()
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert bar.get_xlabel() == "residual (input units)"


def test_rows_of_pictures_share_one_scale_a_row(cutouts):
    pictures = np.stack([cutouts[0][:4], 100 * cutouts[0][4:8] + 3])
    figure = figures.picture_rows(pictures, ["a", "b"])
    axes = axes_of(figure)
    assert [axes[0].get_ylabel(), axes[4].get_ylabel()] == ["a", "b"]
    for row, part in zip(pictures, (axes[:4], axes[4:]), strict=True):
        low, high = np.quantile(row, 0.005), row.max()
        for picture, axis in zip(row, part, strict=True):
            expected = np.sqrt(np.clip((picture - low) / (high - low), 0, 1))
            assert np.allclose(shown(axis), expected, atol=1e-5)


# The latent space


def test_training_curves_are_the_history():
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2],
            "seconds": [1.0, 2, 3],
            "train_kl": [3.0, 2, 1],
            "train_loss": [9.0, 8, 7],
            "validation_kl": [3.5, 2.5, 1.5],
            "validation_loss": [9.5, 8.5, 7.5],
        }
    )
    axes = axes_of(figures.training_curves(history))
    assert [axis.get_ylabel() for axis in axes] == ["loss", "KL (nats)"]
    for axis, term in zip(axes, ("loss", "kl"), strict=True):
        assert axis.get_xlabel() == "epoch"
        for line, part in zip(axis.get_lines(), ("train", "validation"), strict=True):
            assert line.get_ydata().tolist() == history[f"{part}_{term}"].tolist()
            assert line.get_label() == part


@pytest.mark.slow
def test_rows_of_statistics_mark_what_is_chosen(statistics):
    axes = axes_of(figures.dimension_rows(statistics, (1, 4)))
    columns = ["chi2", "cramers_v", "ks", "welch_t", "relative_entropy", "mutual_information"]
    columns += ["difference_mu", "difference_logvar"]
    for axis, column in zip(axes, columns, strict=True):
        assert [bar.get_height() for bar in axis.patches] == pytest.approx(statistics[column].tolist())
        colours = [to_hex(bar.get_facecolor()) for bar in axis.patches]
        assert len(set(colours)) == 2
        assert [d for d in range(6) if colours[d] == colours[1]] == [1, 4]
    (line,) = [line for line in axes[0].get_lines() if line.get_linestyle() == "--"]
    chi2 = statistics["chi2"].to_numpy()
    assert line.get_ydata()[0] == pytest.approx(chi2.mean() + 1.5 * chi2.std())
    assert axes[-1].get_xlabel() == "latent dimension"


def test_boxes_are_medians_of_each_class(scores):
    (axis,) = axes_of(figures.box_plots(scores, "mu"))
    lens = scores["is_lens"].to_numpy()
    values = latent_values(scores, "mu")
    medians = [line.get_ydata()[0] for line in axis.get_lines() if to_hex(line.get_color()) == "#000000"]
    expected = [*np.median(values[~lens], axis=0), *np.median(values[lens], axis=0)]
    assert medians == pytest.approx(expected)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == [str(d) for d in range(values.shape[1])]
    assert axis.get_ylabel() == "$\\mu$"


@pytest.mark.slow
def test_many_dimensions_get_several_rows_of_boxes():
    axes = axes_of(figures.box_plots(scores_table(40, 20, dimensions=70), "logvar"))
    ticks = [tick.get_text() for axis in axes for tick in axis.get_xticklabels()]
    assert len(axes) == 3
    assert ticks == [str(d) for d in range(70)]


def test_histograms_are_densities_of_each_class_over_the_same_bins(scores):
    axes = axes_of(figures.dimension_histograms(scores, [1, 3], "mu"))
    lens = scores["is_lens"].to_numpy()
    for axis, dimension in zip(axes, (1, 3), strict=True):
        values = scores[f"mu_{dimension}"].to_numpy(float)
        data = stairs(axis)
        for colour, members in ((ORDINARY, ~lens), (LENS, lens)):
            edges = data[colour].edges
            inside = np.clip(values[members], edges[0], edges[-1])
            assert np.allclose(data[colour].values, np.histogram(inside, edges, density=True)[0])
        assert np.array_equal(data[ORDINARY].edges, data[LENS].edges)
        assert axis.get_xlabel() == f"$\\mu$, dimension {dimension}"
        assert axis.get_yscale() == "log"
    legend = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert legend == ["ordinary (600)", "lens (120)"]


@pytest.mark.slow
def test_objects_beyond_the_ends_are_counted_and_a_long_tail_leaves_the_bulk_its_bins(scores):
    rng = np.random.default_rng(5)
    values = np.r_[rng.normal(100, 1, 1000), rng.normal(100, 1, 90), np.geomspace(200, 1e5, 10)]
    rows = pd.DataFrame({"tail": values, "is_lens": np.arange(1100) >= 1000, "split": "selection"})
    (axis,) = axes_of(figures.score_histograms(rows, ["tail"], against="is_lens"))
    edges = stairs(axis)[ORDINARY].edges
    quarters = np.quantile(values[:1000], [0.25, 0.75])
    assert ((edges > quarters[0]) & (edges < quarters[1])).sum() >= 3  # on a linear axis there is none
    assert (np.diff(edges) > 0).all()
    below, above = (values < edges[0]).sum(), (values > edges[-1]).sum()
    assert axis.get_title(loc="right") == f"end bins: {below} below, {above} above"
    assert above > 0
    flat = figures.score_histograms(rows.assign(tail=rng.normal(size=1100)), ["tail"], against="is_lens")
    assert axes_of(flat)[0].get_xscale() == "linear"


@pytest.mark.slow
def test_kl_by_rank_averages_the_right_dimensions(scores, statistics):
    axes = axes_of(figures.kl_by_rank(scores, statistics, n=2))
    order = statistics.sort_values("chi2")["dimension"].tolist()
    groups = {"2 lowest": order[:2], "2 middle": order[2:4], "2 highest": order[4:]}
    groups["all but 2 highest"] = order[:4]
    for axis, (name, dimensions) in zip(axes, groups.items(), strict=True):
        assert axis.get_xlabel() == f"log10 mean KL (nats), {name}"
        mean = np.log10(latent_values(scores, "kl", dimensions).mean(axis=1))[~scores["is_lens"]]
        data = stairs(axis)[ORDINARY]
        inside = np.clip(mean, data.edges[0], data.edges[-1])
        assert np.allclose(data.values, np.histogram(inside, data.edges, density=True)[0])


def test_stability_is_a_picture_of_frequencies(scores):
    table = choice_stability(scores, n=2, anomalies=(10, 50), resamples=30)
    figure = figures.stability_rows(table)
    (axis,) = axes_of(figure)
    assert np.array_equal(shown(axis).ravel(), table["frequency"])
    labels = [tick.get_text().split(" ")[0] for tick in axis.get_yticklabels()]
    assert labels == ["10", "50", "120"]
    assert sorted(axis.get_lines()[0].get_xdata()) == [1, 4]


def test_a_map_draws_lenses_over_normals(scores):
    table = joint_map(scores, n_normals=60, n_anomalies=20)
    (axis,) = axes_of(figures.latent_map(table))
    ordinary, lens = axis.collections
    for drawn, members, colour in ((ordinary, ~table["positive"], ORDINARY), (lens, table["positive"], LENS)):
        assert np.allclose(drawn.get_offsets(), table.loc[members, ["x", "y"]])
        assert same_color(drawn.get_facecolor()[0][:3], colour)


@pytest.mark.slow
def test_a_map_has_the_commonest_classes_in_colours_of_their_own(scores):
    table = joint_map(scores, n_normals=60, n_anomalies=20)
    kinds = np.where(np.arange(len(table)) % 3 == 0, "star", "galaxy")
    kinds[:3] = list("abc")
    kinds = pd.Series(kinds).where(~table["positive"], "lens")
    several = [table.assign(**{"class": kinds}), table.assign(**{"class": kinds.str.replace("b", "d")})]
    for axis, part in zip(axes_of(figures.latent_map(*several, titles="xy")), several, strict=True):
        drawn = {group.get_label(): group for group in axis.collections}
        assert sum(len(group.get_offsets()) for group in drawn.values()) == len(part)
        for kind in ("star", "galaxy"):
            members = (part["class"] == kind) & ~part["positive"]
            assert np.allclose(
                drawn[f"{kind} ({members.sum()})"].get_offsets(), part.loc[members, ["x", "y"]]
            )
        assert list(drawn)[-1].startswith("lens")
        colours = {tuple(group.get_facecolor()[0]) for group in drawn.values() if len(group.get_offsets())}
        assert len(colours) == sum(len(group.get_offsets()) > 0 for group in drawn.values())


# Detection


@pytest.mark.slow
def test_score_histograms_have_names_and_thresholds(scores):
    named = scores.rename(columns={"noise": "pca_noise"})
    axes = axes_of(figures.score_histograms(named, ["signal", "pca_noise"], thresholds={"signal": 1.5}))
    assert [axis.get_xlabel() for axis in axes] == ["signal", "PCA noise"]
    assert [len(axis.get_lines()) for axis in axes] == [1, 0]
    assert axes[0].get_lines()[0].get_xdata()[0] == 1.5


def test_threshold_panels_draw_the_curves(scores, statistics):
    curves = threshold_curves(scores, "kl", statistics, counts=(1, 3))
    axes = axes_of(figures.threshold_panels(curves))
    for axis, count in zip(axes, (1, 3), strict=True):
        part = curves[curves["dimensions"] == count]
        *lines, marked = axis.get_lines()
        for line, column in zip(lines, ("precision", "recall", "F1"), strict=True):
            assert line.get_label() == column
            assert np.array_equal(line.get_xdata(), part["threshold"])
            assert np.array_equal(line.get_ydata(), part[column])
        assert marked.get_xdata()[0] == part.loc[part["F1"].idxmax(), "threshold"]
    assert axes[1].get_xlabel() == "threshold on mean KL (nats), 3 dimensions"


@pytest.mark.slow
def test_intervals_are_those_of_the_table(scores):
    detectors = [choose_detector(scores, s) for s in ("signal", "noise")]
    unmeasured = compare_detectors(detectors, scores, resamples=30)  # too few objects for a recall at 1e-2
    recall = {f"recall_fpr_1e-2{end}": unmeasured[f"F1{end}"] for end in ("", "_low", "_high")}
    table = unmeasured.assign(**recall)
    axes = axes_of(figures.metric_intervals(table, highlight="noise"))
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["signal", "noise"]
    assert axes[0].get_yticks()[0] > axes[0].get_yticks()[1]  # the best on top
    for axis, metric in zip(axes, ("AP", "recall_fpr_1e-2"), strict=True):
        intervals, points = axis.collections
        assert np.allclose(points.get_offsets()[:, 0], table[metric])
        ends = [segment[:, 0].tolist() for segment in intervals.get_segments()]
        assert ends == table[[f"{metric}_low", f"{metric}_high"]].to_numpy().tolist()
        assert same_color(points.get_facecolor()[1], LENS)
        assert points.get_linewidths()[0] < 2  # points wide, so that it hides no short interval
    assert axes[0].get_xlabel() == "average precision"
    assert len(axes_of(figures.metric_intervals(unmeasured))) == 1


def test_precision_is_drawn_where_lenses_are_rarer():
    table = precision_at(50, 100, 30, 5000)
    (axis,) = axes_of(figures.precision_against_prevalence(table, "one"))
    line, points = axis.get_lines()
    assert np.allclose(points.get_xydata(), table["precision"].reset_index())
    assert len(line.get_xdata()) == 200
    between = np.interp(np.log(table.index), np.log(line.get_xdata()), np.log(line.get_ydata()))
    assert np.allclose(np.exp(between), table["precision"], rtol=1e-3)
    band = axis.collections[0].get_paths()[0].vertices
    for prevalence, row in table.iterrows():  # the rates of the operating point are those of every row
        near = band[np.argsort(np.abs(np.log(band[:, 0] / prevalence)))[:4], 1]
        assert near.min() == pytest.approx(row["low"], rel=0.05)
        assert near.max() == pytest.approx(row["high"], rel=0.05)
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    assert {"0.01%", "0.1%", "1%"} <= set(labels)


def test_false_discovery_curves(scores):
    rows = scores.assign(split="test")
    study = fdr_study(Detector("signal", "signal"), rows, contaminations=(0.0, 0.02), resamples=20)
    left, right = axes_of(figures.fdr_curves(study))
    clean = study[study["contamination"] == 0]
    assert left.get_lines()[0].get_ydata().tolist() == clean["empirical"].tolist()
    assert left.get_lines()[0].get_xdata().tolist() == clean["nominal"].tolist()
    assert right.get_lines()[0].get_ydata().tolist() == clean["power"].tolist()
    diagonal = left.get_lines()[-1]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert left.get_lines()[2].get_label() == "2% of the calibration set are lenses"


@pytest.mark.slow
def test_loss_terms_are_those_of_the_variant(scores):
    rows = scores.assign(elbo=-scores["signal"], reconstruction=scores["noise"], total_correlation=1.0)
    axes = axes_of(figures.loss_histograms(rows, against="is_lens"))
    labels = [axis.get_xlabel() for axis in axes]
    assert labels == ["negative ELBO (nats)", "reconstruction (nats)", "total correlation (nats)"]
    assert all(axis.get_yscale() == "log" for axis in axes)
    for axis, name in zip(axes, ("signal", "noise"), strict=False):
        for patch, lens in zip(axis.patches, (False, True), strict=True):
            density, edges, _ = patch.get_data()
            values = np.clip(rows.loc[rows["is_lens"] == lens, name], edges[0], edges[-1])
            assert np.allclose(density, np.histogram(values, edges, density=True)[0])


def test_effects_of_faults_are_drawn_about_the_value_without():
    table = pd.DataFrame(
        {
            "without": [0.3, 0.6, 0.2, 0.5],
            "with": [0.5, 0.8, 0.2, 0.5],
            "difference": [0.2, 0.2, 0.0, 0.0],
            "low": [0.1, 0.15, -0.1, -0.05],
            "high": [0.25, 0.3, 0.1, 0.05],
        },
        index=pd.MultiIndex.from_product([["leak", "none"], ["AP", "AUROC"]], names=["fault", "metric"]),
    )
    axes = axes_of(figures.fault_effects(table))
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["leak", "none"]
    for axis, metric in zip(axes, ("AP", "AUROC"), strict=True):
        part = table.xs(metric, level="metric")
        without, with_fault = axis.get_lines()
        assert without.get_xdata().tolist() == part["without"].tolist()
        assert with_fault.get_xdata().tolist() == part["with"].tolist()
        assert without.get_ydata().tolist() == [1, 0]  # the first on top
        ends = np.array([segment[:, 0] for segment in axis.collections[0].get_segments()])
        assert np.allclose(ends, part[["low", "high"]].add(part["without"], axis=0))


# The survey


def test_the_sky_has_every_object_once_with_east_to_the_left():
    rows = scores_table(400, 80)
    rows.loc[3, ["ra", "dec"]] = np.nan
    whole, near = axes_of(figures.sky_map(rows))
    drawn = {c.get_label().split(" ")[0]: np.asarray(c.get_offsets()) for c in whole.collections}
    for split, part in rows.drop(index=3).groupby("split"):
        assert np.allclose(drawn[split], part[["ra", "dec"]])
    for axis in (whole, near):
        assert axis.xaxis_inverted()
        assert axis.get_xlabel() == "right ascension (deg)"
        assert axis.get_ylabel() == "declination (deg)"
    (frame,) = whole.patches
    assert sorted(near.get_xlim()) == pytest.approx([frame.get_x(), frame.get_x() + frame.get_width()])
    colours = {c.get_label().split(" ")[0]: to_hex(c.get_facecolor()[0]) for c in whole.collections}
    assert colours == {s: figures.SPLIT_COLOURS[s] for s in rows["split"].unique()}


def test_properties_leave_out_what_is_unknown(scores):
    rows = scores.assign(seeing=scores["signal"].where(scores.index % 3 > 0))
    (axis,) = axes_of(figures.property_histograms(rows, {"seeing": "seeing FWHM (arcsec)"}))
    known = rows[rows["seeing"].notna()]
    legend = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert legend == [f"ordinary ({(~known['is_lens']).sum()})", f"lens ({known['is_lens'].sum()})"]
    assert axis.get_xlabel() == "seeing FWHM (arcsec)"


def test_class_counts_are_points_on_a_logarithmic_axis():
    counts = pd.Series({"point": 4000, "lens": 30, "star_star": 500})
    (axis,) = axes_of(figures.class_counts(counts))
    points = axis.collections[1]
    assert points.get_offsets().tolist() == [[4000, 2], [500, 1], [30, 0]]  # the largest on top
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["point", "star star", "lens"]
    assert [to_hex(colour) for colour in points.get_facecolor()] == [ORDINARY, ORDINARY, LENS]
    assert [text.get_text() for text in axis.texts] == ["4,000", "500", "30"]


@pytest.fixture(scope="module")
def lenses():
    rng = np.random.default_rng(3)
    return pd.DataFrame({"separation": rng.uniform(0.5, 4, 500), "magnitude_i": rng.normal(20, 1, 500)})


def test_completeness_curves_show_shares_and_intervals(lenses):
    found = (lenses["separation"] > 1.5).to_numpy()
    table = completeness_curve(lenses, found, "separation", bins=[0.5, 1, 2, 4, 5])
    (axis,) = axes_of(figures.completeness_curves({"separation (arcsec)": table}))
    kept = table[table["n"] > 0]
    (points,) = axis.get_lines()
    assert np.allclose(points.get_xydata(), kept[["centre", "share"]])
    widths, intervals = (np.array(c.get_segments()) for c in axis.collections)
    assert np.allclose(widths[:, :, 0], kept[["lower", "upper"]])
    assert np.allclose(intervals[:, :, 1], kept[["low", "high"]])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("separation (arcsec)", "completeness")


@pytest.mark.slow
def test_completeness_map_leaves_thin_cells_empty(lenses):
    found = (lenses["separation"] > 1.5).to_numpy()
    edges = ([0.5, 2, 4], [17, 17.5, 19, 23])
    table = completeness_map(lenses, found, "separation", "magnitude_i", bins=edges)
    figure = figures.completeness_map(table, xlabel="separation (arcsec)", ylabel="i magnitude (mag)")
    (axis,) = axes_of(figure)
    drawn = axis.collections[0].get_array()
    expected = table.pivot(index="y_lower", columns="x_lower", values="share").to_numpy()
    number = table.pivot(index="y_lower", columns="x_lower", values="n").to_numpy()
    assert (drawn.mask == (number < 10)).all()
    assert drawn.mask.any()
    assert np.allclose(drawn.compressed(), expected[number >= 10])
    assert f"({number.T[number.T >= 10][0]})" in axis.texts[0].get_text()


def test_shares_by_class_have_their_numbers():
    table = share_by_class(pd.DataFrame({"class": ["point"] * 30 + ["lens"] * 10}), np.arange(40) > 25)
    (axis,) = axes_of(figures.share_by_class(table))
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["lens (10)", "point (30)"]
    points = axis.collections[1]
    assert np.asarray(points.get_offsets())[:, 0].tolist() == pytest.approx([1, 4 / 30])
    assert to_hex(points.get_facecolor()[0]) == LENS


# Style


def test_names_of_columns_become_words():
    axes = axes_of(figures.class_counts(pd.Series({"pca_knn": 3, "kl, 5 dimensions": 2, "star_star": 1})))
    labels = [tick.get_text() for tick in axes[0].get_yticklabels()]
    assert labels == ["PCA kNN", "KL, 5 dimensions", "star star"]


@pytest.mark.slow
def test_figures_are_of_book_width_on_white_and_closed(scores, statistics):
    before = plt.get_fignums()
    figure = figures.dimension_rows(statistics)
    assert plt.get_fignums() == before
    assert figure.get_figwidth() * figure.dpi == 1760  # twice the text width of the book
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    with pytest.raises(ValueError, match="no column 'nothing'"):
        figures.box_plots(scores, against="nothing")
    assert plt.get_fignums() == before


@pytest.mark.slow
def test_drawing_leaves_the_reader_s_style_alone(statistics):
    before = dict(plt.rcParams)
    figures.dimension_rows(statistics)
    assert dict(plt.rcParams) == before


def test_ordinary_and_lens_come_from_a_colour_blind_safe_palette():
    palette = sns.color_palette("colorblind").as_hex()
    assert ORDINARY != LENS
    assert {ORDINARY, LENS, *figures.SPLIT_COLOURS.values()} <= set(palette)
    assert len(set(figures.SPLIT_COLOURS.values())) == 5
