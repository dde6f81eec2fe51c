"""What evaluation costs the host an image, beside the original project's order of work; without the network.

FCN_BENCH_VOC=VOCdevkit/VOC2012 takes real images; without it, drawn ones of the same size.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import cv2
import numpy as np
from PIL import Image

from benchmarks.report import report
from fcn.data.listing import Item, image_size, read_image, read_list, read_mask
from fcn.data.samples import find_problems
from fcn.inference import Sample, fill, padded
from fcn.metrics import confusion
from fcn.pictures import save_mask

IMAGES, ROUNDS = 48, 5
CLASSES, IGNORE = 21, 255
MEAN, STD = np.array((103.53, 116.28, 123.675)), np.array((57.375, 57.120, 58.395))
SIDE = 512  # of the original's padded square


def main() -> None:
    """CPU milliseconds an image, the least of several rounds; the two take turns."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        items = _items(Path(folder))
        ours, theirs = Stopwatch(), Stopwatch()
        for _ in range(ROUNDS):
            matrices = _ours(items, ours), _theirs(items, theirs)
            # Each counts every labelled pixel once, whatever the drawn predictions are.
            assert matrices[0].sum() == matrices[1].sum()
    parts = {name: min(times) for name, times in ours.seconds.items()}
    peer = {name: min(times) for name, times in theirs.seconds.items()}
    rows = [["ours", name, 1e3 * s / len(items)] for name, s in parts.items()]
    rows += [["original's order", name, 1e3 * s / len(items)] for name, s in peer.items()]
    total, of_peer = (1e3 * sum(times.values()) / len(items) for times in (parts, peer))
    report(
        "evaluation",
        ["who", "part", "cpu_ms_per_image"],
        rows,
        ours_ms=total,
        originals_ms=of_peer,
        ratio=total / of_peer,
        decoding_share_of_ours=2 * parts["read and decode"] / sum(parts.values()),  # the check decodes too
        images=Path(os.environ.get("FCN_BENCH_VOC", "drawn")).name,
    )


class Stopwatch:
    """CPU seconds of the process in each part, a value a round."""

    def __init__(self) -> None:
        self.seconds: Dict[str, List[float]] = {}

    def round(self) -> Callable[[str], None]:
        """Starts a round; call what it returns at the end of each part."""
        spent: Dict[str, float] = {}
        last = time.process_time()

        def lap(part: str) -> None:
            nonlocal last
            now = time.process_time()
            if part not in spent:
                self.seconds.setdefault(part, []).append(0.0)
            spent[part] = spent.get(part, 0.0) + now - last
            self.seconds[part][-1] = spent[part]
            last = time.process_time()

        return lap


def _ours(items: List[Item], watch: Stopwatch) -> np.ndarray:
    """As `fcn-launch eval` treats the images; the graph's answer is drawn beforehand."""
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    answers = np.random.default_rng(0).integers(0, CLASSES, (512, 512), np.uint8)
    lap = watch.round()
    assert not find_problems(items, CLASSES, IGNORE)
    lap("check before the start")
    for item in items:
        image_size(item.image_path)
    lap("read sizes")
    for place, item in enumerate(items):
        image, truth = read_image(item.image_path), read_mask(item.mask_path)
        lap("read and decode")
        height, width = truth.shape
        fill([Sample(place, image, truth)], (1, padded(height), padded(width)), tuple(MEAN))
        lap("fill the batch")
        matrix += confusion(truth, answers[:height, :width], CLASSES, IGNORE)
        lap("cut and count")
    return matrix


def _theirs(items: List[Item], watch: Stopwatch) -> np.ndarray:
    """The original project's order of work: the long side to 512, normalise in float64, pad to a square; then
    the network's float scores of each class back to the image's size, and the largest of them.
    """
    matrix = np.zeros((CLASSES, CLASSES))
    answers = np.random.default_rng(0).normal(size=(CLASSES, SIDE, SIDE)).astype(np.float32)
    batch = np.zeros((1, 3, SIDE, SIDE), np.float32)
    lap = watch.round()
    for item in items:
        with Image.open(item.image_path) as picture, Image.open(item.mask_path) as mask:
            image, truth = np.array(picture, np.uint8), np.array(mask, np.uint8)
        lap("read and decode")
        height, width = truth.shape
        small = _long_side(height, width)
        values = (cv2.resize(image, small[::-1]) - MEAN) / STD
        below, right = SIDE - small[0], SIDE - small[1]
        values = cv2.copyMakeBorder(values, 0, below, 0, right, cv2.BORDER_CONSTANT, value=0)
        batch[0] = values.transpose(2, 0, 1)
        lap("resize, normalise, pad")
        scores = answers[:, : small[0], : small[1]].transpose(1, 2, 0).astype(np.float32)
        predicted = cv2.resize(scores, (width, height)).argmax(axis=2)
        lap("resize 21 scores, argmax")
        counts = truth.ravel() < CLASSES
        cells = CLASSES * truth.ravel()[counts].astype(np.int32) + predicted.ravel()[counts]
        matrix += np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        lap("count")
    return matrix


def _long_side(height: int, width: int) -> Tuple[int, int]:
    if height > width:
        return SIDE, int(SIDE * width / height)
    return int(SIDE * height / width), SIDE


def _items(folder: Path) -> List[Item]:
    """Images of 500x375, most of VOC's size: real ones where they are at hand."""
    if os.environ.get("FCN_BENCH_VOC"):
        root = Path(os.environ["FCN_BENCH_VOC"])
        items = read_list(root, root / "ImageSets/Segmentation/val.txt")
        return [item for item in items if _has_size(item.image_path, (500, 375))][:IMAGES]
    rng = np.random.default_rng(0)
    names = [f"{index:03}" for index in range(IMAGES)]
    for kind in ("img", "cls_png"):
        (folder / kind).mkdir()
    for name in names:
        image = cv2.resize(
            rng.integers(0, 256, (47, 63, 3), np.uint8), (500, 375), interpolation=cv2.INTER_CUBIC
        )
        noisy = np.clip(image + rng.normal(scale=6, size=image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "img" / f"{name}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
        labels = rng.choice((0, 0, 0, 8, 15, IGNORE), (8, 10)).astype(np.uint8)
        save_mask(folder / "cls_png" / f"{name}.png", labels.repeat(47, axis=0)[:375].repeat(50, axis=1))
    (folder / "list.txt").write_text("\n".join(names))
    return read_list(folder, folder / "list.txt")


def _has_size(path: Path, size: Tuple[int, int]) -> bool:
    with Image.open(path) as picture:
        return picture.size == size
