"""Scores: pure functions of one image and the model, masked pixels unseen, one documented table."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr
from toy import toy_survey

from lensq.models.training import fit, load_model
from lensq.models.variants import MODELS
from lensq.scores import scoring
from lensq.scores.density import LatentDensity
from lensq.scores.residual import central_residual
from lensq.scores.scoring import COLUMNS, label_free, reconstruct, score
from lensq.survey.images import Preprocessing, noise_level, symmetries

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

OPTIONS = {
    "width": 4,
    "latent": 4,
    "noise_scale": 0.2,
    "reference_size": 64,
    "batch_size": 16,
    "progress": False,
}
ABOUT = ["name", "ra", "dec", "split", "label", "graded"]


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return toy_survey(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def models(survey, tmp_path_factory):
    """A few epochs of each variant, trained when first asked for."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def model(variant):
        if variant not in made:
            options = OPTIONS | {"epochs": 12, "learning_rate": 1e-2, "schedule": "constant"}
            made[variant] = fit(survey, variant, out=folder / variant, **options)
        return made[variant]

    return model


@pytest.fixture(scope="module")
def model(models):
    return models("RESNET18_BETATC_VAE")


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index("name").drop(columns=ABOUT[1:])


def assert_close(left: pd.DataFrame, right: pd.DataFrame, tolerance: float = 1e-4) -> None:
    """Equal within a share of each score's standard deviation, object by object."""
    left, right = numbers(left), numbers(right)
    assert list(left.columns) == list(right.columns)
    off = (left - right.loc[left.index]).abs() / right.std().clip(lower=1e-6)
    assert off.max().max() < tolerance, off.max().sort_values().tail()


def rearranged(survey, order):
    """The survey with its objects in another order."""
    per_object = ("names", "coordinates", "labels", "graded", "images", "mask", "group", "split")
    return replace(survey, **{name: getattr(survey, name)[order] for name in per_object})


@pytest.mark.parametrize("variant", list(MODELS))
def test_scores_depend_on_nothing_but_image_and_model(variant, models, survey, tmp_path):
    model = models(variant)
    model.vae.train()
    state = {name: value.clone() for name, value in model.vae.state_dict().items()}
    scores = score(model, survey, progress=False)
    assert np.isfinite(numbers(scores).to_numpy()).all()

    assert_close(score(model, survey, batch_size=1, progress=False), scores)
    order = np.random.default_rng(1).permutation(len(survey))
    assert_close(score(model, rearranged(survey, order), batch_size=37, progress=False), scores)
    few = rearranged(survey, order[:5])
    assert_close(score(model, few, progress=False).iloc[:5], scores)

    loaded = load_model(model.save(tmp_path / "model.pt"))
    pd.testing.assert_frame_equal(score(loaded, survey, progress=False), scores)
    assert all(module.training for module in (model.vae, model.vae.encoder, model.vae.decoder))
    model.vae.eval()
    assert all(torch.equal(state[name], value) for name, value in model.vae.state_dict().items())


@pytest.mark.parametrize("variant", list(MODELS))
def test_bf16_ranks_as_fp32(variant, models, survey):
    exact = numbers(score(models(variant), survey, progress=False))
    rough = numbers(score(models(variant), survey, precision="bf16", progress=False))
    # So small a model and set make the latent and the subtracted scores rough; in use they reach .9997 too.
    least = {"reconstruction": 0.999, "elbo": 0.999, "kl": 0.999}
    extras = {"feature", "svdd_distance", "dimension_wise_kl", "anomaly_logit"} & set(
        models(variant).vae.objective.extras
    )
    for name in (*least, "mahalanobis", "knn", "central_residual", *extras):
        assert spearmanr(exact[name], rough[name]).statistic > least.get(name, 0.99), name


@pytest.mark.parametrize("variant", list(MODELS))
def test_scores_tell_objects_apart(variant, models, survey):
    scores = score(models(variant), survey, progress=False)
    for name in (
        "reconstruction",
        "kl",
        "elbo",
        "central_residual",
        "mahalanobis",
        "knn",
        *(set(models(variant).vae.objective.extras) - {"cluster_kl"}),  # of certain objects it is log K
    ):
        assert scores[name].nunique() > 0.8 * len(scores), name


