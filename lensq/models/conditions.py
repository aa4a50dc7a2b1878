"""Noise and seeing that a model was trained in, and whether those of another survey lie beyond."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lensq.models.batches import sky_noise

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

SAMPLE = 512
"""Most objects that are measured, at half a millisecond each."""

_CORE, _APERTURE = 0.42, 2.0  # arcsec


def conditions(survey: Survey, rows: np.ndarray) -> dict[str, list[float]]:
    """Percentiles 1, 10, 50 and 99 over some objects of two measures, in the reference band.

    `noise` is that of `lensq.models.batches.sky_noise`, flux at zero point 27; `width` the full width at half
    maximum, arcsec, of the Gaussian that has within 0.42 arcsec the object's share of the light within 2
    arcsec of the centre. The width of the narrowest objects is the seeing.

    Args:
        survey: the survey.
        rows: (n,) rows of it; at most 512 of them, evenly spread, are measured.
    """
    some = rows[:: -(-len(rows) // SAMPLE)]
    images, mask = map(torch.from_numpy, survey.in_reference_band(some))
    offset = (torch.arange(survey.size) - (survey.size - 1) / 2) * survey.pixel_scale
    radius = torch.hypot(offset[:, None], offset)
    light = torch.where(mask, images, 0.0)
    core, total = (light[:, radius <= edge].sum(1) for edge in (_CORE, _APERTURE))
    share = (core / total.clamp(min=1e-12)).clamp(0.01, 0.99)
    area = (radius <= _CORE).sum() * survey.pixel_scale**2  # of whole pixels
    width = 2 * (area / np.pi * np.log(2) / -torch.log1p(-share)).sqrt()
    noise = sky_noise(survey, some).view(len(some), -1)[:, survey.reference]
    bright = total > 20 * noise * (radius <= _APERTURE).sum().sqrt()
    measured = {"noise": noise[noise.isfinite()], "width": width[bright]}
    known = {name: values.double().numpy() for name, values in measured.items()}
    return {n: np.percentile(v, [1, 10, 50, 99]).tolist() if len(v) else [] for n, v in known.items()}


def beyond(trained: Mapping[str, Any], survey: Survey) -> list[str]:
    """A sentence for the noise and for the seeing of a survey, where they lie beyond what a model saw.

    Args:
        trained: `Model.settings`, whose `conditions` are those of the objects that the model was trained on.
        survey: that the model is to rank.

    Returns:
        Noise: where its median lies outside of the middle 98% of the objects trained on. Seeing: where the
        narrowest tenth is narrower than 99% of them or broader than half of them. Nothing of what cannot be
        measured, for want of objects brighter than 20 times the noise.
    """
    saw, is_now = trained.get("conditions", {}), conditions(survey, np.arange(len(survey)))
    said = []
    if saw.get("noise") and not saw["noise"][0] <= is_now["noise"][2] <= saw["noise"][3]:
        said.append(
            f"Beyond what the model saw: sky noise {is_now['noise'][2]:.3g} a pixel (median, zero point 27), "
            f"trained in {saw['noise'][0]:.3g} to {saw['noise'][3]:.3g}."
        )
    narrow, knew = is_now["width"][1:2], saw.get("width")
    if narrow and knew and not knew[0] <= narrow[0] <= knew[2]:
        said.append(
            f'Beyond what the model saw: the narrowest tenth of the objects is {narrow[0]:.2f}" wide (FWHM), '
            f'that of the objects trained on {knew[1]:.2f}".'
        )
    return said
