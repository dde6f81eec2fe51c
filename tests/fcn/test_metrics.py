import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.errors import DataError
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


def images_with_everything():
    """Truth and predictions: class 4 is in neither, 5 only predicted, 3 only in the truth; some ignored."""
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, 255], (3, 20, 30), p=[0.5, 0.2, 0.1, 0.1, 0.1])
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.choice([0, 1, 2, 5], truth.shape))
    predicted[(predicted == 3) | (predicted == 255)] = 0
    return truth, predicted


def test_against_plain_counting():
    truth, predicted = images_with_everything()
    matrix = [[0] * 6 for _ in range(6)]
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist()):
        if t != 255:
            matrix[t][p] += 1
    summed = sum(confusion(t, p, 6, 255) for t, p in zip(truth, predicted))
    assert summed.tolist() == matrix
    result, total = scores(summed), sum(map(sum, matrix))
    iou, accuracy, weighted = [], [], 0.0
    for c in range(6):
        row, column, hit = sum(matrix[c]), sum(line[c] for line in matrix), matrix[c][c]
        iou += [hit / (row + column - hit)] if row + column else []
        accuracy += [hit / row] if row else []
        weighted += row * hit / (row + column - hit) / total if row else 0
    assert len(iou) == 5 and len(accuracy) == 4
    assert [value for value in result.iou if value is not None] == pytest.approx(iou)
    assert [value for value in result.accuracy if value is not None] == pytest.approx(accuracy)
    assert result.mean_iou == pytest.approx(sum(iou) / 5)
    assert result.mean_accuracy == pytest.approx(sum(accuracy) / 4)
    assert result.frequency_weighted_iou == pytest.approx(weighted)
    assert result.pixel_accuracy == pytest.approx(sum(matrix[c][c] for c in range(6)) / total)


def test_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is a test extra")
    truth, predicted = images_with_everything()
    kept = truth != 255
    t, p = truth[kept], predicted[kept]
    matrix = confusion(truth, predicted, 6, 255)
    assert matrix.tolist() == metrics.confusion_matrix(t, p, labels=range(6)).tolist()
    result = scores(matrix)
    seen = [c for c in range(6) if c in t or c in p]
    assert seen == [0, 1, 2, 3, 5]
    assert result.mean_iou == pytest.approx(metrics.jaccard_score(t, p, labels=seen, average="macro"))
    assert result.frequency_weighted_iou == pytest.approx(metrics.jaccard_score(t, p, average="weighted"))
    in_truth = [c for c in seen if c in t]
    recall = metrics.recall_score(t, p, labels=in_truth, average="macro")
    assert result.mean_accuracy == pytest.approx(recall)
    assert result.pixel_accuracy == pytest.approx(metrics.accuracy_score(t, p))


def test_a_class_that_is_only_predicted_counts_and_one_that_is_nowhere_does_not():
    """The devkit's formula gives 0 for the first, as here, and 0/0 for the second (VOCevalseg.m)."""
    truth, predicted = np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])
    result = scores(confusion(truth, predicted, 3, 255))
    assert result.iou == [0.75, 0.0, None]
    assert result.mean_iou == 0.375
    assert result.accuracy == [0.75, None, None]


def test_a_label_without_meaning_is_refused():
    truth = np.array([[0, 4], [254, 255]], np.uint8)
    with pytest.raises(DataError, match=r"label 4, 254 is neither a class 0..3 nor ignored \(255\)"):
        confusion(truth, np.zeros_like(truth), 4, 255)
