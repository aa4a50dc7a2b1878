"""Inject lensed quasars into cutouts: what a lens does to a quasar, learnt from no lens of the survey.

A lens is injected into a galaxy of the survey: image positions and magnifications of a singular isothermal
ellipsoid with shear, drawn from the population of `lensq.simulate.population` (Oguri & Marshall 2010), each
image a point source as the survey's own stars show it. A single source of the same light, and unrelated
pairs, are injected as ordinary objects; a network that has to separate the two cannot go by traces of the
injection.

In several bands all images of a source have one spectrum (`lensq.simulate.colours`), which the dust of the
deflector and microlensing change from image to image; unrelated sources have one each. Brightness and stars
are chosen in one band, the reference: i, or the middle one.

Anomalies made from ordinary images are how CutPaste (Li et al. 2021, arXiv 2104.04015) finds defects.
No label is used; the population is what is put in by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lensq.models.batches import keyed_generator, read_pixels
from lensq.simulate.colours import draw_changes, draw_quasar, draw_unrelated
from lensq.simulate.parameters import BAND, INSTRUMENT
from lensq.simulate.population import draw_lens
from lensq.simulate.spectra import BANDS, REFERENCE, colours
from lensq.survey.images import PIXEL_SCALE, channels, noise_level

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

_CORE, _APERTURE = 2.5, 12.0  # HSC pixels
_TEMPLATE_INSIDE, _TEMPLATE_OUTSIDE = 6.0, 11.0  # HSC pixels, between which the wings of a template begin
_SLOPES = (-12.0, -2.5)  # of wings: a power law of any finite flux that is not noise
_IMAGES = 4  # of a lens, at most
_BRIGHTER = 2.0  # most that a band gains on the reference, where a galaxy has next to no light in it
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
        gain: electrons a unit of flux in i, for the photon noise of what is injected; None adds none. Other
            bands of several have it in the ratio of the simulator's.
        relative: keep the contrast of images and deflector rather than magnitudes, for fluxes without a
            known zero point.
        bands: of images in several bands, their names with spaces between: "g r i".
        colour_scatter: factor on the dust and the microlensing that make the colours of images differ.
    """

    lenses: int = 600
    pool_seed: int = 0
    spread: float = 0.0
    widest: float = 3.0
    gain: float | None = None
    relative: bool = False
    bands: str = ""
    colour_scatter: float = 1.0


Kind = Literal["lens", "single", "pair"]


class Lenses(NamedTuple):
    """Image configurations of N lenses, the brightest image first.

    Attributes:
        x, y: (N, 4) arcseconds from the deflector.
        flux: (N, 4) at zero point 27.0; 0 where there is no further image.
        deflector: (N,) flux of the deflector.
        z_lens, z_source: (N,) redshifts.
    """

    x: Tensor
    y: Tensor
    flux: Tensor
    deflector: Tensor
    z_lens: Tensor | None = None
    z_source: Tensor | None = None


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
    magnitude, (deflector, z_lens, z_source) = np.full((n, _IMAGES), np.inf), np.empty((3, n))
    for i in range(n):
        lens = draw_lens(rng)
        kept = len(lens.x[:_IMAGES])
        x[i, :kept], y[i, :kept], magnitude[i, :kept] = (
            part[:_IMAGES] for part in (lens.x, lens.y, lens.magnitudes)
        )
        deflector[i], z_lens[i], z_source[i] = lens.deflector_magnitude, lens.z_lens, lens.z_source
    flux, deflector = (10 ** (-0.4 * (part - INSTRUMENT.zero_point)) for part in (magnitude, deflector))
    wider, brighter = np.exp(spread * rng.normal(size=(2, n, 1)))
    flux[:, 1:] = np.minimum(flux[:, 1:] * brighter, flux[:, :1])  # the brightest stays first
    parts = wider * x, wider * y, flux, deflector, z_lens, z_source
    return Lenses(*(torch.from_numpy(part).float() for part in parts))


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


def reference_band(images: Tensor, bands: str) -> Tensor:
    """The reference band (B, S, S) of images or masks (B, C, S, S); those of one band as they are.

    Raises:
        ValueError: `bands` names others than the images have, or none whose colours are known.
    """
    return images if images.dim() == 3 else images[:, _reference(bands, images.shape[1])]


