"""What a model draws: unseen objects drawn again, samples of its prior, walks along latent dimensions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensq.models.batches import read_pixels
from lensq.models.objectives import Mixture
from lensq.models.training import Model
from lensq.scores.scoring import reconstruct
from lensq.survey.images import channels

if TYPE_CHECKING:
    from lensq.survey.survey import Survey


def examples(model: Model, survey: Survey) -> dict[str, Any]:
    """Some objects of the split "selection" and what the model makes of them, for a figure.

    Where the truth is known, the first object of each of the five commonest ordinary classes, then the first
    three lenses; else the first five that were not flagged by eye, then the first three that were.

    Args:
        model: A fitted model; it is left as it was.
        survey: The survey, read with the size that the model takes.

    Returns:
        What `figures.reconstruction_grid` takes: `images` and `reconstructions` (n, S, S), or (n, C, S, S) of
        several bands, in preprocessed units, NaN where masked, `mask`, as large, `captions`, the class of
        each, and the survey's `bands`.

    Raises:
        ValueError: The split holds no object.
    """
    rows = survey.rows("selection")
    if survey.truth is not None:
        classes = survey.truth["class"].to_numpy()[rows]
        names = pd.Series(classes[classes != "lens"]).value_counts().index[:5]
        chosen = [rows[classes == name][:1] for name in names] + [rows[classes == "lens"][:3]]
        captions = [*(name.replace("_", "\n") for name in names), *["lens"] * len(chosen[-1])]
    else:
        labels = survey.labels[rows]
        chosen = [rows[labels <= 0][:5], rows[labels == 1][:3]]
        named = {0: "rejected", -1: "unlabelled", 1: "flagged"}
        captions = [named[label] for label in survey.labels[np.concatenate(chosen)].tolist()]
    shown = np.concatenate(chosen)
    if not len(shown):
        raise ValueError(f"the survey {survey.folder} has no object in the split selection")
    images, reconstructions = reconstruct(model, survey, shown)
    mask = np.asarray(survey.mask[shown])
    pictures = {"images": images, "reconstructions": reconstructions, "mask": mask}
    return {**pictures, "captions": captions, "bands": survey.bands}


def _decoded(model: Model, z: Tensor) -> np.ndarray:
    return copy.deepcopy(model.vae).cpu().eval().decode(z).squeeze(1).numpy()


@torch.inference_mode()
def prior_samples(model: Model, n: int, *, cluster: int | None = None, seed: int = 0) -> np.ndarray:
    """Images of latent vectors drawn from the prior: what the model thinks may be there.

    Args:
        model: A fitted model; it is left as it was.
        n: How many.
        cluster: Draw from this component of a mixture prior; None draws the component as well.
        seed: Seed of the draw.

    Returns:
        (n, S, S) float32, preprocessed units; (n, C, S, S) of several bands.

    Raises:
        ValueError: There is no such cluster.
    """
    objective, variant = model.vae.objective, model.vae.config.variant
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((n, model.vae.config.latent), generator=generator)
    shares = objective.log_py.exp().cpu() if isinstance(objective, Mixture) else ()
    if cluster is not None and not 0 <= cluster < len(shares):
        raise ValueError(f"cluster={cluster}: the prior of {variant} has {len(shares)} clusters")
    if len(shares):
        drawn = torch.multinomial(shares, n, replacement=True, generator=generator)
        component = drawn if cluster is None else torch.full((n,), cluster)
        mu, logvar = (values.cpu()[component] for values in objective.prior())
        z = mu + torch.exp(0.5 * logvar) * z
    return _decoded(model, z)


def _aggregate(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance (D,) of the aggregate posterior, and the share of it that the means account for."""
    if model.vae.reference is None:
        raise ValueError("the model has no reference sample of train objects: fit it to the end")
    mu, logvar = (values.cpu() for values in model.vae.reference)
    between = mu.var(0, correction=0)
    total = between + logvar.exp().mean(0)
    return mu.mean(0), total, between / total


@torch.inference_mode()
def activity(model: Model) -> pd.Series:
    """How much each latent dimension depends on the image.

    The variance of the posterior means over the reference sample of train objects, as a share of the variance
    of the aggregate posterior: 0 for a dimension that ignores the image, 1 for one without noise (after the
    active units of Burda, Grosse & Salakhutdinov 2016, arXiv 1509.00519).

    Args:
        model: A fitted model.

    Returns:
        `activity` by `dimension`, the most active first.
    """
    share = pd.Series(_aggregate(model)[2].numpy(), name="activity").rename_axis("dimension")
    return share.sort_values(ascending=False, kind="stable")


@torch.inference_mode()
def traversals(model: Model, survey: Survey, row: int, dimensions: Sequence[int]) -> np.ndarray:
    """One object drawn again with one latent dimension changed at a time.

    A dimension takes nine values, evenly spaced, up to 2.5 standard deviations of the aggregate posterior
    either way from its mean.

    Args:
        model: A fitted model; it is left as it was.
        survey: The survey, read with the size that the model takes.
        row: Row of the object, whose posterior mean is the starting point.
        dimensions: The (d,) dimensions to change.

    Returns:
        (d, 9, S, S) float32, preprocessed units; (d, 9, C, S, S) of several bands.

    Raises:
        ValueError: A dimension does not exist.
    """
    latent = model.vae.config.latent
    if unknown := [d for d in dimensions if not 0 <= d < latent]:
        raise ValueError(f"dimensions={unknown}: the model has dimensions 0 to {latent - 1}")
    images, mask = read_pixels(survey, np.array([row]))
    vae = copy.deepcopy(model.vae).cpu().eval()
    start = vae(model.preprocessing(images, mask), channels(mask))["mu"]
    mean, variance, _ = _aggregate(model)
    steps = torch.linspace(-2.5, 2.5, 9)
    z = start.repeat(len(dimensions), len(steps), 1)
    for i, d in enumerate(dimensions):
        z[i, :, d] = mean[d] + variance[d].sqrt() * steps
    pictures = _decoded(model, z.flatten(0, 1))
    return pictures.reshape(len(dimensions), len(steps), *pictures.shape[1:])
