"""Batches: shares of several processes, and images that are rotated together with their masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_survey

from lensq.models.batches import Batches
from lensq.survey.images import AUGMENTATIONS, Preprocessing, symmetries


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Every image with the same mask, which no symmetry of the square leaves as it is."""
    whole = toy_survey(tmp_path_factory.mktemp("toy"))
    mask = np.ones_like(whole.mask)
    mask[:, :3] = False
    mask[:, :, :1] = False
    mask[:, 5:9, 15:] = False
    return replace(whole, mask=mask)


def changes(survey, rows, **options):
    """Which of the eight symmetries (n, 8) bool take each image and its mask to what augmentation gave."""
    plain, rotated = (
        Batches(survey, rows, Preprocessing(), 64, **{"seed": 5} | given) for given in ({}, options)
    )
    found = []
    for before, after in zip(plain, rotated, strict=True):
        assert not after.x[~after.mask].any()
        same = [
            (symmetries(one) == other).flatten(2).all(2)
            for one, other in ((before.x, after.x), (before.mask, after.mask))
        ]
        found.append((same[0] & same[1]).T)
    return torch.cat(found)


@pytest.mark.parametrize("resident", [False, True])
def test_an_image_is_rotated_with_its_mask(survey, resident):
    found = changes(survey, np.arange(len(survey.names)), augmentation=1.0, resident=resident)
    assert (found.sum(1) == 1).all()
    assert not found[:, 0].any()


def test_augmentation_is_one_of_five_operations_with_its_probability(survey):
    square = torch.arange(9).view(3, 3)
    turns = [torch.rot90(square, quarters) for quarters in (1, -1, 2)]
    five = torch.stack([*turns, square.flip(-1), square.flip(-2)])
    assert torch.equal(symmetries(square)[list(AUGMENTATIONS)], five)
    rows = np.resize(np.arange(len(survey.names)), 500)
    found = changes(survey, rows, augmentation=0.8)
    counts = found.sum(0)
    assert counts.sum() == 500
    assert abs(counts[0] - 100) < 40
    assert (abs(counts[list(AUGMENTATIONS)] - 80) < 40).all()
    assert changes(survey, rows)[:, 0].all()


def test_augmentation_follows_seed_and_epoch(survey):
    rows = np.arange(len(survey.names))
    first, same, seed, epoch = (
        changes(survey, rows, augmentation=0.8, **given)
        for given in ({}, {}, {"seed": 6}, {"epoch": lambda: 1})
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, seed)
    assert not torch.equal(first, epoch)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("n", "world"), [(5, 4), (3, 4), (1, 2), (100, 4), (64, 4), (100, 1)])
def test_every_process_gets_equally_many_batches_and_none_is_empty(survey, n, world, shuffle):
    shares = [
        list(Batches(survey, np.arange(n), Preprocessing(), 16, shuffle=shuffle, rank=rank, world=world))
        for rank in range(world)
    ]
    assert len({len(share) for share in shares}) == 1
    sizes = [len(batch.x) for share in shares for batch in share]
    assert min(sizes) > 0
    if not shuffle:
        images = torch.cat([batch.x for share in shares for batch in share]).flatten(1)
        assert len(images.unique(dim=0)) == n
        assert len(images) - n < world
