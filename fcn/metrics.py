"""Scores from a confusion matrix. Pure.

Definitions: Long, Shelhamer, Darrell (CVPR 2015), section 5, with n_ij the pixels of class i predicted as
class j and t_i = sum_j n_ij. Rows and columns, and that a pixel counts unless its truth is the ignore label,
are those of the VOC devkit (VOCcode/VOCevalseg.m).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

import numpy as np

from fcn.errors import DataError

_LABELS = 256  # of a uint8 mask


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_label: int) -> np.ndarray:
    """Two label arrays of one shape -> (num_classes, num_classes) int64, rows the truth.

    Pixels whose truth is the ignore label do not count. Raises DataError where the truth has a label that is
    neither a class nor the ignore label.
    """
    cells = truth.astype(np.intp)
    cells *= num_classes
    cells += predicted
    # With a row for each label that a mask can hold nothing has to be picked out of the pixels first.
    counts = np.bincount(cells.ravel(), minlength=_LABELS * num_classes).reshape(_LABELS, num_classes)
    unknown = [n + num_classes for n in np.flatnonzero(counts[num_classes:].any(axis=1))]
    if unknown not in ([], [ignore_label]):
        wrong = ", ".join(str(label) for label in unknown if label != ignore_label)
        raise DataError(f"label {wrong} is neither a class 0..{num_classes - 1} nor ignored ({ignore_label})")
    return counts[:num_classes]


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1, and the matrix that they come from.

    A class that is in neither truth nor prediction has IoU None and no part in the mean; in the devkit its
    IoU is 0/0 and the mean no number, so where every class occurs, as in VOC's own lists, both agree. A class
    that is only predicted has IoU 0 and counts, as there; it has no accuracy.

    Attributes:
        iou: n_ii / (t_i + sum_j n_ji - n_ii) of each class.
        accuracy: n_ii / t_i of each class.
        confusion: the counts n_ij.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    iou: List[Optional[float]]
    accuracy: List[Optional[float]]
    confusion: List[List[int]]

    def as_dict(self) -> Dict[str, Any]:
        """The scores under the names that reports use."""
        return asdict(self)


def scores(matrix: np.ndarray) -> Scores:
    """The scores of a confusion matrix (classes, classes), rows the truth; 0.0 where nothing was counted."""
    hits, truth = np.diag(matrix), matrix.sum(axis=1)
    iou = _ratios(hits, truth + matrix.sum(axis=0) - hits)
    accuracy = _ratios(hits, truth)
    total = truth.sum()
    weighted = sum(float(t) * value for t, value in zip(truth, iou) if value is not None)
    return Scores(
        mean_iou=_mean(iou),
        pixel_accuracy=float(hits.sum() / total) if total else 0.0,
        mean_accuracy=_mean(accuracy),
        frequency_weighted_iou=float(weighted / total) if total else 0.0,
        iou=iou,
        accuracy=accuracy,
        confusion=matrix.tolist(),
    )


def _ratios(parts: np.ndarray, wholes: np.ndarray) -> List[Optional[float]]:
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes)]


def _mean(values: List[Optional[float]]) -> float:
    seen = [value for value in values if value is not None]
    return float(np.mean(seen)) if seen else 0.0
