"""Injection and recovery: lenses injected into sky that a detector has not learnt from stand in for labels.

What trains a detector on injected lenses must not measure it as well. So these are injected into other
galaxies, as the stars of other tiles show point sources, and drawn from another population: of other
separations and flux ratios. Even so they flatter what has learnt from injected lenses (notebook 12).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
import yaml
from astropy import units as u
from astropy.coordinates import SkyCoord

from lensq.classifiers.finetuning import injection_options
from lensq.classifiers.injection import (
    Kind,
    Lenses,
    concentration,
    draw_lenses,
    draw_to_match,
    extended,
    in_reference_band,
    inject,
    point_sources,
    reference_band,
)
from lensq.models.batches import keyed_generator, read_pixels
from lensq.simulate.parameters import INSTRUMENT
from lensq.survey.files import atomic
from lensq.survey.fits import ZERO_POINT
from lensq.survey.inventory import state_of
from lensq.survey.lists import LISTS
from lensq.survey.provenance import code_hash
from lensq.survey.survey import Survey, read_survey

FEWEST = 200
"""Fewest objects whose galaxies and stars can be injected into."""

SPREAD = 0.2
"""Sigma of the factors by which separations and flux ratios differ from those of the training."""

FEWEST_LENSES = 5
"""Fewest lenses on the tiles of a split, where its galaxies suffice: baselines choose by five or more."""

SHARE = 0.05
"""Share of the objects of `write_injected` that get a lens; as many get unrelated sources, of each kind."""

NOTE = (
    "This survey has no labels. Lenses were injected into {lenses} of its {objects} objects and count as "
    "flagged, all others as rejected: every number is on injected lenses, and an upper limit for true ones."
)


def injected_survey(survey: Survey, rows: np.ndarray, *, n: int = 500, seed: int = 1) -> Survey:
    """Some objects as they are, and lenses that are injected into copies of their galaxies.

    Args:
        survey: the survey.
        rows: (m,) row numbers of the objects.
        n: how many lenses.
        seed: of all that is drawn; another than that of the training.

    Returns:
        A survey in memory. Its `truth` calls the injected ones lenses (`is_lens`) and the others none, which
        is not known of them; it has `class`, and of the injected ones `separation` (arcsec), `flux_ratio`
        and, where the zero point is known, `magnitude_i` and `deflector_magnitude` (mag) as a simulation has
        them. Copies of one galaxy share the group of the galaxy. There are no labels.

    Raises:
        ValueError: there are fewer than `FEWEST` objects.
    """
    if len(rows) < FEWEST:
        raise ValueError(
            f"{survey.folder}: {len(rows)} objects are too few to inject lenses into; give {FEWEST} or more"
        )
    generator = keyed_generator(seed, "recovery")
    galaxies = extended(survey, rows)
    galaxies = galaxies[torch.randint(len(galaxies), (n,), generator=generator).numpy()]
    options = replace(injection_options(survey), lenses=n, pool_seed=seed, spread=SPREAD)
    drawn = draw_lenses(n, seed, SPREAD)
    pool = in_reference_band(drawn, options.bands)
    pixels, scale = read_pixels(survey, galaxies), survey.pixel_scale
    in_reference = (reference_band(part, options.bands) for part in pixels)
    light = concentration(*in_reference, pixel_scale=scale)[1]
    lens = draw_to_match(pool.deflector, light, generator)
    templates = point_sources(survey, rows, seed=seed)
    images, mask = inject(*pixels, templates, "lens", generator, options, pixel_scale=scale, lens=lens)
    injected = _truth(pool, lens, light)
    if options.relative or pool is not drawn:  # not calibrated, or not of i
        injected = injected.drop(columns=["magnitude_i", "deflector_magnitude"])
    truth = pd.concat([pd.DataFrame({"class": "not known"}, range(len(rows))), injected], ignore_index=True)
    names = np.concatenate([survey.names[rows], [f"injected {i:05}" for i in range(n)]])
    truth = truth.assign(name=names, is_lens=(np.arange(len(names)) >= len(rows)).astype(int))
    both = np.concatenate([rows, galaxies])
    kept = ("group", "split", "zero_points", "zero_point_from", "pixel_scales", "scale_declared", "noise")
    columns = {name: getattr(survey, name) for name in kept}
    arrays = {name: values if values is None else values[both] for name, values in columns.items()}
    nowhere = np.full(len(names), np.nan) * u.deg
    return replace(
        survey,
        names=names,
        coordinates=SkyCoord(nowhere, nowhere),
        labels=np.full(len(names), -1, np.int8),
        graded=np.zeros(len(names), bool),
        images=np.concatenate([survey.images[rows], images.numpy()]),
        mask=np.concatenate([survey.mask[rows], mask.numpy()]),
        truth=truth,
        files=None,
        catalogue=None,
        fingerprint=hashlib.sha256("\n".join(names).encode() + images.numpy().tobytes()).hexdigest(),
        **arrays,
    )


def write_injected(survey: Path | str, folder: Path | str, *, seed: int = 2, **reading) -> Path:
    """Write a copy of a survey without labels in which lenses are injected, and flagged.

    `SHARE` of the objects, drawn from the galaxies of all splits alike, get a lens in place, of another
    population than that of `lensq.classifiers.finetune`; as many a single source, and as many an unrelated
    pair, which count as rejected, so that no trace of injecting tells. Everything that needs labels can
    work on the copy.

    Args:
        survey: folder of the survey.
        folder: of the copy: `cutouts.h5` (float32, NaN where masked, at the file's own pixel scale), the
            list of the flagged, and `survey.yml` with a note to the reader. Left alone if it is of this
            survey as it is now.
        seed: of all that is drawn.
        reading: `bands` and the like, see `lensq.survey.survey.read_survey`.

    Returns:
        The folder.

    Raises:
        ValueError: the survey has fewer than `FEWEST` objects.
    """
    made = {"survey": state_of(survey, **reading), "seed": seed, "code": code_hash("classifiers.recovery")}
    folder = Path(folder)
    record = folder / "injected.json"
    if record.is_file() and json.loads(record.read_text()) == made:
        return folder
    original = read_survey(survey, **reading)
    original = read_survey(survey, size=int(original.native_side), **reading)
    rows = np.arange(len(original))
    if len(rows) < FEWEST:
        raise ValueError(f"{survey}: {len(rows)} objects are too few for a book; give {FEWEST} or more")
    generator = keyed_generator(seed, "book")
    galaxies = extended(original, rows)
    galaxies = galaxies[torch.randperm(len(galaxies), generator=generator).numpy()]
    kinds: tuple[Kind, ...] = ("lens", "single", "pair")
    chosen: dict[Kind, list[int]] = {what: [] for what in kinds}
    for split in np.unique(original.split):
        n = max(FEWEST_LENSES, round(SHARE * len(original.rows(split))))
        for k, what in enumerate(kinds):
            chosen[what] += galaxies[original.split[galaxies] == split][k : 3 * n : 3].tolist()
    n = len(chosen["lens"])
    options = replace(injection_options(original), lenses=n, pool_seed=seed, spread=SPREAD)
    templates, scale = point_sources(original, rows, seed=seed), original.pixel_scale
    injected = {}
    for what, those in chosen.items():
        into = np.sort(those)
        pixels = read_pixels(original, into)
        injected[what] = into, *inject(*pixels, templates, what, generator, options, pixel_scale=scale)
    folder.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    with atomic(folder / "cutouts.h5") as partial:
        _write_copy(partial, original, injected.values(), calibrated=not options.relative)
    lenses = injected["lens"][0]
    note = NOTE.format(lenses=len(lenses), objects=len(rows))
    (folder / LISTS["selected"]).write_text("\n".join(original.names[lenses]) + "\n")
    (folder / "survey.yml").write_text(yaml.safe_dump({"note": note}))
    record.write_text(json.dumps(made))
    return folder


def _write_copy(path: Path, survey: Survey, injected: Iterable[tuple], *, calibrated: bool) -> None:
    """The images of a survey in an HDF5 file, those of some rows replaced: (rows, images, masks)."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", survey.images.shape, np.float32)
        for some in np.array_split(np.arange(len(survey)), -(-len(survey) // 1024)):
            images[some] = np.where(survey.mask[some], survey.images[some], np.nan)
        for rows, pixels, mask in injected:
            images[rows] = np.where(mask, pixels, np.nan)
        file["names"] = survey.names.astype(object)
        file["ra"], file["dec"] = survey.coordinates.ra.deg, survey.coordinates.dec.deg
        images.attrs["pixel_scale"] = survey.pixel_scale
        if any(survey.bands):
            images.attrs["bands"] = list(survey.bands)
        if calibrated:
            images.attrs["zero_point"] = ZERO_POINT


def _truth(pool: Lenses, lens: torch.Tensor, light: torch.Tensor) -> pd.DataFrame:
    """Properties of the lenses (B,) of a pool, injected into galaxies of this light (B,)."""
    x, y, flux = (part[lens].double().numpy() for part in pool[:3])
    apart = np.hypot(x[:, :, None] - x[:, None], y[:, :, None] - y[:, None])
    seen = (flux > 0)[:, :, None] & (flux > 0)[:, None]
    ordered = -np.sort(-flux, axis=1)
    deciding = np.where((flux > 0).sum(1) == 2, ordered[:, 1], ordered[:, 2])
    brightness = flux.sum(1), torch.minimum(pool.deflector[lens], light).double().numpy()
    magnitude, deflector = (INSTRUMENT.zero_point - 2.5 * np.log10(part) for part in brightness)
    return pd.DataFrame(
        {
            "class": "injected lens",
            "separation": np.where(seen, apart, 0).max((1, 2)),
            "flux_ratio": deciding / ordered[:, 0],
            "magnitude_i": magnitude,
            "deflector_magnitude": deflector,
        }
    )
