"""One object of the survey, from its seed to pixels and truth."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from lensq.simulate.artefacts import IN_ONE_BAND, spoil
from lensq.simulate.colours import draw_colours
from lensq.simulate.labeller import clarity, look
from lensq.simulate.light import magnitude, scaled
from lensq.simulate.observe import MEDIAN_PSF, Conditions, add_background, add_noise, draw_conditions, render
from lensq.simulate.parameters import INSTRUMENT, LIGHT
from lensq.simulate.scenes import Scene, make_scene, neighbours
from lensq.simulate.spectra import BANDS

# What a random stream is for; the last is that of the first band.
_SCENE, _OBSERVATION, _INSPECTION, _SIZE, _COLOURS, _BAND = range(6)


@dataclass(frozen=True)
class Target:
    """What is to be simulated.

    Attributes:
        name: "lens" or a class of ordinary objects.
        index: number of the object in its survey.
        shift: whole pixels from the first to the second cutout of this scene; (0, 0) if there is one only.
        second: this is the second cutout: the scene is that of object `index - 1`.
    """

    name: str
    index: int
    shift: tuple[int, int] = (0, 0)
    second: bool = False


@dataclass(frozen=True)
class Cutout:
    """Pixels and truth of one object.

    Attributes:
        image: (size, size) float32, counts at zero point 27; (bands, size, size) of several bands.
        truth: one row of the truth table, without name and position.
    """

    image: np.ndarray
    truth: dict


def make_cutout(
    target: Target,
    *,
    seed: int,
    size: int | tuple[int, ...] = 64,
    control: str | None = None,
    bands: str = "i",
    colour_scatter: float = 1.0,
) -> Cutout:
    """Make one object of a survey; the same whenever and wherever it is made, its i band with any others.

    Args:
        target: Which object, and of which class.
        seed: Seed of the survey.
        size: Side in pixels, or several of which one is drawn for each object.
        control: "flux" rescales ordinary objects so that as much light falls within 5 pixels as in lenses.
        bands: Which of g, r, i, z, y, in the order of the image.
        colour_scatter: Factor on the dust and the microlensing that change the colours of lensed images.
    """
    scene_index = target.index - target.second

    def stream(use: int, index: int = scene_index) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index, use)))

    sizes = np.atleast_1d(size)
    side = int(sizes[stream(_SIZE).integers(len(sizes))])
    rng = stream(_SCENE)
    paired = target.shift != (0, 0)
    at = tuple(INSTRUMENT.pixel_scale * step for step in target.shift) if paired else None
    scene = make_scene(target.name, rng, at)
    if control == "flux" and target.name != "lens":
        scene = scene.rescaled(_lens_brightness(rng) - central_magnitude(scene))
    origin = np.zeros(2) if paired else np.array(_catalogue_centre(scene, rng))
    conditions = draw_conditions(rng := stream(_OBSERVATION))
    offset = rng.uniform(-0.5, 0.5, 2)
    if rng.random() < INSTRUMENT.centring_share:
        offset += rng.normal(0, INSTRUMENT.centring_error, 2)
    view = _View(target, side, offset)
    around = neighbours(rng, (max(view.shape) + 8) * INSTRUMENT.pixel_scale)  # some shine in from outside
    middle = np.array(target.shift) / 2 * INSTRUMENT.pixel_scale  # of the sky that holds both cutouts
    parts = [scaled(part, 1, *-origin) for part in scene.parts]
    parts += [scaled(part, 1, *middle) for part in around.parts]
    planes = {"i": view.observe(parts, conditions, rng)}
    kind, again = "", deepcopy(rng) if target.name == "artefact" else None
    if again:
        planes["i"], kind = spoil(planes["i"], conditions.gain, rng)
    others = [band for band in bands if band != "i"]
    steps, columns = _draw_colours(scene, around, stream(_COLOURS), colour_scatter) if others else (None, {})
    for band in others:
        factors, rng = 10 ** (-0.4 * steps[:, BANDS.index(band)]), stream(_BAND + BANDS.index(band))
        here = draw_conditions(rng, band)
        coloured = [scaled(part, factor) for part, factor in zip(parts, factors, strict=True)]
        planes[band] = view.observe(coloured, here, rng, band)
        if kind and kind not in IN_ONE_BAND:
            planes[band], _ = spoil(planes[band], here.gain, deepcopy(again), rng)
    image = np.stack([planes[band] for band in bands]) if len(bands) > 1 else planes[bands]
    verdict = look(target.name, clarity(scene.resemblance, conditions), stream(_INSPECTION, target.index))
    truth = _truth(target, scene, origin, view, conditions)
    columns = {name: value for name, value in columns.items() if name[0] in bands or name.startswith("image")}
    return Cutout(image.astype(np.float32), {**truth, **columns, "artefact": kind, **verdict})


@dataclass(frozen=True)
class _View:
    """Which part of the sky a cutout shows.

    Attributes:
        target: What is shown.
        side: Of the cutout in pixels.
        offset: Of the scene's origin from the centre of the first cutout, (x, y) in pixels.
    """

    target: Target
    side: int
    offset: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the sky that holds both cutouts of a scene; just the cutout if there is one."""
        return self.side + abs(self.target.shift[1]), self.side + abs(self.target.shift[0])

    def observe(self, parts: list, conditions: Conditions, rng: np.random.Generator, band: str = "i"):
        """The cutout (side, side), with noise."""
        shift = np.array(self.target.shift)
        light = render(parts, conditions.psf, self.shape, tuple(self.offset - shift / 2))
        canvas = add_background(add_noise(light, conditions, rng), rng, band)
        x, y = np.maximum(0, -shift) + self.target.second * shift
        return canvas[y : y + self.side, x : x + self.side]