def _reference(bands: str, count: int) -> int:
    names = bands.split()
    if len(names) != count or not set(names) <= set(BANDS):
        raise ValueError(
            f"images of {count} bands, bands={bands!r}: colours are known of {', '.join(BANDS)}; name each"
        )
    return names.index("i" if "i" in names else sorted(names, key=BANDS.index)[count // 2])


def in_reference_band(pool: Lenses, bands: str) -> Lenses:
    """Lenses, drawn in i, with the fluxes that they have in the reference band of images of `bands`.

    Deflectors have the colours of ellipticals and images those of quasars, at their redshifts. A single band
    whose colours are not known counts as i.
    """
    names = bands.split()
    name = names[_reference(bands, len(names))] if len(names) > 1 else bands
    if name not in list(BANDS) or BANDS.index(name) == REFERENCE:
        return pool

    def dimmer(kind: str, z: Tensor) -> Tensor:
        return torch.from_numpy(10 ** (-0.4 * colours(kind, z.numpy())[:, BANDS.index(name)])).float()

    flux = pool.flux * dimmer("quasar", pool.z_source)[:, None]
    return pool._replace(flux=flux, deflector=pool.deflector * dimmer("E", pool.z_lens))


def _bands(survey: Survey) -> str:
    return " ".join(survey.bands)


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


def _in_reference(survey: Survey, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and masks of the reference band, some rows after the others."""
    for i in range(0, len(rows), 1024):
        images, mask = read_pixels(survey, rows[i : i + 1024])
        yield reference_band(images, _bands(survey)), reference_band(mask, _bands(survey))


def extended(survey: Survey, rows: np.ndarray, share: float = 0.3) -> np.ndarray:
    """Those of some rows whose own light is broadest: galaxies, most of them.

    An object's own light is what it has on both sides of its peak, so that a neighbour makes no galaxy of
    a star.

    Args:
        survey: the survey.
        rows: (n,) row numbers.
        share: which share of them.
    """
    scale = survey.pixel_scale
    parts = _in_reference(survey, rows)
    core = torch.cat([concentration(*_symmetric(*part, scale), scale)[0] for part in parts])
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
        (n, S, S) templates of unit flux, centred, from the sharpest to the broadest, with wings to their
        edge. Of several bands (n, C, S, S): the same stars in each.
    """
    rows = survey.rows("train") if rows is None else rows
    parts = (concentration(*part, survey.pixel_scale) for part in _in_reference(survey, rows))
    core, flux = map(torch.cat, zip(*parts, strict=True))
    bright = flux >= flux.quantile(0.3)
    compact = rows[(bright & (core >= core[bright].quantile(0.6))).numpy()]
    order = torch.randperm(len(compact), generator=keyed_generator(seed, "point sources")).numpy()
    images, mask = read_pixels(survey, np.sort(compact[order[: 2 * n * _STACK]]))
    radius = _radius(survey.size, survey.pixel_scale)
    ring = radius > 0.8 * radius.amax(1).min()  # near the border, where wings are faint
    sky = torch.where(mask, images, torch.nan)[..., ring].nanmedian(-1).values.nan_to_num()
    images = torch.where(mask, images - sky[..., None, None], 0.0)
    stars, width = _centred(images, radius, _bands(survey))
    stars = stars / stars[..., radius <= _TEMPLATE_OUTSIDE].sum(-1)[..., None, None].clamp(min=1e-3)
    low, high = (width.quantile(q) for q in _SIZES)
    by_size = torch.argsort(width)
    by_size = by_size[(width[by_size] >= low) & (width[by_size] <= high)]
    stacks = by_size.tensor_split(min(n, max(1, len(by_size) // _STACK)))
    templates = torch.stack([stars[stack].median(0).values for stack in stacks])
    templates = _with_wings(_centred(templates, radius, _bands(survey))[0], radius)
    return templates / templates.sum((-2, -1), keepdim=True)


def _with_wings(templates: Tensor, radius: Tensor) -> Tensor:
    """Templates that pass, between 1.0" and 1.85", into the power law of their mean over angles there.

    Farther out the stars' wings are below their noise; cut off, they would give away what is injected.
    """
    rings = [(radius >= r) & (radius < r + 1) for r in np.arange(_TEMPLATE_INSIDE, _TEMPLATE_OUTSIDE)]
    rings = [ring for ring in rings if ring.any()]
    height = torch.stack([templates[..., ring].mean(-1) for ring in rings], -1).clamp(min=1e-7).log()
    place = torch.stack([radius[ring].log().mean() for ring in rings])
    slope = ((place - place.mean()) * height).sum(-1) / (place - place.mean()).square().sum().clamp(min=1e-3)
    height, slope = (part[..., None, None] for part in (height.mean(-1), slope.clamp(*_SLOPES)))
    wings = (height + slope * (radius.clamp(min=1).log() - place.mean())).exp().clamp(max=1)
    edge = _TEMPLATE_OUTSIDE - _TEMPLATE_INSIDE
    fade = torch.cos(0.5 * torch.pi * ((radius - _TEMPLATE_INSIDE) / edge).clamp(0, 1)).square()
    return templates * fade + wings * (1 - fade)


def _centred(images: Tensor, radius: Tensor, bands: str) -> tuple[Tensor, Tensor]:
    """Images moved so that the core's centroid is the centre; its width (B,) in HSC pixels.

    Those of several bands move as one, by what the reference shows.
    """
    light = reference_band(images, bands)
    places = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    weight = torch.exp(-0.5 * (radius / _CORE) ** 2)
    dx = dy = torch.zeros(len(images))
    moved = light
    for _ in range(4):
        core = moved.clamp(min=0) * weight
        total = core.sum((1, 2)).clamp(min=1e-6)
        # A weight as wide as the core halves the shift that it sees.
        dx = dx + 2 * (core.sum(1) * places).sum(1) / total
        dy = dy + 2 * (core.sum(2) * places).sum(1) / total
        moved = _moved(light, -dx, -dy)
    core = moved.clamp(min=0) * weight
    width = (core * radius.square()).sum((1, 2)) / core.sum((1, 2)).clamp(min=1e-6)
    return moved if light is images else _moved(images, -dx, -dy), width.sqrt()


def _moved(templates: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Templates (B, S, S) or (B, C, S, S) moved by dx, dy (B,) pixels, by bicubic interpolation."""
    size = templates.shape[-1]
    places = (2 * torch.arange(size) + 1) / size - 1  # of the centres of pixels, from edge to edge
    columns, rows = (places - 2 * d[:, None] / size for d in (dx, dy))
    shape = -1, size, size
    grid = torch.stack([columns[:, None].expand(shape), rows[:, :, None].expand(shape)], -1)
    moved = F.grid_sample(channels(templates), grid, "bicubic", "border", align_corners=False)
    return moved.view_as(templates)


def _rolled(images: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Images moved by whole pixels dx, dy (B,); what leaves on one side comes in on the other."""
    moves = zip(images, dy.tolist(), dx.tolist(), strict=True)
    return torch.stack([image.roll(move, (-2, -1)) for image, *move in moves])


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
        images: (B, S, S) flux, on the CPU; of several bands (B, C, S, S).
        mask: Bool, as large, True where a pixel is real.
        templates: (T, S, S) or (T, C, S, S) of `point_sources`.
        what: "lens"; "single", one source with the light of all images; "pair", the light of the images in
            two sources at places that have nothing to do with each other or the galaxy.
        generator: source of all random numbers.
        options: see `InjectionOptions`.
        pixel_scale: arcseconds a pixel of these images.
        lens: (B,) which of the lenses that `options` draws; by default as `draw_to_match` says.

    Returns:
        Images and masks, injected and perhaps moved alike.

    Raises:
        ValueError: the images have other bands than `options`, or bands without known colours.
    """
    n, bands = len(images), options.bands
    pool = in_reference_band(draw_lenses(options.lenses, options.pool_seed, options.spread), bands)
    template = templates[torch.randint(len(templates), (n,), generator=generator)]
    light = concentration(reference_band(images, bands), reference_band(mask, bands), pixel_scale)[1]
    if lens is None:
        lens = draw_to_match(pool.deflector, light, generator)
    scale = light / pool.deflector[lens] if options.relative else torch.ones(n)
    x, y, flux = _sources(pool, lens, what, generator, options.widest)
    x, y, flux = x / pixel_scale, y / pixel_scale, flux * scale[:, None]
    dimmed = (pool.deflector[lens] * scale / light).clamp(max=1)
    fluxes, noise = _in_bands(images, flux, pool, lens, what, generator, options)
    added = torch.zeros_like(images)
    for k in range(flux.shape[1]):
        lit = flux[:, k] > 0
        if lit.any():
            added[lit] += fluxes[lit, k, ..., None, None] * _moved(template[lit], x[lit, k], y[lit, k])
    kept = _kept(images, mask, dimmed, pool.z_lens, lens, bands, pixel_scale)[..., None, None]
    variance = _sky_noise(images, mask).square()[..., None, None] * (1 - kept.square())
    if options.gain:
        variance = variance + added.clamp(min=0) / (options.gain * _gain_ratios(images, bands))
    injected = torch.where(mask, images * kept + added + noise * variance.sqrt(), 0.0)
    shift = _shift(x, y, flux, light * dimmed, generator)
    return _rolled(injected, *shift), _rolled(mask, *shift)


def _kept(images, mask, dimmed: Tensor, z_lens, lens: Tensor, bands: str, pixel_scale: float) -> Tensor:
    """Share (B,) or (B, C) of a cutout's light that is kept: as bright as its deflector, and as red.

    In several bands its light within 2.0" gets the colours of an early type at the deflector's redshift: the
    galaxies of a survey are bluer than deflectors, and would give lenses away. What would have to become
    brighter in a band becomes fainter in the others.
    """
    if images.dim() == 3:
        return dimmed
    planes = zip(images.unbind(1), mask.unbind(1), strict=True)
    light = torch.stack([concentration(*plane, pixel_scale)[1] for plane in planes], 1)
    reference = _reference(bands, images.shape[1])
    steps = colours("E", z_lens[lens].numpy())[:, [BANDS.index(name) for name in bands.split()]]
    redder = 10 ** (-0.4 * torch.from_numpy(steps - steps[:, [reference]])).float()
    kept = dimmed[:, None] * (redder * light[:, [reference]] / light).clamp(max=_BRIGHTER)
    return kept / kept.amax(1, keepdim=True).clamp(min=1)


def _shift(x: Tensor, y: Tensor, flux: Tensor, deflector: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Whole pixels (B,) along x and y that centre an object on its brightest image or on its light."""
    on_brightest = torch.rand(len(x), generator=generator) < 0.5
    share = flux / (flux.sum(1) + deflector)[:, None]
    shift = []
    for place in (x, y):
        centre = torch.where(on_brightest, place[:, 0], (place * share).sum(1))
        shift.append((1.2 * torch.rand(len(x), generator=generator) - 0.6 - centre).round().long())
    return shift


def _in_bands(images: Tensor, flux: Tensor, pool, lens, what, generator, options) -> tuple[Tensor, Tensor]:
    """Flux of what is injected, (B, sources), and white noise as the images.

    Of several bands (B, sources, C), by the colours of each source. What is drawn for a band depends on its
    name, not on its place.
    """
    if images.dim() == 3:
        return flux, torch.randn(images.shape, generator=generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    names, rng = options.bands.split(), np.random.default_rng(seed)
    planes = [torch.randn(images[:, 0].shape, generator=keyed_generator(seed, name)) for name in names]
    if what == "lens":
        quasar = draw_quasar(pool.z_source[lens].numpy(), rng)
        _, _, changes = draw_changes(pool.z_lens[lens].numpy(), _IMAGES, rng, options.colour_scatter)
        steps = quasar[:, None] + changes
    else:
        any_quasar = rng.integers(len(pool.z_source), size=(len(lens), 2 if what == "pair" else 1))
        steps = draw_unrelated(pool.z_source.numpy()[any_quasar], rng)
    steps = steps[..., [BANDS.index(name) for name in names]]
    steps = steps - steps[..., [_reference(options.bands, len(names))]]
    ratios = torch.from_numpy(10 ** (-0.4 * steps)).float()
    return flux[..., None] * ratios, torch.stack(planes, 1)


def _gain_ratios(images: Tensor, bands: str) -> Tensor | float:
    """Electrons a unit of flux in each band over those in i, (C, 1, 1); of one band a number."""
    if images.dim() == 3:
        return BAND.gain[BANDS.index(bands)] / BAND.gain[REFERENCE] if bands in list(BANDS) else 1.0
    gains = torch.tensor(BAND.gain)[[BANDS.index(name) for name in bands.split()]]
    return (gains / BAND.gain[REFERENCE])[:, None, None]


def _sky_noise(images: Tensor, mask: Tensor) -> Tensor:
    """Noise (B,) or (B, C) of the sky, by differences of some pixels and the next but one, above and below.

    Differences do not see the halo of a galaxy, which would pass for noise. Where there are none, as in a
    small cutout in a large frame, it is measured on the border.
    """
    edge = images.shape[-1] // 4
    known = torch.where(mask, images, torch.nan)[..., ::2]
    known = torch.cat([known[..., :edge:2, :], known[..., -edge::2, :]], -2)
    steps = (known[..., 1:] - known[..., :-1]).flatten(-2).abs()
    noise = (1.4826 / 2**0.5) * steps.nanmedian(-1).values
    return torch.where(noise.isnan(), noise_level(images, mask), noise) if noise.isnan().any() else noise


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
        pair = torch.stack([flux[:, 0], flux[:, 1:].sum(1)], 1)
        return *anywhere, pair.sort(1, descending=True).values  # the brightest first, as of a lens
    beside = torch.rand(n, 1, generator=generator) < 0.5
    x, y = (torch.where(beside, a[:, :1], b[:, :1]) for a, b in zip((x, y), anywhere, strict=True))
    return x, y, flux.sum(1, keepdim=True)
