"""Small real data sets for the tests: JPEG images, palette PNG masks, a list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Tuple

import cv2
import numpy as np

from fcn.data.build import BuildOptions, build_dataset
from fcn.data.records import DataSet, open_dataset
from fcn.pictures import save_mask

SAMPLES = 13  # of the fixture `root`


def write_sample(root: Path, name: str, size: Tuple[int, int], seed: int, classes: int = 8) -> None:
    """img/NAME.jpg and cls_png/NAME.png of height x width `size`; labels 0..classes-1 and some 255."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    labels = rng.integers(0, classes, (6, 6), dtype=np.uint8)
    labels[0, 0] = 255
    for folder in ("img", "cls_png"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "img" / f"{name}.jpg"), image)
    save_mask(
        root / "cls_png" / f"{name}.png", cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)
    )


def write_samples(root: Path, count: int) -> Path:
    """`count` samples of different sizes; returns their list."""
    names = [f"s{index:03d}" for index in range(count)]
    for index, name in enumerate(names):
        write_sample(root, name, (40 + 3 * index, 70 - 2 * index), seed=index)
    (root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return root / "list.txt"


def build(folder: Path, list_file: Path, name: str = "set.mindrecord", **options: object) -> DataSet:
    """Build and open a data set in `folder`, from samples in it where no other root is given."""
    options = {"root": folder, **options}
    build_dataset(BuildOptions(list_file=list_file, out=folder / name, **options))  # type: ignore[arg-type]
    return open_dataset(folder / name)


def run(*args: object, **options: Any) -> subprocess.CompletedProcess:
    """`python -m fcn.data`, its output captured."""
    command = [sys.executable, "-m", "fcn.data", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def flip_a_byte(path: Path, offset: int) -> None:
    """Damage a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def gtcls(ids: np.ndarray) -> Dict[str, object]:
    """The struct `GTcls` of a mask as SBD's files have it: with a sparse picture of each class's boundary."""
    from scipy.sparse import csc_matrix

    boundaries = np.empty((20, 1), object)
    for label in range(1, 21):
        shape = (ids == label).astype(np.uint8)
        edge = shape - cv2.erode(shape, np.ones((3, 3), np.uint8))
        boundaries[label - 1, 0] = csc_matrix(edge.astype(bool))
    present = np.unique(ids[ids > 0]).astype(np.uint8)
    return {"Boundaries": boundaries, "Segmentation": ids, "CategoriesPresent": present[:, None]}
