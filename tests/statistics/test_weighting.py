"""Weights that stand for another population."""

import pandas as pd
import pytest
from tables import scores_table

from lensq.statistics.guard import shuffle_labels
from lensq.statistics.metrics import effective_size
from lensq.statistics.weighting import task_b_weights


def test_task_b_has_the_catalogue_s_shares():
    rows = scores_table(900, 300)
    rows.loc[rows.index[:50], ["label", "graded"]] = [-1, False]
    weights = task_b_weights(rows)
    assert weights.sum() == pytest.approx(1)
    assert weights[rows["graded"]].sum() == pytest.approx(0.00108)
    assert weights[rows["label"] == 1].sum() == pytest.approx(0.051)
    assert (weights[rows["label"] == -1] == 0).all()
    assert effective_size(weights) < 1150
    assert weights[rows["label"] == 0].nunique() == 1


def test_graded_objects_among_the_rejected_count_as_graded():
    rows = pd.DataFrame({"label": [0, 1, 1, 0], "graded": [True, True, False, False]})
    assert task_b_weights(rows).tolist() == pytest.approx([0.00054, 0.00054, 0.04992, 0.949])


def test_shuffled_classes_stay_in_their_split_and_together():
    rows = scores_table(500, 100, seed=8)
    shuffled = shuffle_labels(rows, seed=1)
    columns = ["label", "graded", "is_lens"]
    assert not shuffled["label"].equals(rows["label"])
    assert (shuffled["label"] == shuffled["is_lens"]).all()
    pd.testing.assert_frame_equal(shuffled.drop(columns=columns), rows.drop(columns=columns))
    before, after = (table.groupby("split")[columns].sum() for table in (rows, shuffled))
    pd.testing.assert_frame_equal(before, after)
    assert shuffled.dtypes.equals(rows.dtypes)