def test_another_process_gives_the_same_scores(model, survey, tmp_path):
    path = model.save(tmp_path / "model.pt")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from toy import toy_survey; import lensq\n"
        "survey = toy_survey(Path(sys.argv[2]) / 'toy')\n"
        "out = Path(sys.argv[2]) / 's.parquet'\n"
        "lensq.score(lensq.load_model(sys.argv[3]), survey, out=out, progress=False)\n"
    )
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script, tests, str(tmp_path), str(path)], check=True)
    assert_close(pd.read_parquet(tmp_path / "s.parquet"), score(model, survey, progress=False))


def test_what_lies_behind_the_mask_changes_no_score(model, survey):
    """A stamp of 17 pixels padded to 20: any padding scores alike, and as its own pixels say."""
    padded = np.zeros_like(survey.mask)
    padded[:, 1:18, 2:19] = True
    random = np.random.default_rng(2)
    tables = []
    for filling in (0.0, 1e4, random.normal(0, 100, survey.images.shape)):
        images = np.where(padded, survey.images, filling).astype(np.float32)
        tables.append(score(model, replace(survey, images=images, mask=padded), progress=False))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])

    images, mask = torch.from_numpy(images), torch.from_numpy(padded)
    cut = images[:, 1:18, 2:19]
    whole = torch.ones_like(cut, dtype=torch.bool)
    assert torch.equal(Preprocessing()(images, mask)[:, 0, 1:18, 2:19], Preprocessing()(cut, whole)[:, 0])
    ratio = noise_level(images, mask) / noise_level(cut, whole)
    assert 0.8 < ratio.median() < 1.25


def test_masked_pixels_weigh_nothing_in_the_central_residual():
    generator = torch.Generator().manual_seed(3)
    residual = torch.randn(50, 1, 48, 48, generator=generator)
    mask = torch.rand(50, 1, 48, 48, generator=generator) < 0.7
    clean = central_residual(torch.where(mask, residual, 0), mask)
    assert torch.equal(clean, central_residual(torch.where(mask, residual, 1e6), mask))
    nothing = torch.zeros_like(mask)
    assert torch.equal(central_residual(residual, nothing), torch.zeros(50))


def test_central_residual_is_zero_for_noise_and_the_power_of_a_central_misfit():
    generator = torch.Generator().manual_seed(4)
    residual = 0.3 * torch.randn(2000, 1, 48, 48, generator=generator)
    mask = torch.ones_like(residual, dtype=torch.bool)
    noise = central_residual(residual, mask)
    assert abs(noise.mean()) < 0.002
    misfit = residual.clone()
    misfit[:, :, 22:26, 22:26] += 2.0
    pixels = 316  # of a disc of radius 10 about the corner between four pixels
    assert (central_residual(misfit, mask) - noise).mean() == pytest.approx(16 * 4 / pixels, rel=0.02)
    neighbour = residual.clone()
    neighbour[:, :, 2:10, 2:10] += 20.0
    assert (central_residual(neighbour, mask) - noise).abs().mean() < 0.03


def test_the_central_disc_keeps_its_size_on_the_sky(survey, model):
    """Pixels of two native ones: the disc of ten native pixels has a radius of five."""
    resized = replace(survey, resized=True, native_side=2.0 * survey.size)
    enlarged = replace(model, settings=model.settings | {"resized": True})
    rows = np.arange(20)
    table = score(enlarged, resized, rows=rows, progress=False)
    x, mean = (torch.from_numpy(part)[:, None] for part in reconstruct(enlarged, resized, rows))
    expected = central_residual((x - mean).nan_to_num(), x.isfinite(), 5.0)
    np.testing.assert_allclose(table["central_residual"], expected, rtol=1e-3, atol=1e-6)


