"""A candidate list with a guarantee on the share of false ones.

Conformal p-values compare an object's score with those of ordinary objects that took no part in any choice
(Vovk, Gammerman and Shafer 2005; Laxhammar and Falkman 2010). Under exchangeability they are valid p-values,
and although they share their calibration set, Benjamini and Hochberg's procedure on them keeps the false
discovery rate below its target (Bates et al. 2023, theorem 2).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lensq.detection.detectors import Detector
from lensq.statistics.guard import LeakageError, labelled, require_split


def conformal_p_values(normals: np.ndarray, score: np.ndarray) -> np.ndarray:
    """p = (1 + #{s_i >= s}) / (n + 1) for each score s, with s_i the scores of n ordinary objects.

    Args:
        normals: (n,) scores of the ordinary objects that calibrate.
        score: (m,) scores to test.

    Returns:
        (m,) p-values, the smallest possible one being 1 / (n + 1).

    Raises:
        ValueError: if there are no ordinary objects, or a score is not finite.
    """
    normals, score = np.sort(np.asarray(normals, np.float64)), np.asarray(score, np.float64)
    if not len(normals):
        raise ValueError("conformal p-values need at least one ordinary object that calibrates")
    if not (np.isfinite(normals).all() and np.isfinite(score).all()):
        raise ValueError("some scores are not finite; score these objects again")
    return (1 + len(normals) - np.searchsorted(normals, score, side="left")) / (len(normals) + 1)


def candidate_list(
    detector: Detector, calibration: pd.DataFrame, objects: pd.DataFrame, *, fdr: float = 0.1
) -> pd.DataFrame:
    """Rank objects and list those that keep the expected share of false ones below a target.

    The guarantee holds for objects that are exchangeable with those that calibrate unless they are
    anomalous: same survey, and neither trained on nor used to choose the detector. If lenses hide among
    those that calibrate, it still holds and the list gets shorter.

    Args:
        detector: chosen on the selection split.
        calibration: Scores table, rows of the conformal split only; its rejected objects are used.
        objects: Scores table of the objects to list.
        fdr: target false discovery rate.

    Returns:
        `objects`, the most anomalous first, with the columns `score`, `p`, `q` (p adjusted by Benjamini and
        Hochberg) and `listed` (q <= fdr).

    Raises:
        LeakageError: if a calibration row is of another split, or an object is its own reference.
    """
    require_split(calibration, "conformal", purpose="conformal calibration")
    normals = calibration[calibration["label"] == 0]
    if shared := len(np.intersect1d(normals["name"], objects["name"])):
        raise LeakageError(f"{shared} of the objects to list calibrate it; leave them out")
    score = detector.score(objects)
    p = conformal_p_values(detector.score(normals), score)
    q = stats.false_discovery_control(p)
    table = objects.assign(score=score, p=p, q=q, listed=q <= fdr)
    return table.sort_values("score", ascending=False, kind="stable")


def reach(calibration: int, objects: int, fdr: float) -> dict[str, float]:
    """What a calibration set of some size can promise about a survey.

    A p-value is never below 1 / (n + 1), and a list of k among m objects needs p-values of at most
    fdr k / m: too small a calibration set can only list many objects or none.

    Args:
        calibration: number of ordinary objects that calibrate, n.
        objects: number of objects to list m.
        fdr: target false discovery rate.

    Returns:
        `smallest_p`; `shortest_list`, the fewest objects that can be listed; `calibration_for_one`, the
        number that allows a list of one.
    """
    shortest = int(np.ceil(objects / (fdr * (calibration + 1)) * (1 - 1e-12)))
    for_one = int(np.ceil(objects / fdr * (1 - 1e-12)) - 1)
    return {"smallest_p": 1 / (calibration + 1), "shortest_list": shortest, "calibration_for_one": for_one}


def fdr_study(
    detector: Detector,
    scores: pd.DataFrame,
    *,
    fdrs: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    contaminations: Sequence[float] = (0.0,),
    n_calibration: int | None = None,
    prevalence: float = 0.051,
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Nominal against empirical false discovery rate when calibration and test sets are drawn anew.

    Each resample deals the ordinary objects anew, without replacement, to a calibration and a test set, and
    fills both up with anomalies: the test set to the prevalence, the calibration set to the contamination.
    Only rejected ones (label 0) calibrate; flagged ones are dealt to the test sets alone, in their share.

    Args:
        detector: chosen on the selection split; its `against` is the column of anomalies.
        scores: Scores table, rows of the conformal and test splits only.
        fdrs: target false discovery rates.
        contaminations: shares of the calibration set that are unrecognised anomalies.
        n_calibration: size of the calibration sets, by default two thirds of the rejected; the rest tests.
        prevalence: share of anomalies among the objects of a test set.
        resamples: number of draws, with this `seed`.

    Returns:
        One row a contamination and target: `contamination`, `nominal`, `empirical` (mean share of false ones
        in the list, an empty list counting 0), `error` (its standard error), `power` (mean share of anomalies
        listed), `listed` (mean length), `empty` (share of empty lists), `n_calibration`, `n_objects`,
        `n_anomalies`.

    Raises:
        LeakageError: if a row is of another split.
        ValueError: if there are too few objects of a class for these sizes.
    """
    require_split(scores, "conformal", "test", purpose="fdr_study")
    rows, positive = labelled(scores, detector.against)
    score, rejected = detector.score(rows), rows["label"].to_numpy() == 0
    normals, flagged, anomalies = score[~positive & rejected], score[~positive & ~rejected], score[positive]
    n_calibration = n_calibration or 2 * len(normals) // 3
    hidden = {share: round(share * n_calibration) for share in contaminations}
    most = max(hidden.values())
    by_anomalies = (len(anomalies) - most + 0.49) / max(prevalence, 1e-9)  # few of them: fewer objects
    n_objects = int(min((len(normals) - n_calibration) / (1 - prevalence), by_anomalies))
    n_positive = round(prevalence * n_objects)
    n_flagged = round(len(flagged) / max(len(normals) + len(flagged), 1) * (n_objects - n_positive))
    n_rejected = n_objects - n_positive - n_flagged
    if n_calibration + n_rejected > len(normals) or n_positive < 1:
        raise ValueError(
            f"{n_calibration} objects that calibrate, {most} of them hidden anomalies, and {n_objects} "
            f"to list with {n_positive} anomalies cannot be drawn from {len(normals)} rejected objects and "
            f"{len(anomalies)} anomalies; lower the sizes"
        )
    tables, classes = {}, (normals, flagged, anomalies)
    for contamination, n_hidden in hidden.items():
        sizes = n_calibration, n_hidden, n_positive, n_rejected, n_flagged
        tables[contamination] = _discoveries(_drawn(classes, sizes, resamples, seed), n_positive, fdrs)
    table = pd.concat(tables, names=["contamination"]).reset_index(level=0).reset_index(drop=True)
    return table.assign(n_calibration=n_calibration, n_objects=n_objects, n_anomalies=n_positive)


def _drawn(scores: tuple[np.ndarray, ...], sizes: tuple[int, ...], resamples: int, seed: int) -> np.ndarray:
    """p-values (resamples, objects) of the test sets of `fdr_study`, the anomalies first."""
    normals, flagged, anomalies = scores
    n_calibration, n_hidden, n_positive, n_rejected, n_flagged = sizes
    rng, p = np.random.default_rng(seed), []
    for _ in range(resamples):
        background, signal = rng.permutation(normals), rng.permutation(anomalies)
        calibration = background[: n_calibration - n_hidden], signal[n_positive : n_positive + n_hidden]
        others = background[n_calibration : n_calibration + n_rejected], rng.permutation(flagged)[:n_flagged]
        p.append(conformal_p_values(np.concatenate(calibration), np.r_[signal[:n_positive], *others]))
    return np.stack(p)


def _discoveries(p: np.ndarray, n_positive: int, fdrs: Sequence[float]) -> pd.DataFrame:
    """Rates over resamples: p (resamples, objects), the first `n_positive` objects being anomalies."""
    q = stats.false_discovery_control(p, axis=-1)
    rows = []
    for fdr in fdrs:
        listed = q <= fdr
        length, true = listed.sum(axis=1), listed[:, :n_positive].sum(axis=1)
        false_share = (length - true) / np.maximum(length, 1)
        error = false_share.std(ddof=1) / np.sqrt(len(p))
        means = false_share.mean(), error, true.mean() / n_positive, length.mean(), (length == 0).mean()
        rows.append((fdr, *means))
    return pd.DataFrame(rows, columns=["nominal", "empirical", "error", "power", "listed", "empty"])
