"""A small labelled set, drawn: shapes that only their outline tells apart, for the demo and the tests.

Colours and textures of shapes and backgrounds come from one distribution, so neither says anything about the
class, and all shapes have one distribution of areas. Sizes, places, turns and overlaps vary. A thin border of
the ignore label runs round every shape, as in PASCAL VOC. The same arguments give the same bytes.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from fcn.data.build import BuildOptions, build_dataset
from fcn.errors import DataError
from fcn.pictures import save_mask

CLASSES = ("background", "disc", "triangle", "cross")
IGNORE_LABEL = 255

# A small network learns these quickly: a shape fits the view of its third stage, and stands nearly upright.
_SHAPES_MAX = 5
_RADIUS_MIN, _RADIUS_MAX = 0.13, 0.19  # of a disc, as a share of the image's side
_TURN_MAX = 0.2  # radians
_COVERED_MAX = 0.3  # share of an older shape that a newer one may hide
_CONTRAST_MIN = 100.0  # distance of the base colours in one image, in 0..441
_COLOUR_TRIES = 32
_TEXTURE_CONTRAST = 12.0  # standard deviation of a texture's second colour from its first
_SMOOTHING = 4  # outlines are drawn this many times larger, then averaged
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class DemoOptions:
    """What to draw: `train` and `val` images of `size` pixels square, into the folder `out`."""

    out: Path
    train: int = 480
    val: int = 60
    size: int = 64
    seed: int = 1
    overwrite: bool = False


def make_demo(options: DemoOptions) -> Dict[str, Any]:
    """Draw the set into img/ and cls_png/, list it, and build train.mindrecord.

    Raises:
        DataError: bad options, or a folder that holds something already.
    """
    _check_options(options)
    out = options.out
    try:
        for folder in ("img", "cls_png"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        for stream, (split, count) in enumerate((("train", options.train), ("val", options.val))):
            names = [f"{split}_{index:04d}" for index in range(count)]
            for index, name in enumerate(names):
                # a stream of its own for every image, so validation shares no draw with training
                image, ids = draw_sample(np.random.default_rng([options.seed, stream, index]), options.size)
                _write_image(out / "img" / f"{name}.jpg", image)
                save_mask(out / "cls_png" / f"{name}.png", ids)
            (out / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written: {error.strerror}; give another --out"
        ) from error
    summary = build_dataset(
        BuildOptions(
            root=out,
            list_file=out / "train.txt",
            out=out / "train.mindrecord",
            num_classes=len(CLASSES),
            ignore_label=IGNORE_LABEL,
            overwrite=options.overwrite,
            rebuild=_rebuild_command(options),
        )
    )
    return {**summary, "root": str(out), "val_list": str(out / "val.txt"), "classes": list(CLASSES)}


def _check_options(options: DemoOptions) -> None:
    if options.train < 1 or options.val < 1:
        raise DataError(f"--train {options.train} --val {options.val}: must be at least 1 each")
    if not 32 <= options.size <= 1024:
        raise DataError(f"--size {options.size}: must be 32 to 1024 pixels")
    if options.seed < 0:
        raise DataError(f"--seed {options.seed}: must not be negative")
    if options.out.exists() and not options.out.is_dir():
        raise DataError(f"--out {options.out}: is a file; give a folder")
    if options.out.is_dir() and any(options.out.iterdir()) and not options.overwrite:
        raise DataError(
            f"--out {options.out}: is not empty; give another, or replace the set with --overwrite"
        )


def _rebuild_command(options: DemoOptions) -> str:
    words = ["fcn-launch", "data", "make-demo", "--out", options.out.absolute(), "--train", options.train]
    words += ["--val", options.val, "--size", options.size, "--seed", options.seed, "--overwrite"]
    return shlex.join(map(str, words))


def _write_image(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes())


def draw_sample(rng: np.random.Generator, size: int) -> Tuple[np.ndarray, np.ndarray]:
    """One image, uint8 (size, size, 3) BGR, and its class ids, uint8 (size, size)."""
    colours: List[np.ndarray] = []
    image = _texture(rng, size, _new_colour(rng, colours))
    ids = np.zeros((size, size), np.uint8)
    owners = np.zeros((size, size), np.uint8)  # the border runs between shapes of one class too
    older: List[np.ndarray] = []
    for _ in range(int(rng.integers(1, _SHAPES_MAX + 1))):
        kind = int(rng.integers(1, len(CLASSES)))
        cover = _cover(rng, CLASSES[kind], size)
        inside = cover > 0.5
        if any((shape & inside).sum() > _COVERED_MAX * shape.sum() for shape in older):
            continue
        older.append(inside)
        texture = _texture(rng, size, _new_colour(rng, colours))
        image = image + (texture - image) * cover[..., None]
        ids[inside] = kind
        owners[inside] = len(older)
    kernel = np.ones((3, 3), np.uint8)
    ids[cv2.dilate(owners, kernel) != cv2.erode(owners, kernel)] = IGNORE_LABEL
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), ids


def _new_colour(rng: np.random.Generator, used: List[np.ndarray]) -> np.ndarray:
    """A base colour unlike those used: the first of some that is far enough from them, or the farthest."""
    colours = rng.uniform(20, 235, (_COLOUR_TRIES, 3))
    nearest = np.full(_COLOUR_TRIES, np.inf)
    for other in used:
        nearest = np.minimum(nearest, np.linalg.norm(colours - other, axis=1))
    colour = colours[np.argmax(np.minimum(nearest, _CONTRAST_MIN))]
    used.append(colour)
    return colour


def _texture(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """A surface round a base colour: a gradient, stripes, checks or blobs; float (size, size, 3)."""
    other = base + rng.normal(0, _TEXTURE_CONTRAST, 3)
    y, x = np.mgrid[0:size, 0:size] / size
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    turns = 2 * np.pi * rng.uniform(3, 8)  # waves over the image's side, in radians
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = rng.integers(4)
    if kind == 0:
        pattern = along
    elif kind == 1:
        pattern = 0.5 + 0.5 * np.sin(turns * along + phase)
    elif kind == 2:
        pattern = (np.sin(turns * along + phase) * np.sin(turns * across + phase) > 0).astype(float)
    else:
        pattern = cv2.resize(rng.random((6, 6)), (size, size), interpolation=cv2.INTER_CUBIC)
    return base + (other - base) * pattern[..., None] + rng.normal(0, 5, (size, size, 3))


def _cover(rng: np.random.Generator, shape: str, size: int) -> np.ndarray:
    """How much of each pixel a shape covers: float (size, size) in 0..1."""
    radius = size * rng.uniform(_RADIUS_MIN, _RADIUS_MAX)
    centre = size * rng.uniform(0.15, 0.85, 2)
    turn = rng.uniform(-_TURN_MAX, _TURN_MAX)
    canvas = np.zeros((size * _SMOOTHING,) * 2, np.uint8)
    corners = (_outline(shape, radius, turn) + centre) * _SMOOTHING
    cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 255)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / 255


def _outline(shape: str, radius: float, turn: float) -> np.ndarray:
    """Corners (n, 2) round the origin, of the area of a disc of that radius whatever the shape."""
    if shape == "cross":
        arm, half = 1.189 * radius, 1.189 / 3 * radius
        quarter = np.array([(half, half), (half, arm), (-half, arm)])
        turns = [turn + np.pi / 2 * k for k in range(4)]
        return np.concatenate([_turned(quarter, angle) for angle in turns])
    if shape == "triangle":
        reach, angles = 1.555 * radius, 2 * np.pi / 3 * np.arange(3) - np.pi / 2  # upright
    else:
        reach, angles = radius, 2 * np.pi / 64 * np.arange(64)
    return _turned(reach * np.stack([np.cos(angles), np.sin(angles)], axis=1), turn)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
