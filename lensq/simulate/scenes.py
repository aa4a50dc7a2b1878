"""What stands in a cutout: the eleven classes of ordinary objects, and the lensed quasars.

Each class is one function from a random generator to a `Scene`. `CLASSES` lists the ordinary ones;
their shares are in `parameters.MIXES`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import galsim
import numpy as np

import lensq.simulate.light as light
from lensq.simulate.colours import draw_quasar_redshift
from lensq.simulate.parameters import LIGHT, SHAPES
from lensq.simulate.population import draw_lens

_LENS_COLUMNS: tuple[str, ...] = ("sigma_v", "z_lens", "z_source", "source_x", "source_y", "source_magnitude")
_LENS_COLUMNS += ("deflector_magnitude", "deflector_radius", "magnitude_i", "separation", "flux_ratio")


@dataclass
class Scene:
    """An object as light above the atmosphere.

    Attributes:
        parts: GalSim objects of the object itself, arcsec and counts.
        kinds: whose spectrum each part has; see `lensq.simulate.colours`.
        truth: the parameters that were drawn, by column name of the truth table.
        resemblance: (separation in arcsec, flux of the fainter one in counts) of the two images that
            a labeller would take for a lensed pair; None where there is nothing to see.
    """

    parts: list[galsim.GSObject]
    kinds: list[str]
    truth: dict = field(default_factory=dict)
    resemblance: tuple[float, float] | None = None

    @property
    def flux(self) -> float:
        """Total flux of the object in counts."""
        return float(sum(part.flux for part in self.parts))

    def rescaled(self, step: float) -> "Scene":
        """The same scene, fainter by `step` magnitudes; sizes and contrasts stay."""
        factor = 10 ** (-0.4 * step)
        resemblance = self.resemblance and (self.resemblance[0], self.resemblance[1] * factor)
        fainter = {name: value + step for name, value in self.truth.items() if name.endswith("magnitude")}
        parts = [light.scaled(part, factor) for part in self.parts]
        return Scene(parts, self.kinds, self.truth | fainter, resemblance)


def _point_magnitude(rng: np.random.Generator) -> float:
    return light.draw_magnitude(rng, *LIGHT.point_magnitudes)


def _galaxy_magnitude(rng: np.random.Generator) -> float:
    return light.draw_magnitude(rng, *LIGHT.galaxy_magnitudes)


def _separation(rng: np.random.Generator, low: float, high: float) -> float:
    """Pairs are evenly spread over the sky, with a share of close ones, which a preselection favours."""
    if rng.random() < SHAPES.pair_close_share:
        return float(rng.uniform(low, SHAPES.pair_close_limit))
    return float(np.sqrt(rng.uniform(low**2, high**2)))


def _at(rng: np.random.Generator, radius: float) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _beside(rng: np.random.Generator, at: tuple[float, float] | None, radius: float) -> tuple[float, float]:
    """A place at `radius` in any direction, or `at`, which a catalogue knows to a tenth of an arcsecond."""
    if at is None:
        return _at(rng, radius)
    x, y = np.array(at) + rng.normal(0, 0.1, 2)
    return float(x), float(y)


def _fainter_by(rng: np.random.Generator) -> float:
    return float(abs(rng.normal(0, SHAPES.pair_contrast)) % 2.5)


def _pair(parts: list, kinds: list[str], mag: float, other: float, separation: float, **truth) -> Scene:
    """A scene of two objects of these magnitudes, arcsec apart, that may be taken for lensed images."""
    truth["companion_separation"] = separation
    truth["companion_flux_ratio"] = float(10 ** (-0.4 * abs(other - mag)))
    return Scene(parts, kinds, truth, (separation, float(light.counts(max(mag, other)))))


def point_source(rng: np.random.Generator) -> Scene:
    """A quasar in its host, whose brightness follows from the redshift."""
    mag = _point_magnitude(rng)
    redshift = draw_quasar_redshift(rng)
    typical, slope, scatter = LIGHT.host_magnitude
    host = float(typical + slope * np.log10(redshift / 1.2) + rng.normal(0, scatter))
    galaxy = light.host(host, rng)
    truth = {"point_magnitude": mag, "host_magnitude": host, "z_source": redshift, **galaxy.truth("host")}
    return Scene([light.point(mag), galaxy.light], ["quasar", galaxy.kind], truth)


def galaxy_alone(draw: Callable[..., light.Galaxy], rng: np.random.Generator, brighter=0.0) -> Scene:
    """A galaxy of the field as `draw` makes it, `brighter` by so many magnitudes than they usually are."""
    galaxy = draw(_galaxy_magnitude(rng) - brighter, rng)
    return Scene([galaxy.light], [galaxy.kind], galaxy.truth("galaxy"))


def star_galaxy(rng: np.random.Generator, at: tuple[float, float] | None = None) -> Scene:
    """A point source beside a galaxy, which stands `at` this place if it is given."""
    mag = _point_magnitude(rng)
    other = float(np.clip(mag + rng.normal(0, SHAPES.galaxy_contrast), 17.5, 23.3))
    x, y = _beside(rng, at, _separation(rng, 0.4, SHAPES.pair_separation[1]))
    galaxy = light.galaxy(other, rng, x, y)
    parts, kinds = [light.point(mag), galaxy.light], ["point", galaxy.kind]
    return _pair(parts, kinds, mag, other, float(np.hypot(x, y)), **galaxy.truth("galaxy"))


def star_star(rng: np.random.Generator, at: tuple[float, float] | None = None) -> Scene:
    """Two point sources by chance or bound to each other, the second `at` this place if it is given."""
    mag = _point_magnitude(rng)
    other = mag + _fainter_by(rng)
    x, y = _beside(rng, at, _separation(rng, *SHAPES.pair_separation))
    parts = [light.point(mag), light.point(other, x, y)]
    return _pair(parts, ["point", "star"], mag, other, float(np.hypot(x, y)))


def quasar_companion(rng: np.random.Generator) -> Scene:
    """A quasar in its host with one or two companion galaxies."""
    quasar = point_source(rng)
    mag, parts, kinds = quasar.truth["point_magnitude"], quasar.parts, quasar.kinds
    companions = []
    for _ in range(rng.integers(1, 3)):
        separation = _separation(rng, 0.7, 4.5)
        other = float(np.clip(mag + rng.uniform(*SHAPES.companion_fainter), 19, 24))
        companions.append((other, separation, light.galaxy(other, rng, *_at(rng, separation))))
        parts.append(companions[-1][2].light)
        kinds.append(companions[-1][2].kind)
    other, separation, galaxy = min(companions, key=lambda companion: companion[0])
    return _pair(parts, kinds, mag, other, separation, **quasar.truth, **galaxy.truth("galaxy"))


def pair_galaxy(rng: np.random.Generator) -> Scene:
    """The hard mimic: two or three unrelated points and a galaxy, often between them."""
    mag, separation = _point_magnitude(rng), _separation(rng, 0.6, 3.6)
    other = mag + _fainter_by(rng)
    x, y = _at(rng, separation)
    along, off = rng.uniform(-0.3, 1.3), rng.normal(0, 0.35, 2)
    middle = float(np.clip(mag + rng.normal(0.4, 1.0), 18, 23))
    galaxy = light.galaxy(middle, rng, x * along + off[0], y * along + off[1])
    parts, kinds = [light.point(mag), light.point(other, x, y), galaxy.light], ["point", "star", galaxy.kind]
    if rng.random() < 0.15:
        third = _separation(rng, *SHAPES.pair_separation)
        parts.append(light.point(mag + _fainter_by(rng), *_at(rng, third)))
        kinds.append("star")
    return _pair(parts, kinds, mag, other, separation, **galaxy.truth("galaxy"))


def merger(rng: np.random.Generator) -> Scene:
    """Two galaxies that interact, with a tidal arm."""
    mag, separation = _galaxy_magnitude(rng), float(rng.uniform(*SHAPES.merger_separation))
    other = mag + _fainter_by(rng)
    galaxy = light.galaxy(mag, rng)
    second = light.galaxy(other, rng, *_at(rng, separation))
    tail = light.tidal_arm(float(light.counts(mag)) * rng.uniform(*SHAPES.tail_light), rng)
    parts, kinds = [galaxy.light, second.light, *tail], [galaxy.kind, second.kind, *["tail"] * len(tail)]
    return _pair(parts, kinds, mag, other, separation, **galaxy.truth("galaxy"))


def artefact(rng: np.random.Generator) -> Scene:
    """A point or galaxy, spoilt later by an instrumental artefact."""
    if rng.random() < 0.5:
        return Scene([light.point(_point_magnitude(rng))], ["star"])
    return galaxy_alone(light.galaxy, rng)


def lens(rng: np.random.Generator) -> Scene:
    """A lensed quasar: its images, the deflector and, often, arcs of the host."""
    drawn = draw_lens(rng)
    parts = [light.point(*image) for image in zip(drawn.magnitudes, drawn.x, drawn.y, strict=True)]
    index, q, angle = rng.normal(*SHAPES.deflector_index), drawn.deflector_axis_ratio, drawn.deflector_angle
    parts.append(light.sersic(drawn.deflector_magnitude, drawn.deflector_radius, index, q, angle))
    kinds = [*["image"] * len(drawn.x), "deflector"]
    truth, mass = {name: getattr(drawn, name) for name in _LENS_COLUMNS}, drawn.lens
    truth |= {"deflector_ellipticity": 1 - q, "deflector_angle": angle % np.pi}
    truth |= {"ellipticity": 1 - mass.axis_ratio, "position_angle": mass.angle}
    truth |= {name: getattr(mass, name) for name in ("einstein_radius", "shear", "shear_angle")}
    truth |= {"n_images": len(drawn.x), "image_x": drawn.x.tolist(), "image_y": drawn.y.tolist()}
    truth |= {"image_magnitudes": drawn.magnitudes.tolist(), "magnifications": drawn.magnification.tolist()}
    if drawn.z_source < 3 and rng.random() < LIGHT.host_arc_fraction:
        typical, slope, scatter = LIGHT.host_arc_magnitude
        host = float(np.clip(rng.normal(typical + slope * (drawn.z_source - 1.5), scatter), 21.5, 26.5))
        galaxy = light.arcs(drawn, host, rng)
        parts.append(galaxy.light)
        kinds.append(galaxy.kind)
        truth |= {"host_magnitude": host, **galaxy.truth("host")}
    faint = float(light.counts(np.sort(drawn.magnitudes)[1]))
    return Scene(parts, kinds, truth, (drawn.separation, faint))


CLASSES: dict[str, Callable[..., Scene]] = {
    "point": point_source,
    "elliptical": partial(galaxy_alone, light.elliptical),
    "disk": partial(galaxy_alone, light.disk),
    "spiral": partial(galaxy_alone, light.spiral, brighter=SHAPES.spiral_brighter),
    "clumpy": partial(galaxy_alone, light.clumpy),
    "star_galaxy": star_galaxy,
    "star_star": star_star,
    "quasar_companion": quasar_companion,
    "pair_galaxy": pair_galaxy,
    "merger": merger,
    "artefact": artefact,
}

PAIRS = ("star_galaxy", "star_star")
"""Classes of which both components may be in the list, each with its own cutout."""


def make_scene(name: str, rng: np.random.Generator, at: tuple[float, float] | None = None) -> Scene:
    """Draw a scene of class `name`; `at` (arcsec) is where the second component of a pair stands."""
    if name == "lens":
        return lens(rng)
    return CLASSES[name](rng) if at is None else CLASSES[name](rng, at)


def neighbours(rng: np.random.Generator, width: float) -> Scene:
    """Stars and galaxies of the field over a square of `width` arcsec, none on the object itself."""
    found = Scene([], [])
    for _ in range(rng.poisson(LIGHT.neighbours * width**2)):
        mag = light.draw_magnitude(rng, *LIGHT.neighbour_magnitudes)
        x, y = rng.uniform(-width / 2, width / 2, 2)
        if np.hypot(x, y) < 1.0 and mag < 25:
            continue
        if rng.random() < LIGHT.neighbour_stars:
            part, kind = light.point(mag, x, y), "star"
        else:
            galaxy = light.galaxy(mag, rng, x, y) if mag < 23.5 else light.faint_galaxy(mag, rng, x, y)
            part, kind = galaxy.light, galaxy.kind
        found.parts.append(part)
        found.kinds.append(kind)
    return found
