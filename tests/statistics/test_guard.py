"""The split guard, and who counts as positive."""

import numpy as np
import pandas as pd
import pytest
from tables import scores_table

from lensq.detection.conformal import candidate_list, fdr_study
from lensq.detection.detectors import Detector, choose_detector
from lensq.statistics.guard import LeakageError, has_both_classes, labelled, require_split, shuffle_labels
from lensq.statistics.latent import choice_stability, dimension_statistics

CHOOSERS = {
    "dimension_statistics": lambda rows: dimension_statistics(rows),
    "choice_stability": lambda rows: choice_stability(rows, resamples=2),
    "choose_detector": lambda rows: choose_detector(rows, "signal"),
}


@pytest.mark.parametrize("chooser", CHOOSERS.values(), ids=CHOOSERS)
@pytest.mark.parametrize("split", ["train", "validation", "conformal", "test"])
def test_one_foreign_row_is_enough_to_refuse_a_choice(chooser, split):
    rows = scores_table(split="selection")
    chooser(rows)
    rows.loc[17, "split"] = split
    with pytest.raises(LeakageError, match=f"only see rows of split selection, .* 1 of '{split}'"):
        chooser(rows)


@pytest.mark.parametrize("split", ["train", "selection", "test"])
def test_p_values_are_calibrated_on_conformal_rows_only(split):
    rows = scores_table()
    calibration = rows[rows["split"].isin(["conformal", split])]
    with pytest.raises(LeakageError, match=f"conformal calibration .* of '{split}'"):
        candidate_list(Detector("d", "signal"), calibration, rows[rows["split"] == "train"])


def test_a_study_of_false_discoveries_refuses_rows_that_chose():
    rows = scores_table()
    with pytest.raises(LeakageError, match="of 'selection'"):
        fdr_study(Detector("d", "signal"), rows[rows["split"].isin(["selection", "test"])])


def test_an_object_is_never_its_own_reference():
    rows = scores_table(split="conformal")
    with pytest.raises(LeakageError, match=r"1200 of the objects .* calibrate it"):
        candidate_list(Detector("d", "signal"), rows, rows)


def test_a_table_without_splits_or_rows_is_refused():
    rows = scores_table(split="selection")
    with pytest.raises(ValueError, match="needs the column 'split'"):
        require_split(rows.drop(columns="split"), "selection", purpose="a choice")
    with pytest.raises(ValueError, match="table without rows"):
        require_split(rows[:0], "selection", purpose="a choice")


@pytest.mark.parametrize("splits", [("selection",), ("train", "selection"), ("train", "validation", "test")])
def test_only_the_splits_that_are_named_pass(splits):
    """Whole tables, with and without one foreign row, for every split of the study."""
    rows = pd.DataFrame({"split": np.repeat(splits, 3)})
    require_split(rows, *splits, purpose="a step")
    for foreign in {"train", "validation", "selection", "conformal", "test"} - set(splits):
        with pytest.raises(LeakageError, match=f"a step may only .* holds 1 of '{foreign}'") as caught:
            require_split(pd.concat([rows, pd.DataFrame({"split": [foreign]})]), *splits, purpose="a step")
        assert isinstance(caught.value, ValueError)  # who catches bad input catches a leak as well


def test_unlabelled_objects_are_left_out():
    table = pd.DataFrame({"label": np.array([1, 0, -1, 0], np.int8), "name": list("abcd")})
    rows, positive = labelled(table)
    assert rows["name"].tolist() == ["a", "b", "d"]
    assert positive.tolist() == [True, False, False]


def test_graded_objects_stand_against_every_labelled_one():
    table = pd.DataFrame(
        {"name": list("abcde"), "label": [1, 0, -1, 0, -1], "graded": [True, True, True, False, False]}
    )
    rows, positive = labelled(table, "graded")
    assert dict(zip(rows["name"], positive, strict=True)) == {"a": True, "b": True, "c": True, "d": False}


def test_truth_joined_for_some_objects_only_leaves_the_others_out():
    table = pd.DataFrame({"name": list("abc"), "is_lens": [True, None, False]})
    rows, positive = labelled(table, "is_lens")
    assert rows["name"].tolist() == ["a", "c"]
    assert positive.tolist() == [True, False]


def test_missing_columns_and_classes_are_named():
    table = scores_table().drop(columns="is_lens")
    with pytest.raises(ValueError, match=r"no column 'is_lens'.*survey\.truth"):
        labelled(table, "is_lens")
    with pytest.raises(ValueError, match="0 positives and 1200 negatives"):
        labelled(table[table["label"] == 0])


def test_both_classes_are_needed_to_tell_them_apart():
    table = pd.DataFrame(
        {"label": [1, 0, -1], "none": [-1, -1, -1], "one": [1, 1, -1], "is_lens": [True, False, True]}
    )
    assert has_both_classes(table)
    assert has_both_classes(table, "is_lens")
    assert not has_both_classes(table, "none")
    assert not has_both_classes(table, "one")
    assert not has_both_classes(table, "absent")


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
