"""Pictures for people: masks in the PASCAL VOC palette, overlays, contact sheets, confusion matrices."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Sequence, Union

import cv2
import numpy as np
from PIL import Image

SHEET_ROWS = 8  # samples on a contact sheet
_CELL_PIXELS = 240  # longest side of a picture on a contact sheet
_GAP_PIXELS = 8
_TITLE_PIXELS = 24
_PAPER, _INK = 255, 0

_FONT, _SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_LINE_PIXELS = 14  # height of a line of small text
_MATRIX_CELL_PIXELS, _MATRIX_PIXELS = 34, 1400  # of a cell at most, of the matrix with many classes
_AXES = "rows: truth, columns: prediction"
_FULL = np.array((140, 60, 20))  # BGR of a cell that has all pixels of its row


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
    tops = np.cumsum([_TITLE_PIXELS, *(_GAP_PIXELS + max(len(cell) for cell in row) for row in cells)])
    sheet = np.full((tops[-1] + _GAP_PIXELS, len(titles) * step + _GAP_PIXELS, 3), _PAPER, np.uint8)
    for column, title in enumerate(titles):
        place = (_GAP_PIXELS + column * step, _TITLE_PIXELS - _GAP_PIXELS)
        cv2.putText(sheet, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (_INK,) * 3, 1, cv2.LINE_AA)
    for top, row in zip(tops, cells):
        for column, cell in enumerate(row):
            left = _GAP_PIXELS + column * step
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    Image.fromarray(np.ascontiguousarray(sheet[..., ::-1])).save(path, format="PNG")


def confusion_picture(matrix: Sequence[Sequence[int]], names: Sequence[str], path: Union[str, Path]) -> None:
    """Write a confusion matrix, rows the truth, as a PNG: in each cell the percentage of its row's pixels.

    A cell below half a percent has no number; nor have any where there are too many classes for it.
    """
    counts = np.asarray(matrix, np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = max(2, min(_MATRIX_CELL_PIXELS, _MATRIX_PIXELS // len(names)))
    colours = np.rint(_PAPER + share[..., None] * (_FULL - _PAPER)).astype(np.uint8)
    body = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    margin = _GAP_PIXELS + max(map(_width, names))
    labels = np.full((len(body), margin, 3), _PAPER, np.uint8)
    beside, above = labels.copy(), labels
    for label in range(0, len(names), ceil(_LINE_PIXELS / cell)):
        middle = cell * label + cell // 2
        _write(beside, names[label], middle, margin - _GAP_PIXELS // 2 - _width(names[label]))
        _write(above, names[label], middle, _GAP_PIXELS // 2)
    if cell == _MATRIX_CELL_PIXELS:
        for row, column in np.argwhere(share >= 0.005):
            text, dark = f"{100 * share[row, column]:.0f}", share[row, column] > 0.5
            left = cell * column + (cell - _width(text)) // 2
            _write(body, text, cell * row + cell // 2, left, _PAPER if dark else _INK)
    top, end = _TITLE_PIXELS + margin, margin + len(body)
    width = max(end, _GAP_PIXELS + _width(_AXES)) + _GAP_PIXELS
    picture = np.full((_TITLE_PIXELS + end + _GAP_PIXELS, width, 3), _PAPER, np.uint8)
    _write(picture, _AXES, _TITLE_PIXELS // 2, _GAP_PIXELS)
    picture[top:-_GAP_PIXELS, :margin] = beside
    picture[_TITLE_PIXELS:top, margin:end] = np.rot90(above)
    picture[top:-_GAP_PIXELS, margin:end] = body
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(path, format="PNG")


def _write(picture: np.ndarray, text: str, middle: int, left: int, ink: int = _INK) -> None:
    """Small text from column `left` on, around the row `middle`."""
    height = cv2.getTextSize(text, _FONT, _SMALL, 1)[0][1]
    place = (int(left), int(middle) + height // 2)
    cv2.putText(picture, text, place, _FONT, _SMALL, (ink,) * 3, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SMALL, 1)[0][0])


def _fit(picture: np.ndarray) -> np.ndarray:
    """Scaled to a cell's size, without new colours."""
    scale = _CELL_PIXELS / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
