"""Lists of samples, and the images and masks they name.

A line of a list is one of
  `image_path mask_path`   relative to the root (a leading slash, as in the published VOC lists, is accepted);
                           separated by a tab where the paths have blanks
  `NAME`                   `img/NAME.jpg` with `cls_png/NAME.png` (the layout of SBD conversions), or
                           `JPEGImages/NAME.jpg` with `SegmentationClass/NAME.png` (PASCAL VOC) where there
                           is one and else `SegmentationClassAug/NAME.png` (VOC and SBD merged; some of these
                           folders hold SBD's coarser mask also of images that VOC has labelled)
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterator, List, Tuple, Union

import cv2
import numpy as np
from PIL import Image

from fcn.errors import DataError
from fcn.pictures import palette

PathLike = Union[str, Path]

_LAYOUTS = (
    ("img/{}.jpg", ("cls_png/{}.png",)),
    ("JPEGImages/{}.jpg", ("SegmentationClass/{}.png", "SegmentationClassAug/{}.png")),
)

# A mask is labelled on the pixels as they are stored, so an EXIF rotation must not turn the image under it.
READ_BGR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# Goes through the whole of a JPEG file in a third of the time.
_READ_EIGHTH = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION

_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3  # the PNG specification's colour types, byte 25 of a file

_COLOURS_SHOWN_MAX = 5


@dataclass(frozen=True)
class Item:
    """One sample of a list; `name` is unique in it and names the files written for the sample."""

    name: str
    image_path: Path
    mask_path: Path
    line: int


@dataclass(frozen=True)
class Problem:
    """What is wrong with one line of a list."""

    line: int
    text: str


def read_list(root: PathLike, list_file: PathLike) -> List[Item]:
    """The samples of a list, in its order.

    Raises:
        DataError: naming every line that is malformed, repeated, or whose files are missing.
    """
    items, problems = scan_list(root, list_file)
    if problems:
        raise DataError(describe(list_file, problems))
    return items


def scan_list(root: PathLike, list_file: PathLike) -> Tuple[List[Item], List[Problem]]:
    """The usable samples of a list, and what is wrong with its other lines.

    Raises:
        DataError: where the list or the root cannot be read at all, or the list is empty.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that the paths of the list start from")
    items: List[Item] = []
    problems: List[Problem] = []
    first_line: Dict[Path, int] = {}
    for number, words in entries(list_file):
        found = _locate(root, words, number)
        if isinstance(found, Problem):
            problems.append(found)
        elif found.image_path in first_line:
            text = f"{found.image_path} is listed a second time, first on line {first_line[found.image_path]}"
            problems.append(Problem(number, f"{text}; remove one of the lines"))
        else:
            first_line[found.image_path] = number
            items.append(found)
    if not items and not problems:
        raise DataError(f"{list_file}: lists no sample; write one `image_path mask_path` or one name a line")
    return _with_unique_names(root, items), problems


def describe(list_file: PathLike, problems: List[Problem]) -> str:
    """One line of text a problem, in the order of the list."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    return "\n".join(f"{list_file}:{problem.line}: {problem.text}" for problem in ordered)


def entries(list_file: PathLike) -> Iterator[Tuple[int, List[str]]]:
    """The number and the words of each line that is not blank.

    Raises:
        DataError: where the list cannot be read as text.
    """
    for number, line in enumerate(_lines(Path(list_file)), start=1):
        line = line.strip()
        words = [word.strip() for word in line.split("\t" if "\t" in line else None)]
        if line:
            yield number, [word for word in words if word]


def _lines(list_file: Path) -> List[str]:
    try:
        return list_file.read_text(encoding="utf-8-sig").split("\n")  # CRLF has become "\n" by then
    except OSError as error:
        raise DataError(f"{list_file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{list_file}: is not a text file in UTF-8; give the list of samples") from error


def _locate(root: Path, words: List[str], line: int) -> Union[Item, Problem]:
    if len(words) == 1:
        return _locate_name(root, words[0], line)
    if len(words) > 2:
        text = f"expected one name or `image_path mask_path`, found {len(words)} words"
        return Problem(line, f"{text}; separate paths that have blanks by a tab")
    image_path, mask_path = (_resolve(root, word) for word in words)
    missing = [str(path) for path in (image_path, mask_path) if not path.is_file()]
    if missing:
        return Problem(line, f"no such file: {' and '.join(missing)}; correct the line or the root ({root})")
    return Item(image_path.stem, image_path, mask_path, line)


def _resolve(root: Path, word: str) -> Path:
    inside = root / word.lstrip("/")
    return inside if inside.is_file() or not word.startswith("/") else Path(word)


def _locate_name(root: Path, name: str, line: int) -> Union[Item, Problem]:
    looked_for = []
    for image_pattern, mask_patterns in _LAYOUTS:
        image_path = root / image_pattern.format(name)
        if not image_path.is_file():
            looked_for.append(str(image_path))
            continue
        for pattern in mask_patterns:
            if (root / pattern.format(name)).is_file():
                return Item(name, image_path, root / pattern.format(name), line)
        masks = " or ".join(str(root / pattern.format(name)) for pattern in mask_patterns)
        return Problem(line, f"{image_path} has no mask: looked for {masks}; add it or remove the line")
    return Problem(line, f"no image of that name: looked for {' and '.join(looked_for)}; is the root right?")


def _with_unique_names(root: Path, items: List[Item]) -> List[Item]:
    """Names are file stems; where two files share a stem, all are paths below the root without suffix."""
    if all(count == 1 for count in Counter(item.name for item in items).values()):
        return items
    return [replace(item, name=_relative(root, item.image_path)) for item in items]


def _relative(root: Path, path: Path) -> str:
    inside = path.relative_to(root) if root in path.parents else Path(*path.parts[1:])
    return inside.with_suffix("").as_posix()


def read_bytes(path: PathLike) -> bytes:
    """A file's content, with a DataError that names it where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_image(path: PathLike) -> np.ndarray:
    """An image file as uint8 (height, width, 3) BGR, as stored: an EXIF rotation is not applied.

    Grey is given to all three channels, CMYK is converted, of 16 bits the upper 8 are kept, and transparency
    is dropped.

    Raises:
        DataError: where the file is missing, truncated or not an image.
    """
    return decode_image(read_bytes(path), path)


