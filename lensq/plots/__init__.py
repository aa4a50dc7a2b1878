"""Figures of the study: each function takes tables or arrays and returns a Matplotlib figure.

Normals and lenses have the same two colours everywhere, from a palette that colour-blind readers can tell
apart.
"""

from lensq.plots.budget import label_budget
from lensq.plots.completeness import completeness_curves, completeness_map, share_by_class
from lensq.plots.costs import growth_panels, stage_bars
from lensq.plots.detection import (
    fault_effects,
    fdr_curves,
    metric_intervals,
    precision_against_prevalence,
    ranking_curves,
    score_histograms,
    threshold_panels,
)
from lensq.plots.gallery import (
    class_gallery,
    gallery,
    picture_rows,
    ranked_gallery,
    reconstruction_grid,
    stretch,
)
from lensq.plots.latent import (
    box_plots,
    dimension_histograms,
    dimension_rows,
    kl_by_rank,
    latent_map,
    loss_histograms,
    stability_rows,
    training_curves,
)
from lensq.plots.style import COLOURS, SPLIT_COLOURS
from lensq.plots.survey import (
    class_counts,
    property_histograms,
    quantile_panels,
    sky_map,
)
from lensq.plots.sweep import sweep_lines

__all__ = [
    "COLOURS",
    "SPLIT_COLOURS",
    "box_plots",
    "class_counts",
    "class_gallery",
    "completeness_curves",
    "completeness_map",
    "dimension_histograms",
    "dimension_rows",
    "fault_effects",
    "fdr_curves",
    "gallery",
    "growth_panels",
    "kl_by_rank",
    "label_budget",
    "latent_map",
    "loss_histograms",
    "metric_intervals",
    "picture_rows",
    "precision_against_prevalence",
    "property_histograms",
    "quantile_panels",
    "ranked_gallery",
    "ranking_curves",
    "reconstruction_grid",
    "score_histograms",
    "share_by_class",
    "sky_map",
    "stability_rows",
    "stage_bars",
    "stretch",
    "sweep_lines",
    "threshold_panels",
    "training_curves",
]