def _draw_colours(scene: Scene, around: Scene, rng: np.random.Generator, scatter: float):
    """Magnitudes relative to i of all parts (parts, 5), and columns of the truth table."""

    def draw(kinds, parts, truth):
        return draw_colours(kinds, [float(magnitude(part.flux)) for part in parts], truth, rng, scatter)

    steps, columns = draw(scene.kinds, scene.parts, scene.truth)
    flux = np.array([part.flux for part in scene.parts])
    total = magnitude(flux @ 10 ** (-0.4 * steps)) - magnitude(scene.flux)
    columns |= {f"{band}_i": float(value) for band, value in zip(BANDS, total, strict=True) if band != "i"}
    more = [draw([kind], [part], {})[0] for kind, part in zip(around.kinds, around.parts, strict=True)]
    return np.concatenate([steps, *more]), columns


def _truth(target: Target, scene: Scene, origin: np.ndarray, view: _View, conditions: Conditions) -> dict:
    """A row of the truth table, without what the labeller and the artefacts add."""
    centre = view.offset - np.array(target.shift) * target.second
    return {
        "index": target.index,
        "class": target.name,
        "is_lens": target.name == "lens",
        "parent": target.index - 1 if target.second else -1,
        "magnitude_i": float(magnitude(scene.flux)),
        **scene.truth,
        "total_magnitude": float(magnitude(scene.flux)),
        "centre_x": float(centre[0] * INSTRUMENT.pixel_scale - origin[0]),
        "centre_y": float(centre[1] * INSTRUMENT.pixel_scale - origin[1]),
        **{name: getattr(conditions, name) for name in ("seeing", "sky", "gain", "exposures")},
        "size": view.side,
    }


def _catalogue_centre(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """Where a catalogue puts the object: on its brightest part or on the centroid of the light."""
    if rng.random() < 0.5:
        centre = max(scene.parts, key=lambda part: part.flux).centroid
        return centre.x, centre.y
    total = scene.flux
    x = sum(part.flux * part.centroid.x for part in scene.parts) / total
    y = sum(part.flux * part.centroid.y for part in scene.parts) / total
    return float(x), float(y)


def central_magnitude(scene: Scene) -> float:
    """Magnitude within 5 pixels of the brightest part, in the median seeing and without noise."""
    centre = max(scene.parts, key=lambda part: part.flux).centroid
    parts = [scaled(part, 1, -centre.x, -centre.y) for part in scene.parts]
    y, x = np.mgrid[-5:6, -5:6]
    return float(magnitude(render(parts, MEDIAN_PSF, (11, 11))[np.hypot(x, y) < 5].sum()))


def _lens_brightness(rng: np.random.Generator) -> float:
    """A central magnitude from the distribution of lensed systems."""
    known = LIGHT.lens_central_magnitudes
    return float(np.interp(rng.random(), np.linspace(0, 1, len(known)), known))
