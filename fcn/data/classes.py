"""What classes are called."""

from __future__ import annotations

from typing import List

# PASCAL VOC, in the order of its ids (VOCdevkit, VOCcode/VOCinit.m, after the background)
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)


def class_names(num_classes: int) -> List[str]:
    """A name for each class: PASCAL VOC's where there are as many, otherwise the ids."""
    return list(VOC) if num_classes == len(VOC) else [str(label) for label in range(num_classes)]