def read_mask(path: PathLike) -> np.ndarray:
    """A PNG mask as uint8 (height, width) class ids.

    They are the indices of a palette file, the values of an 8-bit grey one, or what the colours of an RGB one
    are in the palette of PASCAL VOC, where (224, 224, 192) is 255.

    Raises:
        DataError: where the file is missing, damaged, or holds other colours.
    """
    return decode_mask(read_bytes(path), path)


def image_size(path: PathLike) -> Tuple[int, int]:
    """Height and width of an image as `read_image` gives it, from its header where that says the same.

    Raises:
        DataError: where the file is missing or not an image.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as picture:
            return picture.size[::-1]
    except Exception:  # another format, which Pillow may know differently, or one too large for it
        return read_image(path).shape[:2]


def decode_image(data: bytes, path: PathLike, flags: int = READ_BGR) -> np.ndarray:
    """As `read_image`, from the file's bytes; `path` is for the message only."""
    # OpenCV 4 fills the missing rows of a truncated JPEG with grey and says nothing that a program can see.
    truncated_jpeg = data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data and not truncated_jpeg else None
    if image is None:
        what = "is empty" if not data else "is truncated" if truncated_jpeg else "is damaged or not an image"
        raise DataError(f"{path}: {what}; replace the file, or leave it out")
    return image


def probe_image(path: PathLike) -> Tuple[int, int]:
    """Height and width of an image that can be decoded, without decoding all of its pixels.

    Raises:
        DataError: as `read_image`.
    """
    decode_image(read_bytes(path), path, _READ_EIGHTH)
    return image_size(path)


def decode_mask(data: bytes, path: PathLike) -> np.ndarray:
    """As `read_mask`, from the file's bytes; `path` is for the message only.

    Pillow reads it because OpenCV expands a palette to colours, and the ids are lost.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            bit_depth, colour_type = data[24], data[25]
            pixels = np.array(picture)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib.error and others
        raise DataError(f"{path}: is damaged or not a PNG ({error}); masks must be PNG files") from error
    if colour_type == _PNG_PALETTE or (colour_type, bit_depth) == (_PNG_GREY, 8):
        return pixels
    if (colour_type, bit_depth) == (_PNG_RGB, 8):
        return _ids_of_colours(pixels, path)
    kind = "grey" if colour_type == _PNG_GREY else picture.mode
    raise DataError(f"{path}: is a {bit_depth}-bit {kind} picture, which holds no class ids; {_CONVERT}")


def _ids_of_colours(pixels: np.ndarray, path: PathLike) -> np.ndarray:
    """RGB (height, width, 3) to the class ids that have these colours."""
    codes = _code(pixels)
    places = np.searchsorted(_PALETTE_CODES, codes).clip(max=len(_PALETTE_CODES) - 1)
    foreign = _PALETTE_CODES[places] != codes
    if not foreign.any():
        return _PALETTE_IDS[places]
    colours, counts = np.unique(codes[foreign], return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_COLOURS_SHOWN_MAX]
    named = [f"({colours[i] >> 16}, {colours[i] >> 8 & 255}, {colours[i] & 255})" for i in most]
    shown = ", ".join(f"{name} in {counts[i]:,} pixels" for name, i in zip(named, most))
    more = f" and {len(colours) - len(most):,} more" if len(colours) > len(most) else ""
    text = f"{path}: is an RGB picture with colours that PASCAL VOC's palette does not have: {shown}{more}"
    raise DataError(f"{text}; {_CONVERT}")


def _code(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


_PALETTE_IDS = np.argsort(_code(palette())).astype(np.uint8)
_PALETTE_CODES = _code(palette())[_PALETTE_IDS]
_CONVERT = "convert it to a palette PNG or an 8-bit grey PNG whose pixel values are the class ids"
