"""From a survey and a model to the Scores table: one row an object, each score a function of its image."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lensq.models.batches import read_pixels, workers
from lensq.models.networks import fold_normalisation
from lensq.models.training import Model
from lensq.models.variants import VAE
from lensq.scores.density import NEIGHBOURS, LatentDensity
from lensq.scores.residual import CENTRAL_RADIUS, central_residual
from lensq.survey.files import atomic
from lensq.survey.images import channels, check_pixels
from lensq.survey.images import symmetries as symmetries_of
from lensq.survey.provenance import code_hash

if TYPE_CHECKING:
    from lensq.survey.survey import Survey

ROW_GROUP = 8192
"""Rows of a Parquet row group, and the most that `score` holds in memory when it writes a file."""

PARQUET = {"use_dictionary": ["split"], "compression": "zstd", "compression_level": 1}
"""Looking for repeated numbers, as Parquet does by default, takes four times as long and finds none."""

COLUMNS = {
    "name": "name of the object",
    "ra": "right ascension, degrees, ICRS; NaN where unknown",
    "dec": "declination, degrees, ICRS; NaN where unknown",
    "split": "train, validation, selection, conformal or test",
    "label": "1 selected by eye, 0 rejected, -1 unlabelled",
    "graded": "whether the object is on the graded list",
    "reconstruction": "negative log likelihood of the image at the posterior mean, nats, over all pixels "
    "of all bands (masked pixels count as the mean of the valid ones)",
    "kl": "KL divergence of the posterior from the prior, nats, summed over dimensions",
    "elbo": "-(reconstruction + kl), less cluster_kl if there is one: evidence lower bound at z = mu, nats; "
    "the one score that is lower for more anomalous objects",
    "mutual_information": "log q(z|x) - log q(z) at z = mu, nats; q(z) from train objects in the model",
    "total_correlation": "log q(z) - sum_d log q(z_d) at z = mu, nats; from the same train objects",
    "dimension_wise_kl": "sum_d log q(z_d) - log p(z_d) at z = mu, nats; from the same train objects",
    "feature": "squared distance of image and reconstruction in a pretrained network's features",
    "svdd_distance": "distance of mu from the centre of the hypersphere",
    "cluster_kl": "KL divergence of q(y|x) from the mixture's prior p(y), nats",
    "anomaly_logit": "log q(anomaly|x) - log q(normal|x); from a classifier that saw labels",
    "central_residual": f"mean squared residual over the valid pixels within {CENTRAL_RADIUS:g} native "
    "pixels of the centre, less the squared noise (robust, from the residual's border); preprocessed units",
    "mahalanobis": "Mahalanobis distance of mu from the mean of the train posterior means, covariance shrunk "
    "after Ledoit & Wolf",
    "knn": f"mean distance of mu to the nearest {NEIGHBOURS} train posterior means, so whitened",
    "cluster": "most probable mixture component",
    "responsibility_<d>": "probability q(y|x) of mixture component d",
    "mu_<d>": "posterior mean in latent dimension d",
    "logvar_<d>": "log variance of the posterior in latent dimension d",
    "kl_<d>": "KL divergence in latent dimension d, nats",
}
"""What each column of the Scores table holds; higher is more anomalous in all scores but `elbo`."""


_NOT_RANKED = {"name", "ra", "dec", "split", "label", "graded", "elbo", "anomaly_logit", "cluster"}


def label_free(scores: pd.DataFrame) -> list[str]:
    """The columns of a Scores table that rank objects, the higher the more anomalous, without a label's help.

    The ELBO is left out, because `reconstruction` and `kl` say what it says. A model that was trained with
    labels (`Model.settings["uses_labels"]`) passes what it learnt of them on to every column.

    Args:
        scores: Scores table.
    """
    return [name for name in COLUMNS if name in scores and name not in _NOT_RANKED]


def _view_scores(
    vae: VAE, x: Tensor, mask: Tensor, density: LatentDensity, radius: float
) -> dict[str, Tensor]:
    """Scores of one view of each image (B,); "mu", "logvar", "kl_by_dimension" (B, D), "cluster" (B, K)."""
    terms = {name: value.float() for name, value in vae(x, mask).items()}
    scores = {name: terms[name] for name in ("reconstruction", *vae.objective.extras, "mu", "logvar")}
    scores["kl_by_dimension"], scores["kl"] = terms["kl"], terms["kl"].sum(1)
    scores["elbo"] = -(scores["reconstruction"] + scores["kl"] + terms.get("cluster_kl", 0.0))
    scores["central_residual"] = central_residual(x - terms["mean"], mask, radius)
    scores["mahalanobis"], scores["knn"] = density(terms["mu"])
    return scores | ({"cluster": terms["cluster"]} if "cluster" in terms else {})


class _Scorer:
    """A private copy of a model on a device, so that scoring leaves the model as it was."""

    def __init__(self, model: Model, survey: Survey, symmetries: bool, precision: str) -> None:
        check_pixels(survey, {"size": model.vae.config.size, **model.settings})
        if precision not in ("fp32", "bf16"):
            raise ValueError(f'precision={precision!r}: take "fp32" or "bf16"')
        if model.vae.reference is None:
            raise ValueError("the model has no reference sample of train objects: fit it to the end")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.vae = fold_normalisation(copy.deepcopy(model.vae).to(self.device).eval())
        self.preprocessing, self.survey, self.symmetries = model.preprocessing, survey, symmetries
        self.half = precision == "bf16"
        self.density = LatentDensity(self.vae.reference[0])
        self.radius = CENTRAL_RADIUS / survey.native_pixels

    @torch.inference_mode()
    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Score columns of these rows: name to (B,) float32, or int16 for `cluster`."""
        images, mask = read_pixels(self.survey, rows, self.device)
        x, mask = self.preprocessing(images, mask), channels(mask)
        views = zip(symmetries_of(x), symmetries_of(mask), strict=True) if self.symmetries else [(x, mask)]
        total: dict[str, Tensor] = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            for view in views:
                scores = _view_scores(self.vae, *view, self.density, self.radius)
                total = {name: total[name] + value if total else value for name, value in scores.items()}
        count = 8 if self.symmetries else 1
        columns = {name: (value / count).cpu().numpy() for name, value in total.items()}
        wide = {f"{name}_{{}}": columns.pop(name) for name in ("mu", "logvar")}
        wide["kl_{}"] = columns.pop("kl_by_dimension")
        if "cluster" in columns:
            wide["responsibility_{}"] = columns["cluster"]
            columns["cluster"] = columns["cluster"].argmax(1).astype(np.int16)
        for name, values in wide.items():
            columns |= {name.format(d): values[:, d] for d in range(values.shape[1])}
        return columns


