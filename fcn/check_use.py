"""Checks of what a trained network is to be used on, and of its checkpoint.

Imports MindSpore only to read a checkpoint that has no manifest beside it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from fcn import checkpoint
from fcn.architecture import parameter_shapes
from fcn.config import Config
from fcn.config_file import load_config
from fcn.data.listing import decode_image, describe, read_bytes, scan_list
from fcn.data.samples import THREADS, Progress, find_problems, is_turned
from fcn.errors import ConfigError, DataError, WeightsError
from fcn.files import free_bytes, in_megabytes
from fcn.pretrained import require_classes, shapes_of
from fcn.strict import require_fit

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")  # what is taken of a folder


def with_checkpoint(config: Config, checkpoints: Optional[Path]) -> Tuple[Config, List[str]]:
    """The configuration with its checkpoint chosen and the network's shape taken from it, and warnings.

    checkpoints: take the newest good one of this folder; None: `config.ckpt_file`. Raises FcnError, also
    where the configuration asks for another network than the file's.
    """
    if checkpoints is None:
        return _with_named(config)
    if not checkpoints.is_dir():
        raise WeightsError(f"{checkpoints}: no such folder; a run with eval_epochs keeps its best there")
    found, damaged = checkpoint.newest(checkpoints)
    if found is None:
        lines = "".join(f"\n  {line}" for line in damaged)
        raise WeightsError(f"{checkpoints}: no usable checkpoint{lines}")
    return _as_described(config, found.path, found.manifest), damaged


def _with_named(config: Config) -> Tuple[Config, List[str]]:
    if not config.ckpt_file:
        raise ConfigError("ckpt_file: no checkpoint named; give --ckpt FILE or --run RUN")
    path = Path(config.ckpt_file)
    if not path.is_file() or path.with_suffix(".json").is_file():
        return _as_described(config, path, checkpoint.verify(path).manifest), []
    values, description = checkpoint.load(path)
    shapes = shapes_of(values)
    unknown = "its bytes" if description else "neither its bytes nor its normalisation"
    if description:
        config = _as_described(config, path, description)
    require_classes(str(path), shapes, config)
    require_fit(shapes, parameter_shapes(config.architecture), str(path))
    can = "cannot" if description else "can"
    return config, [f"{path}: has no manifest, so {unknown} {can} be checked"]


def _as_described(config: Config, path: Path, description: Mapping[str, Any]) -> Config:
    """The configuration with what a checkpoint's description says of its network."""
    norm = description["normalisation"]
    stored = {
        **description["architecture"],
        "image_mean": norm["image_mean"],
        "image_std": norm["image_std"],
    }
    described = load_config(base={**config.model_dump(), **stored, "ckpt_file": str(path)})[0]
    wrong = [
        f"  {key}: {getattr(config, key)} was asked for, {getattr(described, key)} in the file"
        for key in stored
        if key in config.model_fields_set and getattr(config, key) != getattr(described, key)
    ]
    if wrong:
        lines = "\n".join(wrong)
        raise ConfigError(f"{path}: trained with other settings; leave these out\n{lines}")
    return described


def check_eval(config: Config) -> Dict[str, Any]:
    """Facts on the validation list; raises FcnError that names every bad sample."""
    if not config.data_root or not config.data_lst:
        raise ConfigError("data_root, data_lst: no validation list named; give --root DIR and --list FILE")
    items, problems = scan_list(config.data_root, config.data_lst)
    problems += find_problems(items, config.num_classes, config.ignore_label)
    if problems:
        raise DataError(describe(config.data_lst, problems))
    return {"images": len(items)}


def check_predict(words: Sequence[str]) -> Tuple[List[str], int, List[str]]:
    """The images that files and folders name, in order, how many pixels they have in all, and warnings.

    Raises DataError that lists what cannot be read, and images whose results would have one name.
    """
    paths, warnings, problems = _images(words)
    named: Dict[str, Path] = {}
    for path in paths:
        if named.setdefault(path.stem, path) != path:
            problems.append(
                f"{path}: its mask would be named as that of {named[path.stem]}; predict them in two calls"
            )
    progress = Progress("checked", len(paths))
    turned: List[str] = []
    pixels = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for path, result in zip(paths, pool.map(_look, paths)):
            progress.add(1)
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            pixels += result[0]
            if result[1]:
                turned.append(str(path))
    if problems:
        raise DataError("\n".join(problems))
    if turned:
        warnings.append(
            f"{len(turned)} images are shown turned by viewers, as their EXIF says, such as {turned[0]}; "
            "what is predicted is of the pixels as they are stored, as in training"
        )
    return [str(path) for path in paths], pixels, warnings


def _images(words: Sequence[str]) -> Tuple[List[Path], List[str], List[str]]:
    """Files, and files of folders that are images by their names; warnings; problems."""
    paths: Dict[Path, None] = {}  # an ordered set
    warnings, problems = [], []
    for word in words:
        path = Path(word).absolute()
        if not path.is_dir():
            paths[path] = None
            continue
        files = sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
        images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
        paths.update(dict.fromkeys(images))
        if not images:
            kinds = ", ".join(IMAGE_SUFFIXES)
            problems.append(f"{word}: holds no image ({kinds}) itself; folders in it are not searched")
        elif len(images) < len(files):
            other = next(f for f in files if f not in images)
            count = len(files) - len(images)
            warnings.append(f"{word}: passed over {count} files not named as images, such as {other.name}")
    return list(paths), warnings, problems


def _look(path: Path) -> Union[Tuple[int, bool], DataError]:
    """How many pixels an image has and whether viewers turn it; the error where it cannot be read."""
    try:
        data = read_bytes(path)
        height, width = decode_image(data, path).shape[:2]
    except DataError as error:
        return error
    return height * width, is_turned(data)


def require_room(option: str, folder: Path, needed: int) -> None:
    """Raises ConfigError where the disk of a folder, which need not exist yet, has fewer bytes free."""
    free = free_bytes(folder.absolute())
    if free < needed:
        raise ConfigError(
            f"{option}: will take {in_megabytes(needed)}, {folder} has {in_megabytes(free)} free; predict "
            "fewer images, or give an --out on another disk"
        )


def new_folder(option: str, name: Optional[str]) -> Optional[str]:
    """The absolute path of an empty folder, made now: an hour later is too late to learn that it cannot be.

    None where none is asked for. Raises ConfigError.
    """
    if name is None:
        return None
    folder = Path(name).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{option} {name}: is not empty; nothing is overwritten; give a new folder")
    except OSError as error:
        raise ConfigError(f"{option} {name}: cannot be made: {error.strerror}; give another folder") from None
    return str(folder)
