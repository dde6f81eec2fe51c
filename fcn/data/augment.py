"""Random scale, pad, crop and flip of an image and its mask, and of the image's colours, on uint8 throughout.

The order of work is that of FCN-8s in the MindSpore model zoo: both are resized by one scale (image cubic,
mask nearest) to int(scale * side), padded right and bottom to the crop, cut at a uniform offset, and
mirrored half of the time. Normalisation comes after the crop, on the device: it commutes with cutting, and
a padded pixel of the mean colour is the zero that the original pads with, to half a grey level.

Changes of colour are those of SSD (Liu et al., ECCV 2016, section 2.2), with the ranges of its authors'
training code: brightness, contrast, saturation and hue, each half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Union

import cv2
import numpy as np

BRIGHTNESS_MAX = 32.0  # grey levels, up or down
CONTRAST = SATURATION = (0.5, 1.5)  # factors
HUE_MAX = 18  # steps of two degrees of the colour circle, OpenCV's unit for 8 bits, up or down

_LEVELS = np.arange(256.0)
_HUES = 180
_GEOMETRY_NUMBERS, _COLOUR_NUMBERS = 4, 9


@dataclass(frozen=True)
class Colours:
    """Changes of colour, in the order brightness, contrast, saturation, hue, or with contrast last."""

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: int = 0
    contrast_last: bool = False


@dataclass(frozen=True)
class Draw:
    """The random choices about one sample; offsets are fractions of the room that the crop has."""

    scale: float
    offset_h01: float
    offset_w01: float
    flip: bool
    colours: Optional[Colours] = None


def draw(
    seed: int, epoch: int, position: int, min_scale: float, max_scale: float, photometric: bool = False
) -> Draw:
    """The choices for the sample at `position` of `epoch`: a function of its arguments alone.

    Scale, offsets and flip do not depend on `photometric`.
    """
    # Colours come after the rest in the stream, so that asking for them moves nothing else.
    numbers = np.random.default_rng([seed, epoch, position]).random(_GEOMETRY_NUMBERS + _COLOUR_NUMBERS)
    scale01, offset_h01, offset_w01, flip01, *others = numbers.tolist()
    scale = min_scale + (max_scale - min_scale) * scale01
    return Draw(scale, offset_h01, offset_w01, flip01 > 0.5, _colours(others) if photometric else None)


def apply(
    image: np.ndarray,
    label: np.ndarray,
    choice: Draw,
    mean: Sequence[float],
    ignore_label: int,
    image_out: np.ndarray,
    label_out: np.ndarray,
) -> None:
    """Carry out a draw.

    Args:
        image: uint8 (height, width, 3) BGR.
        label: uint8 (height, width) class ids.
        mean: BGR colour of padding, which OpenCV rounds to grey levels; colour changes leave padding alone.
        ignore_label: label of padding.
        image_out, label_out: the results, uint8 (crop, crop, 3) and uint8 (crop, crop).
    """
    crop = label_out.shape[0]
    height, width = (max(int(choice.scale * side), 1) for side in image.shape[:2])
    # The whole is resized: a part of it comes out otherwise, by a grey level or by a fraction of a pixel.
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)

    top, left = _offset(choice.offset_h01, height, crop), _offset(choice.offset_w01, width, crop)
    # Padding after the cut touches fewer pixels and gives the same ones: a side is either padded or cut.
    image = image[top : top + crop, left : left + crop]
    label = label[top : top + crop, left : left + crop]
    if choice.colours:
        image = recolour(image, choice.colours)
    _place(image, image_out, choice.flip, mean)
    _place(label, label_out, choice.flip, ignore_label)


def recolour(image: np.ndarray, colours: Colours) -> np.ndarray:
    """A uint8 (height, width, 3) BGR image with changed colours; every step rounds and clips to 0..255."""
    first, last = _grey_levels(_LEVELS + colours.brightness), _LEVELS * colours.contrast
    image = _mapped(image, first if colours.contrast_last else first * colours.contrast)
    if colours.saturation != 1.0 or colours.hue != 0:
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        hue = _mapped(hue, (_LEVELS + colours.hue) % _HUES if colours.hue else _LEVELS)
        saturation = _mapped(saturation, _LEVELS * colours.saturation)
        image = cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR)
    return _mapped(image, last) if colours.contrast_last else image


def _mapped(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each value v of a uint8 image becomes table[v], rounded and clipped."""
    return image if np.array_equal(table, _LEVELS) else cv2.LUT(image, _grey_levels(table))


def _grey_levels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _colours(numbers: List[float]) -> Colours:
    """Nine numbers in 0..1: whether and how much, for each of the four, and the place of contrast."""
    brightness, contrast, saturation, hue = numbers[0:8:2]
    amounts = numbers[1:8:2]
    return Colours(
        brightness=BRIGHTNESS_MAX * (2 * amounts[0] - 1) if brightness < 0.5 else 0.0,
        contrast=CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * amounts[1] if contrast < 0.5 else 1.0,
        saturation=SATURATION[0] + (SATURATION[1] - SATURATION[0]) * amounts[2] if saturation < 0.5 else 1.0,
        hue=round(HUE_MAX * (2 * amounts[3] - 1)) if hue < 0.5 else 0,
        contrast_last=numbers[8] < 0.5,
    )


def _offset(fraction: float, side: int, crop: int) -> int:
    """Uniform over the places where a crop fits; 0 where the side has to be padded."""
    return int(fraction * (max(side, crop) - crop + 1))


def _place(cut: np.ndarray, out: np.ndarray, flip: bool, padding: Union[int, Sequence[float]]) -> None:
    """Copy or mirror `cut` into `out`; what it does not fill is padding, to the right before a mirroring."""
    height, width = cut.shape[:2]
    side = out.shape[0]
    if cut.shape != out.shape:
        cv2.rectangle(out, (0, 0), (side, side), padding, cv2.FILLED)
    if flip:
        cv2.flip(cut, 1, dst=out[:height, side - width :])
    else:
        out[:height, :width] = cut