def test_latent_density_against_closed_forms():
    generator = torch.Generator().manual_seed(5)
    transform = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
    means = torch.randn(20000, 2, generator=generator) @ transform.T + 3
    density = LatentDensity(means)
    points = torch.tensor([[3.0, 3.0], [5.0, 4.5], [3.0, 6.0]])
    white = torch.linalg.solve(transform, (points - 3).T)
    mahalanobis, knn = density(points)
    torch.testing.assert_close(mahalanobis, white.norm(dim=0), rtol=0.03, atol=0.05)
    everyone = (density.sample - (points.double() - density.centre)[1] @ density.whitening).norm(dim=1)
    assert knn[1].item() == pytest.approx(everyone.sort().values[:10].mean().item(), rel=1e-6)
    assert knn[0] < knn[1] < knn[2]


def test_latent_density_survives_a_collapsed_dimension():
    means = torch.randn(100, 3, generator=torch.Generator().manual_seed(6))
    means[:, 2] = 0.5
    mahalanobis, knn = LatentDensity(means)(means)
    assert torch.isfinite(mahalanobis).all()
    assert torch.isfinite(knn).all()


def test_symmetry_averages_do_not_change_when_the_image_is_rotated(model, survey):
    scores = score(model, survey, symmetries=True, progress=False)
    view = 6
    rotated = replace(
        survey,
        images=symmetries(torch.tensor(survey.images))[view].numpy(),
        mask=symmetries(torch.tensor(survey.mask))[view].numpy(),
    )
    assert_close(score(model, rotated, symmetries=True, progress=False), scores)
    plain, plain_rotated = (numbers(score(model, each, progress=False)) for each in (survey, rotated))
    assert (plain - plain_rotated).abs()["reconstruction"].median() > 1e-2
    assert scores["reconstruction"].std() < plain["reconstruction"].std() * 2


def test_columns_are_documented_and_add_up(models, survey):
    for variant in MODELS:
        scores = score(models(variant), survey, progress=False)
        stems = {
            name if not name.rpartition("_")[2].isdigit() else f"{name.rpartition('_')[0]}_<d>"
            for name in scores
        }
        assert stems <= set(COLUMNS), stems - set(COLUMNS)
        latent = OPTIONS["latent"]
        np.testing.assert_allclose(
            scores[[f"kl_{d}" for d in range(latent)]].sum(axis=1), scores["kl"], rtol=1e-4
        )
        extra = scores.get("cluster_kl", 0.0)
        np.testing.assert_allclose(
            -scores["elbo"], scores["reconstruction"] + scores["kl"] + extra, rtol=1e-4
        )
        assert ("cluster" in scores) == ("GMVAE" in variant)
        if "cluster" in scores:
            claims = scores.filter(regex=r"^responsibility_\d+$").to_numpy()
            np.testing.assert_allclose(claims.sum(axis=1), 1, rtol=1e-5)
            assert np.array_equal(claims.argmax(axis=1), scores["cluster"])
    assert list(scores["name"]) == list(survey.names)
    assert list(scores["split"]) == list(survey.split)
    assert list(scores["label"]) == list(survey.labels)
    np.testing.assert_allclose(scores["ra"], survey.coordinates.ra.deg)


def test_parquet_streams_the_same_table(model, survey, tmp_path, monkeypatch):
    whole = score(model, survey, progress=False)
    monkeypatch.setattr(scoring, "ROW_GROUP", 64)
    path = score(model, survey, out=tmp_path / "deep" / "scores.parquet", progress=False)
    assert path == tmp_path / "deep" / "scores.parquet"
    assert [file.name for file in path.parent.iterdir()] == ["scores.parquet"]
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    assert_close(pd.read_parquet(path), whole)
    metadata = file.schema_arrow.metadata
    assert metadata[b"lensq_model"].decode() == model.fingerprint == whole.attrs["lensq_model"]
    assert metadata[b"lensq_survey"].decode() == survey.fingerprint
    described = {field.name: field.metadata[b"description"].decode() for field in file.schema_arrow}
    assert described["knn"] == COLUMNS["knn"]
    assert described["mu_3"] == COLUMNS["mu_<d>"]


