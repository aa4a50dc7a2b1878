"""One object of the survey, from its seed to pixels and truth."""

from dataclasses import dataclass

import numpy as np

from lensq.simulate.artefacts import spoil
from lensq.simulate.labeller import clarity, look
from lensq.simulate.light import magnitude, scaled
from lensq.simulate.observe import MEDIAN_CONDITIONS, add_background, add_noise, draw_conditions, render
from lensq.simulate.parameters import INSTRUMENT, LIGHT
from lensq.simulate.scenes import CLASSES, Scene, make_scene, neighbours

_SCENE, _OBSERVATION, _INSPECTION, _SIZE = range(4)  # what a random stream is for


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
        image: (size, size) float32, counts at zero point 27.
        truth: one row of the truth table, without name and position.
    """

    image: np.ndarray
    truth: dict


def make_cutout(
    target: Target, *, seed: int, size: int | tuple[int, ...] = 64, control: str | None = None
) -> Cutout:
    """Make one object of a survey; the same whenever and wherever it is made.

    Args:
        target: Which object, and of which class.
        seed: Seed of the survey.
        size: Side in pixels, or several of which one is drawn for each object.
        control: "flux" rescales ordinary objects so that as much light falls within 5 pixels as in lenses.
    """
    scene_index = target.index - target.second

    def stream(use: int, index: int = scene_index) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index, use)))

    sizes = np.atleast_1d(size)
    side = int(sizes[stream(_SIZE).integers(len(sizes))]) if len(sizes) > 1 else int(sizes[0])
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
    canvas = _canvas(scene, origin, offset, conditions, side, target.shift, rng)
    x, y = _corner(target)
    image = canvas[y : y + side, x : x + side]
    kind = ""
    if target.name == "artefact":
        image, kind = spoil(image, conditions.gain, rng)
    verdict = look(target.name, clarity(scene.resemblance, conditions), stream(_INSPECTION, target.index))
    centre = offset - np.array(target.shift) * target.second
    truth = {
        "index": target.index,
        "class": target.name,
        "is_lens": target.name == "lens",
        "parent": scene_index if target.second else -1,
        "magnitude_i": float(magnitude(scene.flux)),
        **scene.truth,
        "total_magnitude": float(magnitude(scene.flux)),
        "centre_x": float(centre[0] * INSTRUMENT.pixel_scale - origin[0]),
        "centre_y": float(centre[1] * INSTRUMENT.pixel_scale - origin[1]),
        **{name: getattr(conditions, name) for name in ("seeing", "sky", "gain", "exposures")},
        "artefact": kind,
        "size": side,
        **vars(verdict),
    }
    return Cutout(image.astype(np.float32), truth)


def gallery(per_class: int, *, seed: int, size: int = 64) -> dict[str, np.ndarray]:
    """Example cutouts of each class, lenses last: class name to images (per_class, size, size), counts."""
    shown = {}
    for row, name in enumerate((*CLASSES, "lens")):
        targets = [Target(name, row * per_class + i) for i in range(per_class)]
        shown[name] = np.stack([make_cutout(target, seed=seed, size=size).image for target in targets])
    return shown


def _canvas(scene: Scene, origin, offset, conditions, side: int, shift: tuple[int, int], rng) -> np.ndarray:
    """The sky that holds both cutouts of a scene, with noise; just the cutout if there is one only."""
    height, width = side + abs(shift[1]), side + abs(shift[0])
    parts = [scaled(part, 1, *-origin) for part in scene.parts]
    middle = np.array(shift) / 2
    field = (max(height, width) + 8) * INSTRUMENT.pixel_scale
    parts += [scaled(part, 1, *(middle * INSTRUMENT.pixel_scale)) for part in neighbours(rng, field)]
    light = render(parts, conditions, (height, width), tuple(offset - middle))
    return add_background(add_noise(light, conditions, rng), rng)


def _corner(target: Target) -> tuple[int, int]:
    """Where in the canvas this cutout begins, (x, y) in pixels."""
    first = [max(0, -step) for step in target.shift]
    return tuple(start + target.second * step for start, step in zip(first, target.shift, strict=True))


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
    return float(magnitude(render(parts, MEDIAN_CONDITIONS, (11, 11))[np.hypot(x, y) < 5].sum()))


def _lens_brightness(rng: np.random.Generator) -> float:
    """A central magnitude from the distribution of lensed systems."""
    known = LIGHT.lens_central_magnitudes
    return float(np.interp(rng.random(), np.linspace(0, 1, len(known)), known))