def _described(name: str) -> dict[str, str]:
    stem, _, number = name.rpartition("_")
    return {"description": COLUMNS[f"{stem}_<d>" if number.isdigit() else name]}


def _table(survey: Survey, rows: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Table:
    coordinates = survey.coordinates[rows]
    own = {"name": survey.names[rows].astype(object), "ra": coordinates.ra.deg, "dec": coordinates.dec.deg}
    own |= {"split": survey.split[rows].astype(object), "label": survey.labels[rows]}
    own["graded"] = survey.graded[rows]
    arrays = {name: pa.array(np.asarray(values)) for name, values in (own | columns).items()}
    fields = [pa.field(name, array.type, metadata=_described(name)) for name, array in arrays.items()]
    return pa.table(list(arrays.values()), schema=pa.schema(fields))


def _tables(scorer: _Scorer, rows: np.ndarray, batch_size: int, progress: bool) -> Iterator[pa.Table]:
    bar = tqdm(total=len(rows), unit=" objects", desc="score", disable=not progress)
    with bar, workers(scorer.device) as run:
        for group in np.split(rows, range(ROW_GROUP, len(rows), ROW_GROUP)):
            parts = []
            for part in run(scorer, np.split(group, range(batch_size, len(group), batch_size))):
                parts.append(part)
                bar.update(len(part["kl"]))
            columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            yield _table(scorer.survey, group, columns)


def score(
    model: Model,
    survey: Survey,
    *,
    out: str | Path | None = None,
    rows: np.ndarray | None = None,
    symmetries: bool = False,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: bool = True,
) -> pd.DataFrame | Path:
    """Score objects of a survey with a trained model, on a GPU where there is one.

    Each score is a function of one image and the model: it depends on no other object, batch or order.

    Args:
        model: A fitted model; it is left as it was.
        survey: The survey, read with the size that the model takes.
        out: Parquet file to write, row group by row group, so that memory does not grow with the survey; it
            appears under its name when it is whole. None returns a DataFrame.
        rows: (n,) rows of the survey to score, such as `survey.rows("test")`; None scores all.
        symmetries: Average all but `cluster` over the eight symmetries of the square (eight times the cost);
            `cluster` is then the most probable component of the averaged probabilities.
        batch_size: Objects at a time; changes speed alone. None takes 64 on a CPU, whose caches larger ones
            overflow (256 ran at .5 to .9 of the speed), and 1,024 on a GPU.
        precision: "bf16" runs convolutions in bf16: faster where the hardware can, ranks nearly the same.
        progress: Show a progress bar.

    Returns:
        One row an object with the columns in `COLUMNS` (those of the variant), in the survey's order; `attrs`
        holds the fingerprints. With `out`, its path; the Parquet metadata holds the fingerprints and each
        column's meaning.

    Raises:
        ValueError: The survey was read at another size or in other bands than the model takes, a cutout has
            no valid pixel, there are no rows, or the precision is not known.
    """
    scorer = _Scorer(model, survey, symmetries, precision)
    rows = np.arange(len(survey)) if rows is None else rows
    if not len(rows):
        raise ValueError(f"rows: no object of the survey {survey.folder} is in them")
    said = {"model": model.fingerprint, "variant": model.vae.config.variant, "survey": survey.fingerprint}
    said |= {"symmetries": str(symmetries), "precision": precision, "code": code_hash("scores.scoring")}
    about = {f"lensq_{name}": value for name, value in said.items()}
    batch_size = batch_size or (64 if scorer.device.type == "cpu" else 1024)
    tables = _tables(scorer, rows, batch_size, progress)
    if out is None:
        frame = pa.concat_tables(tables).to_pandas()
        frame.attrs |= about
        return frame
    return _write(Path(out), tables, about)


def _write(path: Path, tables: Iterator[pa.Table], about: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(tables).replace_schema_metadata(about)
    with atomic(path) as partial, pq.ParquetWriter(partial, first.schema, **PARQUET) as writer:
        for table in chain([first], tables):
            writer.write_table(table.replace_schema_metadata(about))
    return path


@torch.inference_mode()
def reconstruct(model: Model, survey: Survey, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and reconstructions at the posterior mean, for figures.

    Args:
        model: A fitted model; it is left as it was.
        survey: The survey, read with the size that the model takes.
        rows: (n,) row indices.

    Returns:
        Preprocessed images and reconstructions, each (n, S, S) float32, or (n, C, S, S) of several bands;
        NaN where masked.

    Raises:
        ValueError: The survey was read at another size than the model takes, or in other bands.
    """
    check_pixels(survey, {"size": model.vae.config.size, **model.settings})
    images, mask = read_pixels(survey, np.asarray(rows))
    x, mask = model.preprocessing(images, mask), channels(mask)
    mean = copy.deepcopy(model.vae).cpu().eval()(x, mask)["mean"]
    return tuple(torch.where(mask, values, torch.nan).squeeze(1).numpy() for values in (x, mean))
