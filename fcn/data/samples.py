"""Check the samples of a list: both files decode, agree in size, and hold labels with a meaning."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Sequence, Tuple, Union

import cv2
import numpy as np

from fcn.data import listing
from fcn.errors import DataError

THREADS = min(8, os.cpu_count() or 1)
CHUNK_SAMPLES = 64  # read at a time, and so what memory holds at once

# A sample lies in one page of a MindRecord file; the largest page is 256 MB, and half of it leaves room.
SAMPLE_BYTES_MAX = 128 << 20

# Unfiltered at this level the masks of VOC are smaller than at the default and decode in half the time.
_MASK_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]

_LABELS_SHOWN_MAX = 5
_PROGRESS_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Checked:
    """A sample that passed.

    Attributes:
        image_sha, ids_sha: what its files held, so that a change before they are written is noticed.
        record_bytes: size of the image and of the encoded mask.
        pixels: int64 (256,), how often each label occurs.
    """

    item: listing.Item
    image_sha: str
    ids_sha: str
    record_bytes: int
    pixels: np.ndarray


def check_all(
    items: Sequence[listing.Item], num_classes: int, ignore_label: int
) -> Tuple[List[Checked], List[listing.Problem]]:
    """Check samples on several threads, with progress on stderr; both lists keep the order of `items`."""
    checked: List[Checked] = []
    problems: List[listing.Problem] = []
    progress = Progress("checked", len(items))
    with ThreadPoolExecutor(THREADS) as pool:
        for chunk in chunks(items, CHUNK_SAMPLES):
            for result in pool.map(lambda item: _check(item, num_classes, ignore_label), chunk):
                if isinstance(result, Checked):
                    checked.append(result)
                else:
                    problems.append(result)
            progress.add(len(chunk))
    return checked, problems


def record(sample_id: int, sample: Checked) -> Dict[str, Any]:
    """The MindRecord row of a sample.

    Raises:
        DataError: where its files are no longer what was checked.
    """
    item = sample.item
    data, ids = listing.read_bytes(item.image_path), listing.read_mask(item.mask_path)
    if hashlib.sha256(data).hexdigest() != sample.image_sha or _ids_sha(ids) != sample.ids_sha:
        text = f"{item.image_path} or its mask {item.mask_path} changed during the build"
        raise DataError(f"{text}; nothing was written, try again")
    return {"id": sample_id, "file_name": item.name, "label": _encode_mask(ids), "data": data}


def _check(item: listing.Item, num_classes: int, ignore_label: int) -> Union[Checked, listing.Problem]:
    try:
        data = listing.read_bytes(item.image_path)
        image = listing.decode_image(data, item.image_path)
        ids = listing.read_mask(item.mask_path)
    except DataError as error:
        return listing.Problem(item.line, str(error))
    if image.shape[:2] != ids.shape:
        return listing.Problem(item.line, _size_mismatch(item, image, ids))
    pixels = np.bincount(ids.ravel(), minlength=256)
    unknown = [int(label) for label in np.flatnonzero(pixels) if num_classes <= label != ignore_label]
    if unknown:
        text = f"{item.mask_path}: label {_counts(unknown, pixels)} outside 0..{num_classes - 1}"
        text += f" and not the ignore label {ignore_label}; correct the mask, or give --num-classes"
        return listing.Problem(item.line, text)
    size = len(data) + len(_encode_mask(ids))
    if size > SAMPLE_BYTES_MAX:
        text = f"{item.image_path}: {size >> 20} MB with its mask, the most is {SAMPLE_BYTES_MAX >> 20} MB"
        return listing.Problem(item.line, f"{text}; scale it down")
    return Checked(item, hashlib.sha256(data).hexdigest(), _ids_sha(ids), size, pixels)


def _counts(labels: List[int], pixels: np.ndarray) -> str:
    shown = ", ".join(f"{label} ({pixels[label]:,} pixels)" for label in labels[:_LABELS_SHOWN_MAX])
    more = len(labels) - _LABELS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _size_mismatch(item: listing.Item, image: np.ndarray, ids: np.ndarray) -> str:
    text = f"{item.image_path}: {image.shape[1]}x{image.shape[0]} pixels but its mask {item.mask_path}"
    if image.shape[:2] == ids.shape[::-1]:
        hint = "an EXIF rotation of the image is ignored: store the image upright, or turn the mask"
    else:
        hint = "they must agree: is it the right mask?"
    return f"{text} {ids.shape[1]}x{ids.shape[0]}; {hint}"


def _encode_mask(ids: np.ndarray) -> bytes:
    return cv2.imencode(".png", ids, _MASK_PNG)[1].tobytes()


def _ids_sha(ids: np.ndarray) -> str:
    return hashlib.sha256(repr(ids.shape).encode() + ids.tobytes()).hexdigest()


def chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Runs of at most `size`, in order."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class Progress:
    """A line on stderr now and then: rewritten on a terminal, appended in a file."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._next = time.monotonic() + _PROGRESS_INTERVAL_S

    def add(self, count: int) -> None:
        """Count more of the total as done."""
        self._done += count
        finished = self._done >= self._total
        if not finished and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_INTERVAL_S
        end = "\r" if sys.stderr.isatty() and not finished else "\n"
        print(f"{self._what} {self._done:,} of {self._total:,} samples", end=end, file=sys.stderr, flush=True)
