"""Inject lensed quasars into cutouts: what a lens does to a quasar, learnt from no lens of the survey.

A lens is injected into a galaxy of the survey: image positions and magnifications of a singular isothermal
ellipsoid with shear, drawn from the population of `lensq.simulate.population` (Oguri & Marshall 2010), each
image a point source as the survey's own stars show it. A single source of the same light, and unrelated
pairs, are injected as ordinary objects; a network that has to separate the two cannot go by traces of the
injection.

Anomalies made from ordinary images are how CutPaste (Li et al. 2021, arXiv 2104.04015) finds defects.
No label is used; the population is what is put in by hand.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lensq.models.batches import keyed_generator, read_pixels
from lensq.simulate.parameters import INSTRUMENT
from lensq.simulate.population import draw_lens
from lensq.survey.images import PIXEL_SCALE
from lensq.survey.survey import Survey

_CORE, _APERTURE = 2.5, 12.0  # HSC pixels
_TEMPLATE_INSIDE, _TEMPLATE_OUTSIDE = 6.0, 11.0  # HSC pixels, between which a template fades
_IMAGES = 4  # of a lens, at most
_STACK = 12  # stars a template
_SIZES = (0.05, 0.75)  # quantiles of the sizes of compact objects that are taken for stars


@dataclass(frozen=True)
class InjectionOptions:
    """What is injected, beside the lens population of the simulator.

    Attributes:
        lenses: image configurations that are drawn once and then rotated at random.
        pool_seed: of these.
        spread: for another population than the simulator's, the sigma of a log-normal factor on the
            separations of each lens, and of another one on the fluxes of its fainter images.
        widest: arcseconds from the galaxy within which unrelated sources lie.
        gain: electrons a unit of flux, for the photon noise of what is injected; None adds none.
        relative: keep the contrast of images and deflector rather than magnitudes, for fluxes without a
            known zero point.
    """

    lenses: int = 600
    pool_seed: int = 0
    spread: float = 0.0
    widest: float = 3.0
    gain: float | None = None
    relative: bool = False


Kind = Literal["lens", "single", "pair"]


class Lenses(NamedTuple):
    """Image configurations of N lenses, the brightest image first.

    Attributes:
        x, y: (N, 4) arcseconds from the deflector.
        flux: (N, 4) at zero point 27.0; 0 where there is no further image.
        deflector: (N,) flux of the deflector.
    """

    x: Tensor
    y: Tensor
    flux: Tensor
    deflector: Tensor


@cache
def draw_lenses(n: int, seed: int = 0, spread: float = 0.0) -> Lenses:
    """Lenses of the simulator's population, some 10 ms each the first time that a process asks.

    Args:
        n: how many.
        seed: of their draw.
        spread: see `InjectionOptions`.
    """
    rng = np.random.default_rng([seed, n])
    x, y = np.zeros((2, n, _IMAGES))
    magnitude, deflector = np.full((n, _IMAGES), np.inf), np.empty(n)
    for i in range(n):
        lens = draw_lens(rng)
        kept = len(lens.x[:_IMAGES])
        x[i, :kept], y[i, :kept], magnitude[i, :kept] = (
            part[:_IMAGES] for part in (lens.x, lens.y, lens.magnitudes)
        )
        deflector[i] = lens.deflector_magnitude
    flux, deflector = (10 ** (-0.4 * (part - INSTRUMENT.zero_point)) for part in (magnitude, deflector))
    wider, brighter = np.exp(spread * rng.normal(size=(2, n, 1)))
    flux[:, 1:] = np.minimum(flux[:, 1:] * brighter, flux[:, :1])  # the brightest stays first
    return Lenses(*(torch.from_numpy(part).float() for part in (wider * x, wider * y, flux, deflector)))


def draw_to_match(deflector: Tensor, light: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a lens (B,) for each of B cutouts: the brightest deflector for the brightest, and so on.

    Args:
        deflector: flux of the deflectors of all lenses.
        light: (B,) flux of the cutouts.
        generator: source of all random numbers.
    """
    drawn = torch.randint(len(deflector), (len(light),), generator=generator)
    lens = torch.empty_like(drawn)
    lens[light.argsort()] = drawn[deflector[drawn].argsort()]
    return lens


def _radius(size: int, pixel_scale: float) -> Tensor:
    """(size, size) distance from the centre in HSC pixels."""
    offset = (torch.arange(size) - (size - 1) / 2) * (pixel_scale / PIXEL_SCALE)
    return torch.hypot(offset[:, None], offset)


