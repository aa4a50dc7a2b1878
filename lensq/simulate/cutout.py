"""One object of the survey, from its seed to pixels and truth."""

from dataclasses import dataclass

import numpy as np

from lensq.simulate.artefacts import ARTEFACTS
from lensq.simulate.inspector import clarity, inspect
from lensq.simulate.light import magnitude
from lensq.simulate.observe import add_background, add_noise, draw_conditions, render
from lensq.simulate.parameters import INSTRUMENT
from lensq.simulate.scenes import CLASSES, Scene, lens, neighbours


@dataclass(frozen=True)
class Cutout:
    """Pixels and truth of one object.

    Attributes:
        image: (size, size) float32, counts at zero point 27.
        truth: one row of the truth table.
    """

    image: np.ndarray
    truth: dict


def _stream(seed: int, index: int, use: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index, use)))


def make_cutout(name: str, *, seed: int, index: int, size: int = 64) -> Cutout:
    """Make the object number `index` of the survey `seed`, of class `name` ("lens" or an ordinary one)."""
    rng = _stream(seed, index, 0)
    scene = lens(rng) if name == "lens" else CLASSES[name](rng)
    x, y = _catalogue_centre(scene, rng)
    parts = [part.shift(-x, -y) for part in scene.parts]
    parts += neighbours(rng, (size + 8) * INSTRUMENT.pixel_scale)
    rng = _stream(seed, index, 1)
    conditions = draw_conditions(rng)
    offset = rng.uniform(-INSTRUMENT.centring_error, INSTRUMENT.centring_error, 2)
    image = add_background(add_noise(render(parts, conditions, size, tuple(offset)), conditions, rng), rng)
    kind = ""
    if name == "artefact":
        kind = str(rng.choice(list(ARTEFACTS)))
        image = ARTEFACTS[kind](image, rng)
    verdict = inspect(name, clarity(scene.resemblance, conditions), _stream(seed, index, 2))
    truth = {
        "index": index,
        "class": name,
        "is_lens": name == "lens",
        "magnitude_i": float(magnitude(scene.flux)),
        **scene.truth,
        "total_magnitude": float(magnitude(scene.flux)),
        "centre_x": -x + offset[0] * INSTRUMENT.pixel_scale,
        "centre_y": -y + offset[1] * INSTRUMENT.pixel_scale,
        "seeing": conditions.seeing,
        "sky": conditions.sky,
        "gain": conditions.gain,
        "exposures": conditions.exposures,
        "artefact": kind,
        "size": size,
        "clarity": verdict.clarity,
        "flagged": verdict.flagged,
        "grade": verdict.grade,
        "graded": verdict.graded,
    }
    return Cutout(image.astype(np.float32), truth)


def _catalogue_centre(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """Where a catalogue puts the object: on its brightest part or on the centroid of the light."""
    if rng.random() < 0.5:
        centre = max(scene.parts, key=lambda part: part.flux).centroid
        return centre.x, centre.y
    total = scene.flux
    x = sum(part.flux * part.centroid.x for part in scene.parts) / total
    y = sum(part.flux * part.centroid.y for part in scene.parts) / total
    return float(x), float(y)
