"""Inject point sources into cutouts: what a lens does to a quasar, learnt from no lens.

A lensed quasar is the same point source seen twice or four times around a galaxy. The survey shows galaxies,
and the decoder of a variational autoencoder draws point sources with the survey's own seeing and without
noise. So a lens can be injected: a real cutout with its noise, and in it the same point source more than
once. One point source injected alone makes an ordinary object, a star beside a galaxy or a pair of stars; a
network that has to separate the two cannot go by traces of the injection.

Anomalies made from ordinary images are how CutPaste (Li et al. 2021, arXiv 2104.04015) finds defects.
No label is used; the distributions of `InjectionOptions` are what is put in by hand.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lensq.models.batches import keyed_generator, read_pixels
from lensq.models.training import Model
from lensq.survey.images import PIXEL_SCALE
from lensq.survey.survey import Survey

_CORE, _APERTURE = 2.5, 12.0  # pixels
_TEMPLATE_INSIDE, _TEMPLATE_OUTSIDE = 6.0, 11.0  # pixels, between which a template fades


@dataclass(frozen=True)
class InjectionOptions:
    """What an injected lens looks like; choices on a plain reading of what is known of lensed quasars.

    Attributes:
        separation: median of the lognormal distribution of image separations, arcseconds.
        spread: its standard deviation in natural logarithms.
        closest, widest: separations are kept between these, arcseconds.
        faintest_ratio: flux of the fainter of two images over the brighter, uniform from here to 1.
        fainter, brighter: magnitudes by which all images together are brighter than the object that they are
            injected into, uniform between these.
        quads: share of lenses with four images.
    """

    separation: float = 1.2
    spread: float = 0.45
    closest: float = 0.5
    widest: float = 4.0
    faintest_ratio: float = 0.1
    fainter: float = -1.0
    brighter: float = 3.0
    quads: float = 0.2


def _offsets(size: int) -> tuple[Tensor, Tensor]:
    offset = torch.arange(size) - (size - 1) / 2
    return offset[:, None].expand(size, size), offset.expand(size, size)


def concentration(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the light within 2.5 pixels, and the light within 12 pixels of the centre.

    Args:
        images: (B, S, S) flux.
        mask: (B, S, S) bool, True where a pixel is real.

    Returns:
        (B,) share, near 1 for a faint point source in good seeing; (B,) flux, at least 0.1.
    """
    radius = torch.hypot(*_offsets(images.shape[-1])).to(images.device)
    light = torch.where(mask, images, 0.0)
    total = light[:, radius <= _APERTURE].sum(1).clamp(min=0.1)
    positive = light.clamp(min=0)
    core = positive[:, radius <= _CORE].sum(1) / positive[:, radius <= _APERTURE].sum(1).clamp(min=0.1)
    return core, total


@torch.inference_mode()
def point_sources(model: Model, survey: Survey, *, n: int = 256, seed: int = 0) -> Tensor:
    """Point sources as the decoder draws them, one for each of some compact train objects.

    Compact: of the brighter 70% of train objects the 40% with the most light in their cores.

    Args:
        model: a fitted model with "minmax" preprocessing.
        survey: the survey that it was fitted to.
        n: number of templates, fewer where there are fewer compact objects.
        seed: which of the compact objects.

    Returns:
        (n, S, S) templates of unit flux, centred, without noise; they fade to nothing at 11 pixels.

    Raises:
        ValueError: the model's preprocessing does not scale linearly with flux.
    """
    if model.preprocessing.normalisation != "minmax":
        raise ValueError("point sources are drawn by a model with normalisation='minmax'")
    rows = survey.rows("train")
    core, flux = (torch.cat(part) for part in zip(*_measured(survey, rows), strict=True))
    bright = flux >= flux.quantile(0.3)
    compact = rows[(bright & (core >= core[bright].quantile(0.6))).numpy()]
    order = torch.randperm(len(compact), generator=keyed_generator(seed, "point sources")).numpy()
    chosen = np.sort(compact[order[:n]])
    vae = model.vae.cpu().eval()
    radius = torch.hypot(*_offsets(survey.size))
    edge = _TEMPLATE_OUTSIDE - _TEMPLATE_INSIDE
    fade = torch.cos(0.5 * math.pi * ((radius - _TEMPLATE_INSIDE) / edge).clamp(0, 1)).square()
    ring = (radius > _TEMPLATE_OUTSIDE - 2) & (radius < _TEMPLATE_OUTSIDE + 1)
    templates = []
    for start in range(0, len(chosen), 64):
        images, mask = read_pixels(survey, chosen[start : start + 64])
        mean = vae(model.preprocessing(images, mask), mask[:, None])["mean"][:, 0]
        source = (mean - mean[:, ring].median(1).values[:, None, None]) * fade
        templates.append(source / source.sum((1, 2), keepdim=True).clamp(min=1e-3))
    return torch.cat(templates)


