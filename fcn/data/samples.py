"""Check the samples of a list: both files decode, agree in size, and hold labels with a meaning."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar, Union

import cv2
import numpy as np
from PIL import Image

from fcn.data import listing
from fcn.errors import DataError

THREADS = min(8, os.cpu_count() or 1)
CHUNK_SAMPLES = 64  # read at a time, and so what memory holds at once

# A sample lies in one page of a MindRecord file; the largest page is 256 MB, and half of it leaves room.
SAMPLE_BYTES_MAX = 128 << 20

# Unfiltered at this level the masks of VOC are smaller than at the default and decode in half the time.
_MASK_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]

_EXIF_ORIENTATION, _EXIF_TURNED = 0x0112, range(2, 9)

_LABELS_SHOWN_MAX = 5
_PROGRESS_INTERVAL_S = 1.0

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Checked:
    """A sample that passed.

    Attributes:
        image_sha, ids_sha: what its files held, so that a change before they are written is noticed.
        height, width: in pixels.
        record_bytes: size of the image and the mask as they are stored.
        pixels: int64 (256,), how often each label occurs.
        turned: viewers turn or mirror the image, as its EXIF orientation says; training does not.
    """

    item: listing.Item
    image_sha: str
    ids_sha: str
    height: int
    width: int
    record_bytes: int
    pixels: np.ndarray
    turned: bool


def check_all(
    items: Sequence[listing.Item], num_classes: int, ignore_label: int, decoded: bool = False
) -> Tuple[List[Checked], List[listing.Problem]]:
    """Check samples on several threads, with progress on stderr; both lists keep the order of `items`.

    `decoded` says how they will be stored, see `record`.
    """
    results = _on_threads(lambda item: _check(item, num_classes, ignore_label, decoded), items)
    checked = [result for result in results if isinstance(result, Checked)]
    return checked, [result for result in results if isinstance(result, listing.Problem)]


def find_problems(
    items: Sequence[listing.Item], num_classes: int, ignore_label: int
) -> List[listing.Problem]:
    """What is wrong with samples that are to be evaluated; as `check_all`, in half the time."""

    def problem(item: listing.Item) -> Optional[listing.Problem]:
        try:
            size, ids = listing.probe_image(item.image_path), listing.read_mask(item.mask_path)
            _require_labels(item, size, ids, num_classes, ignore_label)
        except DataError as error:
            return listing.Problem(item.line, str(error))
        return None

    return [found for found in _on_threads(problem, items) if found is not None]


def _on_threads(work: Callable[[listing.Item], _Result], items: Sequence[listing.Item]) -> List[_Result]:
    results: List[_Result] = []
    progress = Progress("checked", len(items))
    with ThreadPoolExecutor(THREADS) as pool:
        for chunk in chunks(items, CHUNK_SAMPLES):
            results += pool.map(work, chunk)
            progress.add(len(chunk))
    return results


def record(sample_id: int, sample: Checked, decoded: bool = False) -> Dict[str, Any]:
    """The MindRecord row of a sample.

    The image is the file as it is, the mask an 8-bit grey PNG of class ids. With `decoded` they are BMP and
    PGM files of the same pixels: seven times larger for VOC, and decoded in a tenth of the time.

    Raises:
        DataError: where its files are no longer what was checked.
    """
    item = sample.item
    data, ids = listing.read_bytes(item.image_path), listing.read_mask(item.mask_path)
    if hashlib.sha256(data).hexdigest() != sample.image_sha or _ids_sha(ids) != sample.ids_sha:
        text = f"{item.image_path} or its mask {item.mask_path} changed during the build"
        raise DataError(f"{text}; no data set was written, try again")
    data, label = _pack_image(data, item, decoded), _pack_mask(ids, decoded)
    return {"id": sample_id, "file_name": item.name, "label": label, "data": data}


def _check(
    item: listing.Item, num_classes: int, ignore_label: int, decoded: bool
) -> Union[Checked, listing.Problem]:
    try:
        data = listing.read_bytes(item.image_path)
        image = listing.decode_image(data, item.image_path)
        ids = listing.read_mask(item.mask_path)
        pixels = _require_labels(item, image.shape[:2], ids, num_classes, ignore_label)
    except DataError as error:
        return listing.Problem(item.line, str(error))
    size = len(_pack_image(data, item, decoded)) + len(_pack_mask(ids, decoded))
    if size > SAMPLE_BYTES_MAX:
        text = f"{item.image_path}: {size >> 20} MB with its mask, the most is {SAMPLE_BYTES_MAX >> 20} MB"
        return listing.Problem(item.line, f"{text}; scale it down")
    return Checked(
        item=item,
        image_sha=hashlib.sha256(data).hexdigest(),
        ids_sha=_ids_sha(ids),
        height=ids.shape[0],
        width=ids.shape[1],
        record_bytes=size,
        pixels=pixels,
        turned=is_turned(data),
    )


def _require_labels(
    item: listing.Item, size: Tuple[int, ...], ids: np.ndarray, num_classes: int, ignore_label: int
) -> np.ndarray:
    """How often each label occurs, int64 (256,); raises DataError where a mask does not fit its image."""
    if size != ids.shape:
        raise DataError(_size_mismatch(item, size, ids))
    pixels = np.bincount(ids.ravel(), minlength=256)
    unknown = unknown_labels(pixels, num_classes, ignore_label)
    if unknown:
        raise DataError(f"{item.mask_path}: {unknown}; correct the mask, or set the number of classes")
    return pixels


def unknown_labels(pixels: np.ndarray, num_classes: int, ignore_label: int) -> str:
    """What is wrong with the labels that occur, given how often each does, (256,); empty where nothing is."""
    unknown = [int(label) for label in np.flatnonzero(pixels) if num_classes <= label != ignore_label]
    if not unknown:
        return ""
    outside = f"outside 0..{num_classes - 1} and not the ignore label {ignore_label}"
    return f"label {_counts(unknown, pixels)} {outside}"


def _counts(labels: List[int], pixels: np.ndarray) -> str:
    shown = ", ".join(f"{label} ({pixels[label]:,} pixels)" for label in labels[:_LABELS_SHOWN_MAX])
    more = len(labels) - _LABELS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _size_mismatch(item: listing.Item, size: Tuple[int, ...], ids: np.ndarray) -> str:
    text = f"{item.image_path}: {size[1]}x{size[0]} pixels but its mask {item.mask_path}"
    if size == ids.shape[::-1]:
        hint = "an EXIF rotation of the image is ignored: store the image upright, or turn the mask"
    else:
        hint = "they must agree: is it the right mask?"
    return f"{text} {ids.shape[1]}x{ids.shape[0]}; {hint}"


def is_turned(data: bytes) -> bool:
    """Whether viewers turn or mirror an image file, as its EXIF orientation says."""
    if b"Exif" not in data and b"eXIf" not in data:
        return False
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.getexif().get(_EXIF_ORIENTATION) in _EXIF_TURNED
    except Exception:  # OpenCV has decoded the image; that Pillow cannot read its EXIF is no fault
        return False


def _pack_image(data: bytes, item: listing.Item, decoded: bool) -> bytes:
    return _encoded(".bmp", listing.decode_image(data, item.image_path)) if decoded else data


def _pack_mask(ids: np.ndarray, decoded: bool) -> bytes:
    return _encoded(".pgm", ids) if decoded else _encoded(".png", ids, _MASK_PNG)


def _encoded(kind: str, pixels: np.ndarray, options: Sequence[int] = ()) -> bytes:
    return bytes(cv2.imencode(kind, pixels, options)[1].tobytes())


def _ids_sha(ids: np.ndarray) -> str:
    return hashlib.sha256(repr(ids.shape).encode() + ids.tobytes()).hexdigest()


def chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Runs of at most `size`, in order."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def warn(text: str) -> None:
    """A line on stderr for what does not stop the work."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


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