def test_an_interrupted_score_leaves_no_file(model, survey, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ROW_GROUP", 64)
    mask = survey.mask.copy()
    mask[150] = False
    with pytest.raises(ValueError, match=r"1 cutouts have no valid pixel \(toy00150\)"):
        score(model, replace(survey, mask=mask), out=tmp_path / "scores.parquet", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_chosen(model, survey):
    calibration = score(model, survey, rows=survey.rows("calibration"), progress=False)
    assert set(calibration["split"]) == {"selection", "conformal"}
    rows = np.array([7, 3, 90])
    some = score(model, survey, rows=rows, progress=False)
    assert list(some["name"]) == list(survey.names[rows])
    with pytest.raises(ValueError, match="no object of the survey"):
        score(model, survey, rows=rows[:0], progress=False)


def test_a_survey_of_another_size_is_refused(model, survey, tmp_path):
    other = toy_survey(tmp_path, n=20, size=24)
    with pytest.raises(ValueError, match="size=20, resize=False"):
        score(model, other, progress=False)
    with pytest.raises(ValueError, match="resize=True"):
        reconstruct(model, replace(survey, resized=True), [0])
    with pytest.raises(ValueError, match="precision='fp16'"):
        score(model, survey, precision="fp16", progress=False)
    bare = copy.deepcopy(model)
    bare.vae.reference_count.zero_()
    with pytest.raises(ValueError, match="no reference sample"):
        score(bare, survey, progress=False)


def test_reconstructions_match_their_scores(model, survey):
    rows = np.array([3, 1, 120])
    inputs, reconstructions = reconstruct(model, survey, rows)
    assert inputs.shape == reconstructions.shape == (3, 20, 20)
    assert (np.isnan(inputs) == ~survey.mask[rows]).all()
    scale = model.vae.config.noise_scale
    nll = np.nanmean((inputs - reconstructions) ** 2 / (2 * scale**2), axis=(1, 2))
    nll = 400 * (nll + np.log(scale) + 0.5 * np.log(2 * np.pi))
    scores = score(model, survey, progress=False)
    np.testing.assert_allclose(nll, scores["reconstruction"].iloc[rows], rtol=1e-4)


def test_scoring_does_not_load_lightning(model, tmp_path):
    script = (
        "import sys, lensq.scores.scoring, lensq.models.training\n"
        "print([name for name in ('pytorch_lightning', 'tensorboard', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert json.loads(run.stdout) == []


def test_label_free_columns_rank_without_labels():
    named = ["name", "label", "elbo", "knn", "kl", "cluster", "anomaly_logit", "mu_0", "class"]
    scores = pd.DataFrame(columns=named)
    assert label_free(scores) == ["kl", "knn"]


def test_threads_change_neither_scores_nor_the_caller(model, survey):
    one = score(model, survey, progress=False)
    torch.set_num_threads(3)
    several = score(model, survey, batch_size=7, progress=False)
    assert torch.get_num_threads() == 3
    assert list(several["name"]) == list(one["name"])
    assert_close(several, one)


def test_no_more_than_a_row_group_waits_to_be_written(model, survey, tmp_path, monkeypatch):
    """So that memory does not grow with the survey."""
    monkeypatch.setattr(scoring, "ROW_GROUP", 16)
    scored, waiting = [], []
    call, write = scoring._Scorer.__call__, scoring._table

    def counted(self, rows):
        scored.append(len(rows))
        return call(self, rows)

    def table(survey, rows, columns):
        waiting.append(sum(scored) - 1 - rows[-1])
        return write(survey, rows, columns)

    monkeypatch.setattr(scoring._Scorer, "__call__", counted)
    monkeypatch.setattr(scoring, "_table", table)
    torch.set_num_threads(2)
    score(model, survey, out=tmp_path / "scores.parquet", batch_size=8, progress=False)
    assert waiting == [0] * 10
