"""Pictures for people: masks in the PASCAL VOC palette, overlays, contact sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence, Union

import cv2
import numpy as np
from PIL import Image

_CELL_PIXELS = 240  # longest side of a picture on a contact sheet
_GAP_PIXELS = 8
_TITLE_PIXELS = 24
_PAPER, _INK = 255, 0


def palette(n: int = 256) -> np.ndarray:
    """The PASCAL VOC colour map, uint8 (n, 3) RGB.

    Bits 0, 1, 2 of a class id, then 3, 4, 5, ... are dealt to red, green, blue from the top bit down
    (VOCdevkit, VOCcode/VOClabelcolormap.m).
    """
    ids = np.arange(n)
    colours = np.zeros((n, 3), np.int64)
    for group in range(8):
        for channel in range(3):
            colours[:, channel] |= ((ids >> (3 * group + channel)) & 1) << (7 - group)
    return colours.astype(np.uint8)


def save_mask(path: Union[str, Path], ids: np.ndarray) -> None:
    """Write uint8 (height, width) class ids as an indexed PNG: the ids as they are, in VOC's colours."""
    picture = Image.fromarray(np.ascontiguousarray(ids, np.uint8))
    picture.putpalette(palette().tobytes())  # turns a grey picture into an indexed one, its values kept
    picture.save(path, format="PNG")


def colour(ids: np.ndarray) -> np.ndarray:
    """Class ids (height, width) in VOC's colours: uint8 (height, width, 3) BGR."""
    return palette()[:, ::-1][ids]


def overlay(image: np.ndarray, ids: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """A uint8 BGR image with its classes tinted; background (class 0) stays as it is."""
    tinted = cv2.addWeighted(image, 1 - opacity, colour(ids), opacity, 0)
    return np.where(ids[..., None] == 0, image, tinted)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    path: Union[str, Path],
    titles: Sequence[str] = ("image", "truth", "prediction"),
) -> None:
    """Write one PNG with a row of pictures a sample.

    Args:
        rows: pictures of equal count a row; uint8 (height, width, 3) is a BGR image, uint8 (height, width)
            is class ids, shown in VOC's colours.
        path: the PNG to write.
        titles: a heading for each column.
    """
    cells = [[_fit(picture if picture.ndim == 3 else colour(picture)) for picture in row] for row in rows]
    step = _CELL_PIXELS + _GAP_PIXELS
    height = _TITLE_PIXELS + len(cells) * step + _GAP_PIXELS
    sheet = np.full((height, len(titles) * step + _GAP_PIXELS, 3), _PAPER, np.uint8)
    for column, title in enumerate(titles):
        place = (_GAP_PIXELS + column * step, _TITLE_PIXELS - _GAP_PIXELS)
        cv2.putText(sheet, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (_INK,) * 3, 1, cv2.LINE_AA)
    for line, row in enumerate(cells):
        for column, cell in enumerate(row):
            top, left = _TITLE_PIXELS + line * step, _GAP_PIXELS + column * step
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    Image.fromarray(np.ascontiguousarray(sheet[..., ::-1])).save(path, format="PNG")


def _fit(picture: np.ndarray) -> np.ndarray:
    """Scaled to a cell's size, without new colours."""
    scale = _CELL_PIXELS / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
