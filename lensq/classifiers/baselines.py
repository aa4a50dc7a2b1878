"""What a variational autoencoder must beat: detectors that take minutes to write and seconds to train.

A baseline gives the same kind of table as a VAE, so that the same detectors, thresholds and intervals serve.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from lensq.scores.residual import CENTRAL_RADIUS, central_residual
from lensq.statistics.guard import labelled
from lensq.survey.images import Preprocessing, band_weights, channels, noise_level

_OF_COMPONENTS = ("pca_residual", "pca_mse", "pca_knn", "deep_svdd", "pca_logistic")
_OF_FEATURES = ("isolation_forest", "ecod")

COLUMNS = ("pca_residual", "pca_mse", "pca_knn", "deep_svdd", "isolation_forest", "ecod", "pca_logistic")
"""The score columns, all higher for more anomalous objects.

pca_residual: mean squared residual from the components in the central disc, less the noise of the border.
pca_mse: mean squared residual from the principal components over all real pixels.
pca_knn: mean distance to the 10 nearest train objects in whitened principal components.
deep_svdd: distance from the centre of a hypersphere that a small network maps whitened components to
    (Ruff et al. 2018), by PyOD.
pca_logistic: logistic regression on the components, with the labels of the selection split.
isolation_forest: isolation forest (Liu et al. 2008) on simple features of the light.
ecod: tail probabilities of the simple features (Li et al. 2022), as -log.
"""

USES_LABELS = frozenset({"pca_logistic"})
"""The columns that need labels; all others are trained on unlabelled images."""

_BATCH = 1024
_MOST_TRAIN = 10_000  # objects, drawn at random
_NEIGHBOURS = 10
_FOLDS = 5
_SVDD_EPOCHS = 20
_APERTURE = 12.0  # pixels
_CORE, _INNER = 2.5, 5.0  # pixels


def simple_features(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Ten numbers a band that describe the light within 12 pixels of the centre.

    Args:
        images: (N, S, S) flux, or (N, C, S, S) of several bands.
        mask: bool, as large, True where a pixel is real.

    Returns:
        (N, 10 C) float64, band after band: log10 of the flux in units of the sky noise; share of it
        within 2.5 and within 5 pixels; light outside the aperture over light inside; root mean square radius
        (pixels); ellipticity from second moments (0 to 1); asymmetry under half a turn; distance of the
        centroid from the centre (pixels); number of local maxima above 5 times the noise; share of the
        brightest pixel.
    """
    if images.ndim == 4:
        bands = range(images.shape[1])
        return np.concatenate([simple_features(images[:, k], mask[:, k]) for k in bands], axis=1)
    tensors = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(np.ascontiguousarray(mask))
    noise = np.maximum(noise_level(*tensors).numpy().astype(np.float64), 1e-12)[:, None, None]
    size = images.shape[-1]
    offset = np.arange(size) - size // 2
    y, x = offset[:, None].astype(float), offset.astype(float)
    radius = np.hypot(y, x)
    inside = radius <= _APERTURE
    image = np.where(mask, images, 0).astype(np.float64) / noise
    light = np.clip(image, 0, None)

    def total(weights, pixels=light):
        return np.sum(pixels * weights, axis=(1, 2))

    flux = np.maximum(total(inside), 1e-6)
    mean_x, mean_y = total(inside * x) / flux, total(inside * y) / flux
    xx = total(inside * x**2) / flux - mean_x**2
    yy = total(inside * y**2) / flux - mean_y**2
    xy = total(inside * x * y) / flux - mean_x * mean_y
    first = size - 2 * (size // 2) == 0  # an even side has no partner for its first row and column
    turned = np.zeros_like(image)
    turned[:, first:, first:] = image[:, first:, first:][:, ::-1, ::-1]
    inner = image[:, 1:-1, 1:-1]
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    highest = np.max([image[:, i : i + size - 2, j : j + size - 2] for i, j in shifts], axis=0)
    peaks = np.sum((inner > 5) & (inner > highest) & inside[1:-1, 1:-1], axis=(1, 2))
    columns = (
        np.log10(flux),
        total(radius <= _CORE) / flux,
        total(radius <= _INNER) / flux,
        total(~inside) / flux,
        np.sqrt(np.maximum(xx + yy, 0)),
        np.hypot(xx - yy, 2 * xy) / np.maximum(xx + yy, 1e-9),
        np.sum(np.abs(image - turned) * inside, axis=(1, 2)) / flux,
        np.hypot(mean_x, mean_y),
        peaks,
        np.max(light * inside, axis=(1, 2)) / flux,
    )
    return np.stack(columns, axis=1)


def tail_scores(train: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Outlyingness from empirical tail probabilities of each feature, ECOD (Li et al. 2022, algorithm 1).

    PyOD has an ECOD too, but it ranks objects among those that they are scored with, so that an object's
    score depends on its batch.

    Args:
        train: (n, F) features of train objects.
        values: (N, F) features to score.

    Returns:
        (N,) the largest of the summed -log probabilities of left tails, of right tails, and of the tail on
        each feature's skewed side.
    """
    n = len(train)
    ordered = np.sort(train, axis=0)
    left, right = np.empty(values.shape), np.empty(values.shape)
    for f in range(values.shape[1]):
        left[:, f] = np.searchsorted(ordered[:, f], values[:, f], side="right")
        right[:, f] = n - np.searchsorted(ordered[:, f], values[:, f], side="left")
    left, right = (-np.log((1 + tail) / (n + 1)) for tail in (left, right))
    skewed_right = np.mean((train - train.mean(axis=0)) ** 3, axis=0) > 0
    skewed = np.where(skewed_right, right, left)
    return np.max([tail.sum(axis=1) for tail in (left, right, skewed)], axis=0)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // _BATCH))


def _read(
    preprocessing: Preprocessing, images: np.ndarray, mask: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux and mask (B, [C,] S, S) and preprocessed pixels (B, C*S*S) of some rows."""
    flux, real = np.asarray(images[rows], np.float32), np.asarray(mask[rows], bool)
    return flux, real, preprocessing(torch.from_numpy(flux), torch.from_numpy(real)).flatten(1).numpy()


def _preprocessing(images: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> Preprocessing:
    """Min-max of each image, what the principal components see; several bands at the same sky noise."""
    if images.ndim == 3:
        return Preprocessing()
    some = rows[:: max(1, len(rows) // 1024)]
    noise = noise_level(torch.from_numpy(images[some]), torch.from_numpy(mask[some]))
    return Preprocessing(weights=band_weights(noise, 0))


class _Seconds(dict):
    """Seconds by detector: what several of them need counts for each."""

    @contextmanager
    def spent_on(self, *names: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        for name in names:
            self[name] = self.get(name, 0.0) + time.monotonic() - begun


def _fit_deep_svdd(codes: np.ndarray, seed: int) -> Any:
    """PyOD's Deep SVDD on whitened components (N, F).

    It draws from the global generators: they are seeded here, and given back as they were.
    """
    from pyod.models.deep_svdd import DeepSVDD

    state = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            np.random.seed(seed)  # noqa: NPY002
            how = {"epochs": _SVDD_EPOCHS, "batch_size": 128, "verbose": 0, "random_state": seed}
            return DeepSVDD(codes.shape[1], **how).fit(codes)
    finally:
        np.random.set_state(state)  # noqa: NPY002


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted baselines; `score` is a function of each image alone.

    Attributes:
        preprocessing: turns flux into what the components see.
        pca: principal components of train images.
        scale: standard deviation of each component, for distances.
        neighbours: train objects in whitened components.
        svdd: PyOD's Deep SVDD on whitened components.
        forest: isolation forest on `simple_features`.
        train_features: `simple_features` of train objects.
        radius: of the disc of `pca_residual` in pixels of the images.
        classifier: standardisation and logistic regression on components.
        out_of_fold: name to `pca_logistic` of the labelled selection objects by classifiers that did not see
            them.
        labels_used: number of labels that the columns in `USES_LABELS` saw.
        train_s: column to seconds of training, that of its components or features included.
    """

    preprocessing: Preprocessing
    pca: PCA
    scale: np.ndarray
    neighbours: NearestNeighbors
    svdd: Any
    forest: IsolationForest
    train_features: np.ndarray
    radius: float
    classifier: Pipeline
    out_of_fold: pd.Series
    labels_used: int
    train_s: dict[str, float]

    def score(self, images: np.ndarray, mask: np.ndarray, objects: pd.DataFrame) -> pd.DataFrame:
        """Score images, of the survey fitted on or of another.

        Args:
            images: (N, S, S) flux, or (N, C, S, S) of several bands.
            mask: bool, as large, True where a pixel is real.
            objects: N rows with name, split, label, graded, and whatever else is to be kept.

        Returns:
            `objects` with the columns of `COLUMNS`; `attrs["score_per_s"]` maps each column to its rate,
            objects a second.
        """
        parts, clock = [], _Seconds()
        for rows in _parts(np.arange(len(objects))):
            with clock.spent_on(*COLUMNS):
                pixels = _read(self.preprocessing, images, mask, rows)
            parts.append(self._scores(*pixels, clock))
        table = objects.assign(**{name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})
        table.attrs["score_per_s"] = {name: len(table) / clock[name] for name in COLUMNS}
        return table

    def _scores(self, flux: np.ndarray, real: np.ndarray, x: np.ndarray, clock: _Seconds) -> dict:
        with clock.spent_on(*_OF_COMPONENTS):
            codes = self.pca.transform(x)
        with clock.spent_on("pca_residual", "pca_mse"):
            residual = np.where(real.reshape(x.shape), x - self.pca.inverse_transform(codes), 0)
        with clock.spent_on(*_OF_FEATURES):
            features = simple_features(flux, real)

        def central() -> np.ndarray:
            square = torch.from_numpy(residual.reshape(real.shape).astype(np.float32))
            return central_residual(channels(square), channels(torch.from_numpy(real)), self.radius).numpy()

        scores = {
            "pca_residual": central,
            "pca_mse": lambda: (residual**2).sum(axis=1) / np.maximum(real.reshape(x.shape).sum(axis=1), 1),
            "pca_knn": lambda: self.neighbours.kneighbors(codes / self.scale)[0].mean(axis=1),
            "deep_svdd": lambda: self.svdd.decision_function(codes / self.scale),
            "isolation_forest": lambda: -self.forest.score_samples(features),
            "ecod": lambda: tail_scores(self.train_features, features),
            "pca_logistic": lambda: self.classifier.decision_function(codes),
        }
        part = {}
        for name, score in scores.items():
            with clock.spent_on(name):
                part[name] = score()
        return part

    def held_out(self, selection: pd.DataFrame) -> pd.DataFrame:
        """A table of `score` in which no classifier has seen the labelled selection objects that it scores.

        Args:
            selection: table of `score`, of the survey fitted on.
        """
        blind = selection["name"].map(self.out_of_fold).where(selection["split"] == "selection")
        return selection.assign(pca_logistic=blind.fillna(selection["pca_logistic"]))


def fit_baselines(
    images: np.ndarray,
    mask: np.ndarray,
    objects: pd.DataFrame,
    *,
    components: int = 16,
    against: str = "label",
    radius: float = CENTRAL_RADIUS,
    seed: int = 0,
) -> Baselines:
    """Fit all baselines: on train images without labels, the classifier on labels of the selection split.

    Args:
        images: (N, S, S) flux, or (N, C, S, S) of several bands.
        mask: bool, as large, True where a pixel is real.
        objects: N rows with name, split, label, graded.
        components: number of principal components.
        against: the column that the classifier learns.
        radius: of the disc of `pca_residual` in pixels of the images; `CENTRAL_RADIUS` is in native ones.
        seed: seed of the draw of at most 10,000 train objects, of the forest and of the folds.

    Raises:
        ValueError: if there are fewer train objects than components, or too few labels for 5 folds.
    """
    rng, clock = np.random.default_rng(seed), _Seconds()
    state = int(rng.integers(2**31))
    train = np.flatnonzero(objects["split"] == "train")
    if len(train) <= components:
        raise ValueError(f"{len(train)} train objects cannot give {components} principal components")
    train = np.sort(rng.permutation(train)[:_MOST_TRAIN])
    with clock.spent_on(*COLUMNS):
        preprocessing = _preprocessing(images, mask, train)
        parts = [_read(preprocessing, images, mask, rows) for rows in _parts(train)]
        flux, real, x = map(np.concatenate, zip(*parts, strict=True))
    with clock.spent_on(*_OF_COMPONENTS):
        pca = PCA(components, svd_solver="randomized", random_state=state).fit(x)
        codes = pca.transform(x)
        scale = np.maximum(codes.std(axis=0), 1e-12)
    with clock.spent_on("pca_knn"):
        neighbours = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(train))).fit(codes / scale)
    with clock.spent_on("deep_svdd"):
        svdd = _fit_deep_svdd(codes / scale, state)
    with clock.spent_on(*_OF_FEATURES):
        features = simple_features(flux, real)
    with clock.spent_on("isolation_forest"):
        forest = IsolationForest(n_estimators=200, random_state=state).fit(features)
    with clock.spent_on("pca_logistic"):
        known, positive = _labelled(objects, against)
        read = (_read(preprocessing, images, mask, rows) for rows in _parts(known.index.to_numpy()))
        selection = np.concatenate([pca.transform(x) for _, _, x in read])
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        classifier = make_pipeline(StandardScaler(), regression)
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=state)
        blind = cross_val_predict(classifier, selection, positive, cv=folds, method="decision_function")
        classifier.fit(selection, positive)
    blind = pd.Series(blind, index=known["name"].to_numpy())
    fitted = preprocessing, pca, scale, neighbours, svdd, forest, features, radius, classifier, blind
    return Baselines(*fitted, labels_used=len(known), train_s=dict(clock))


def _labelled(objects: pd.DataFrame, against: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Labelled objects of the selection split, and which are positive."""
    rows = objects.reset_index(drop=True)
    known, positive = labelled(rows[rows["split"] == "selection"], against)
    if min(positive.sum(), (~positive).sum()) < _FOLDS:
        raise ValueError(f"the selection split needs at least {_FOLDS} labelled objects of each class")
    return known, positive
