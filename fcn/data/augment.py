"""Random scale, pad, crop and flip of an image and its mask, on uint8 throughout.

The order of work is that of FCN-8s in the MindSpore model zoo: both are resized by one scale (image cubic,
mask nearest) to int(scale * side), padded right and bottom to the crop, cut at a uniform offset, and
mirrored half of the time. Normalisation comes after the crop, on the device: it commutes with cutting, and
a padded pixel of the mean colour is the zero that the original pads with, to half a grey level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

import cv2
import numpy as np


@dataclass(frozen=True)
class Draw:
    """The random choices about one sample; offsets are fractions of the room that the crop has."""

    scale: float
    offset_h01: float
    offset_w01: float
    flip: bool


def draw(seed: int, epoch: int, position: int, min_scale: float, max_scale: float) -> Draw:
    """The choices for the sample at `position` of `epoch`: a function of its arguments alone."""
    scale01, offset_h01, offset_w01, flip01 = (
        np.random.default_rng([seed, epoch, position]).random(4).tolist()
    )
    return Draw(min_scale + (max_scale - min_scale) * scale01, offset_h01, offset_w01, flip01 > 0.5)


def apply(
    image: np.ndarray, label: np.ndarray, choice: Draw, crop: int, mean: Sequence[float], ignore_label: int
) -> Tuple[np.ndarray, np.ndarray]:
    """Carry out a draw.

    Args:
        image: uint8 (height, width, 3) BGR.
        label: uint8 (height, width) class ids.
        crop: side of the square result in pixels.
        mean: BGR colour of padding, rounded to whole grey levels.
        ignore_label: label of padding.

    Returns:
        uint8 (crop, crop, 3) and uint8 (crop, crop), possibly views of larger arrays.
    """
    height, width = int(choice.scale * image.shape[0]), int(choice.scale * image.shape[1])
    height, width = max(height, 1), max(width, 1)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)

    top, left = _offset(choice.offset_h01, height, crop), _offset(choice.offset_w01, width, crop)
    image = image[top : top + crop, left : left + crop]
    label = label[top : top + crop, left : left + crop]
    # Padding after the cut touches fewer pixels and gives the same ones: a side is either padded or cut.
    bottom, right = crop - image.shape[0], crop - image.shape[1]
    if bottom or right:
        colour = [round(value) for value in mean]
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=colour)
        label = cv2.copyMakeBorder(label, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=ignore_label)
    return (cv2.flip(image, 1), cv2.flip(label, 1)) if choice.flip else (image, label)


def _offset(fraction: float, side: int, crop: int) -> int:
    """Uniform over the places where a crop fits; 0 where the side has to be padded."""
    return int(fraction * (max(side, crop) - crop + 1))
