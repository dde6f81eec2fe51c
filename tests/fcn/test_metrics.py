import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.metrics import confusion, scores


def test_by_hand():
    truth = np.array([[0, 0, 1], [1, 2, 255]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    matrix = confusion(truth, predicted, 4, 255)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    result = scores(matrix)
    assert result.iou == [pytest.approx(1 / 3), pytest.approx(2 / 3), 0.0, None]  # class 3 is nowhere
    assert result.mean_iou == pytest.approx(1 / 3)
    assert result.pixel_accuracy == pytest.approx(3 / 5)


def test_nothing_that_counts():
    result = scores(confusion(np.full((2, 2), 255), np.zeros((2, 2), int), 3, 255))
    assert result.iou == [None] * 3
    assert (result.mean_iou, result.pixel_accuracy) == (0.0, 0.0)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(0, 2)), min_size=1, max_size=50))
def test_iou_is_intersection_over_union_of_the_pixel_sets(pixels):
    truth, predicted = np.array(pixels).T
    valid = {i for i, label in enumerate(truth) if label != 255}
    result = scores(confusion(truth, predicted, 3, 255))
    for label in range(3):
        a = {i for i in valid if truth[i] == label}
        b = {i for i in valid if predicted[i] == label}
        expected = len(a & b) / len(a | b) if a | b else None
        assert result.iou[label] == (None if expected is None else pytest.approx(expected))


def test_counts_above_what_float32_holds_stay_exact():
    big = np.zeros((2, 2), np.int64)
    big[0, 0] = 2**24 + 1
    big[1, 0] = 1
    assert scores(big).pixel_accuracy == (2**24 + 1) / (2**24 + 2)