def concentration(images: Tensor, mask: Tensor, pixel_scale: float = PIXEL_SCALE) -> tuple[Tensor, Tensor]:
    """Share of the light within 0.42", and the light within 2.0" of the centre.

    Args:
        images: (B, S, S) flux.
        mask: (B, S, S) bool, True where a pixel is real.
        pixel_scale: arcseconds a pixel of these images.

    Returns:
        (B,) share, near 1 for a faint point source in good seeing; (B,) flux, at least 0.1.
    """
    radius = _radius(images.shape[-1], pixel_scale).to(images.device)
    light = torch.where(mask, images, 0.0)
    total = light[:, radius <= _APERTURE].sum(1).clamp(min=0.1)
    positive = light.clamp(min=0)
    core = positive[:, radius <= _CORE].sum(1) / positive[:, radius <= _APERTURE].sum(1).clamp(min=0.1)
    return core, total


def _measured(survey: Survey, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    parts = (
        concentration(*read_pixels(survey, rows[i : i + 1024]), survey.pixel_scale)
        for i in range(0, len(rows), 1024)
    )
    core, flux = zip(*parts, strict=True)
    return torch.cat(core), torch.cat(flux)


def extended(survey: Survey, rows: np.ndarray, share: float = 0.3) -> np.ndarray:
    """Those of some rows whose own light is broadest: galaxies, most of them.

    An object's own light is what it has on both sides of its peak, so that a neighbour makes no galaxy of
    a star.

    Args:
        survey: the survey.
        rows: (n,) row numbers.
        share: which share of them.
    """
    parts = (read_pixels(survey, rows[i : i + 1024]) for i in range(0, len(rows), 1024))
    broad = [concentration(*_symmetric(*part, survey.pixel_scale), survey.pixel_scale)[0] for part in parts]
    core = torch.cat(broad)
    return rows[(core <= core.quantile(share)).numpy()]


def _symmetric(images: Tensor, mask: Tensor, pixel_scale: float) -> tuple[Tensor, Tensor]:
    """What images (B, S, S) have on both sides of the peak near their centre, moved to the centre."""
    size = images.shape[-1]
    light = torch.where(mask, images, 0.0)
    near = _radius(size, pixel_scale) <= _TEMPLATE_INSIDE
    smooth = torch.where(near, F.avg_pool2d(light[:, None], 3, 1, 1)[:, 0], -torch.inf)
    peak = smooth.flatten(1).argmax(1)
    light = _rolled(light, size // 2 - peak % size, size // 2 - peak // size)
    other_side = light.flip(1, 2).roll([(size + 1) % 2] * 2, (1, 2))
    return torch.minimum(light, other_side), torch.ones_like(mask)


def point_sources(survey: Survey, rows: np.ndarray | None = None, *, n: int = 32, seed: int = 0) -> Tensor:
    """Point sources as the survey's own stars show them: stacks of compact objects of like size.

    Compact: of the brighter 70% of the objects the 40% with the most light in their cores, without the
    broadest quarter of these. A median over stars of like size leaves neighbours and noise out and keeps
    the seeing apart.

    Args:
        survey: the survey.
        rows: row numbers of the objects; those of the train split by default.
        n: number of templates, fewer where there are fewer than 12 stars for each.
        seed: which of the compact objects.

    Returns:
        (n, S, S) templates of unit flux, centred, from the sharpest to the broadest; they fade to nothing
        at 1.85".
    """
    rows = survey.rows("train") if rows is None else rows
    core, flux = _measured(survey, rows)
    bright = flux >= flux.quantile(0.3)
    compact = rows[(bright & (core >= core[bright].quantile(0.6))).numpy()]
    order = torch.randperm(len(compact), generator=keyed_generator(seed, "point sources")).numpy()
    images, mask = read_pixels(survey, np.sort(compact[order[: 2 * n * _STACK]]))
    radius = _radius(survey.size, survey.pixel_scale)
    ring = (radius > _TEMPLATE_OUTSIDE - 2) & (radius < _TEMPLATE_OUTSIDE + 1)
    images = torch.where(mask, images - images[:, ring].median(1).values[:, None, None], 0.0)
    stars, width = _centred(images, radius)
    stars = stars / stars[:, radius <= _TEMPLATE_OUTSIDE].sum(1)[:, None, None].clamp(min=1e-3)
    low, high = (width.quantile(q) for q in _SIZES)
    by_size = torch.argsort(width)
    by_size = by_size[(width[by_size] >= low) & (width[by_size] <= high)]
    stacks = by_size.tensor_split(min(n, max(1, len(by_size) // _STACK)))
    templates = torch.stack([stars[stack].median(0).values for stack in stacks])
    edge = _TEMPLATE_OUTSIDE - _TEMPLATE_INSIDE
    fade = torch.cos(0.5 * torch.pi * ((radius - _TEMPLATE_INSIDE) / edge).clamp(0, 1)).square()
    templates = _centred(templates, radius)[0] * fade
    return templates / templates.sum((1, 2), keepdim=True)


def _centred(images: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, S, S) moved so that the core's centroid is the centre; its width (B,) in HSC pixels."""
    places = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    weight = torch.exp(-0.5 * (radius / _CORE) ** 2)
    dx = dy = torch.zeros(len(images))
    moved = images
    for _ in range(4):
        core = moved.clamp(min=0) * weight
        total = core.sum((1, 2)).clamp(min=1e-6)
        # A weight as wide as the core halves the shift that it sees.
        dx = dx + 2 * (core.sum(1) * places).sum(1) / total
        dy = dy + 2 * (core.sum(2) * places).sum(1) / total
        moved = _moved(images, -dx, -dy)
    core = moved.clamp(min=0) * weight
    width = (core * radius.square()).sum((1, 2)) / core.sum((1, 2)).clamp(min=1e-6)
    return moved, width.sqrt()


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
    what: Kind,
    generator: torch.Generator,
    options: InjectionOptions = InjectionOptions(),
    *,
    pixel_scale: float = PIXEL_SCALE,
    lens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Inject a lensed quasar, or unrelated point sources, into each cutout.

    As many lenses as cutouts are drawn from the population; the brightest deflector goes to the brightest
    cutout, and so on. A cutout that is brighter than its deflector is made fainter to match, and noise
    restores the level of its sky. Half of the objects are then centred on their brightest image and half on
    their light, as a survey's cutouts are.

    Args:
        images: (B, S, S) flux, on the CPU.
        mask: (B, S, S) bool, True where a pixel is real.
        templates: (T, S, S) of `point_sources`.
        what: "lens"; "single", one source with the light of all images; "pair", the light of the images in
            two sources at places that have nothing to do with each other or the galaxy.
        generator: source of all random numbers.
        options: see `InjectionOptions`.
        pixel_scale: arcseconds a pixel of these images.
        lens: (B,) which of the lenses that `options` draws; by default as `draw_to_match` says.

    Returns:
        Images and masks, injected and perhaps moved alike.
    """
    n, pool = len(images), draw_lenses(options.lenses, options.pool_seed, options.spread)
    template = templates[torch.randint(len(templates), (n,), generator=generator)]
    light = concentration(images, mask, pixel_scale)[1]
    if lens is None:
        lens = draw_to_match(pool.deflector, light, generator)
    scale = light / pool.deflector[lens] if options.relative else torch.ones(n)
    x, y, flux = _sources(pool, lens, what, generator, options.widest)
    x, y, flux = x / pixel_scale, y / pixel_scale, flux * scale[:, None]
    dimmed = (pool.deflector[lens] * scale / light).clamp(max=1)
    added = torch.zeros_like(images)
    for k in range(flux.shape[1]):
        lit = flux[:, k] > 0
        if lit.any():
            added[lit] += flux[lit, k, None, None] * _moved(template[lit], x[lit, k], y[lit, k])
    variance = (_sky_noise(images, mask).square() * (1 - dimmed.square()))[:, None, None]
    if options.gain:
        variance = variance + added.clamp(min=0) / options.gain
    noise = torch.randn(images.shape, generator=generator) * variance.sqrt()
    injected = torch.where(mask, images * dimmed[:, None, None] + added + noise, 0.0)
    on_brightest = torch.rand(n, generator=generator) < 0.5
    share = flux / (flux.sum(1) + light * dimmed)[:, None]
    shift = []
    for place in (x, y):
        centre = torch.where(on_brightest, place[:, 0], (place * share).sum(1))
        shift.append((1.2 * torch.rand(n, generator=generator) - 0.6 - centre).round().long())
    return _rolled(injected, *shift), _rolled(mask, *shift)


def _sky_noise(images: Tensor, mask: Tensor) -> Tensor:
    """Noise (B,) of the sky, by the differences of some pixels and the next but one, above and below.

    Differences do not see the halo of a galaxy, which would pass for noise.
    """
    edge = images.shape[-1] // 4
    known = torch.where(mask, images, torch.nan)[..., ::2]
    known = torch.cat([known[:, :edge:2], known[:, -edge::2]], 1)
    steps = (known[..., 1:] - known[..., :-1]).flatten(1).abs()
    return (1.4826 / 2**0.5) * steps.nanmedian(1).values.nan_to_num()


def _sources(pool: Lenses, lens: Tensor, what: str, generator: torch.Generator, widest: float):
    """Places (arcseconds) and fluxes, each (B, sources), of what is injected."""
    n = len(lens)
    angle = 2 * torch.pi * torch.rand(n, 1, generator=generator)
    x, y, flux = pool.x[lens], pool.y[lens], pool.flux[lens]
    x, y = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    if what == "lens":
        return x, y, flux
    radius = widest * torch.rand(n, 2, generator=generator).sqrt()
    angle = 2 * torch.pi * torch.rand(n, 2, generator=generator)
    anywhere = radius * angle.cos(), radius * angle.sin()
    if what == "pair":
        return *anywhere, torch.stack([flux[:, 0], flux[:, 1:].sum(1)], 1)
    beside = torch.rand(n, 1, generator=generator) < 0.5
    x, y = (torch.where(beside, a[:, :1], b[:, :1]) for a, b in zip((x, y), anywhere, strict=True))
    return x, y, flux.sum(1, keepdim=True)
