"""Scores from a confusion matrix. Pure.

Definitions: Long, Shelhamer, Darrell (CVPR 2015), section 5, with n_ij the pixels of class i predicted as
class j.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_label: int) -> np.ndarray:
    """Two label arrays of one shape -> (num_classes, num_classes) int64, rows the truth.

    Pixels whose truth is the ignore label do not count.
    """
    counts = truth != ignore_label
    cells = truth[counts].astype(np.int64) * num_classes + predicted[counts]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1. A class that is in neither truth nor prediction has None and no part in the mean."""

    iou: List[Optional[float]]
    mean_iou: float
    pixel_accuracy: float

    def as_dict(self) -> Dict[str, Any]:
        """The scores under the names that reports use."""
        return {"mean_iou": self.mean_iou, "pixel_accuracy": self.pixel_accuracy, "iou": self.iou}


def scores(matrix: np.ndarray) -> Scores:
    """Intersection over union n_ii / (sum_j n_ij + sum_j n_ji - n_ii) of each class, their mean, pixel
    accuracy.
    """
    hits = np.diag(matrix)
    union = matrix.sum(axis=1) + matrix.sum(axis=0) - hits
    iou = [float(h / u) if u else None for h, u in zip(hits, union)]
    seen = [value for value in iou if value is not None]
    total = matrix.sum()
    return Scores(
        iou=iou,
        mean_iou=float(np.mean(seen)) if seen else 0.0,
        pixel_accuracy=float(hits.sum() / total) if total else 0.0,
    )