def _measured(survey: Survey, rows: np.ndarray):
    return (concentration(*read_pixels(survey, rows[i : i + 1024])) for i in range(0, len(rows), 1024))


def extended(survey: Survey, rows: np.ndarray, share: float = 0.3) -> np.ndarray:
    """Those of some rows with the least light in their cores: galaxies, most of them.

    Args:
        survey: the survey.
        rows: (n,) row numbers.
        share: which share of them.
    """
    core = torch.cat([part for part, _ in _measured(survey, rows)])
    return rows[(core <= core.quantile(share)).numpy()]


def _moved(templates: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Templates (B, S, S) moved by dx, dy (B,) pixels, by bicubic interpolation."""
    size = templates.shape[-1]
    theta = torch.zeros(len(templates), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2], theta[:, 1, 2] = -2 * dx / size, -2 * dy / size
    grid = F.affine_grid(theta, (len(templates), 1, size, size), align_corners=False)
    return F.grid_sample(templates[:, None], grid, mode="bicubic", align_corners=False)[:, 0]


def _rolled(images: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Images (B, S, S) moved by whole pixels dx, dy (B,); what leaves on one side comes in on the other."""
    places = torch.arange(images.shape[-1])
    rows, columns = ((places - d[:, None]) % len(places) for d in (dy, dx))
    each = torch.arange(len(images))[:, None, None]
    return images[each, rows[:, :, None], columns[:, None, :]]


def inject(
    images: Tensor,
    mask: Tensor,
    templates: Tensor,
    what: Literal["lens", "single"],
    generator: torch.Generator,
    options: InjectionOptions = InjectionOptions(),
    *,
    pixel_scale: float = PIXEL_SCALE,
) -> tuple[Tensor, Tensor]:
    """Inject a lensed quasar, or a single point source, into each cutout.

    The images of a double lie on opposite sides of the centre, the brighter one farther out (as a
    singular isothermal sphere has them: magnification grows with the distance from the deflector). The two
    further images of a quad lie across. Half of the lenses are then centred on their brightest image, as a
    survey's cutouts are. A single source has the place and the flux of the brighter image alone.

    Args:
        images: (B, S, S) flux, on the CPU.
        mask: (B, S, S) bool, True where a pixel is real.
        templates: (T, S, S) of `point_sources`.
        what: "lens" or "single".
        generator: source of all random numbers.
        options: see `InjectionOptions`.
        pixel_scale: arcseconds a pixel of these images, another than HSC's where they were resized.

    Returns:
        Images and masks, injected and perhaps moved alike; noise is that of the cutout.
    """
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    source = templates[torch.randint(len(templates), (n,), generator=generator)]
    brighter = 10 ** (0.4 * uniform(options.fainter, options.brighter))
    flux = concentration(images, mask)[1].clamp(min=2.0) * brighter
    parts = _lens(uniform, torch.randn(n, generator=generator), generator, options, pixel_scale)
    centred = torch.rand(n, generator=generator) < 0.5
    jitter = uniform(-0.6, 0.6), uniform(-0.6, 0.6)
    if what == "single":
        parts = [(torch.ones(n), *parts[0][1:])]
    injected = images.clone()
    for share, dx, dy in parts:
        lit = share > 0
        if lit.any():
            injected[lit] += (flux * share)[lit, None, None] * _moved(source[lit], dx[lit], dy[lit])
    dx, dy = ((j - centred * p).round().long() for j, p in zip(jitter, parts[0][1:], strict=True))
    return _rolled(torch.where(mask, injected, 0.0), dx, dy), _rolled(mask, dx, dy)


def _lens(uniform, normal: Tensor, generator, options: InjectionOptions, pixel_scale: float):
    """Four images, the brightest first: share of the flux of two, and place (pixels) from the centre."""
    separation = options.separation * torch.exp(options.spread * normal)
    separation = separation.clamp(options.closest, options.widest) / pixel_scale
    angle, ratio = uniform(0, 2 * math.pi), uniform(options.faintest_ratio, 1)
    reach = separation * uniform(0.5, 0.8)  # of the brightest image
    quad = torch.rand(len(normal), generator=generator) < options.quads
    across = [(angle + 0.5 * math.pi + uniform(-0.4, 0.4), separation * uniform(0.4, 0.6)) for _ in range(2)]
    further = quad * uniform(0.15, 0.5)
    polar = [(1 / (1 + ratio), angle, reach), (ratio / (1 + ratio), angle, reach - separation)]
    polar += [(further, towards, sign * away) for sign, (towards, away) in zip((1, -1), across, strict=True)]
    return [(share, away * torch.cos(towards), away * torch.sin(towards)) for share, towards, away in polar]
