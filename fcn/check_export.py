"""Checks of what a trained network is to be exported to. Imports neither MindSpore nor ONNX."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fcn.config import Config
from fcn.data.listing import read_image, read_list
from fcn.errors import ConfigError, DataError

FORMATS = ("onnx", "mindir", "air")
_ONNX_PACKAGES = ("onnx", "onnxruntime")

Dims = Tuple[Optional[int], Optional[int], Optional[int]]  # number, height and width of images; None: any


def check_export(
    config: Config,
    file_format: str,
    out: Optional[str],
    overwrite: bool,
    dims: Dims,
    image: Optional[str],
    platform: str,
) -> Tuple[Dict[str, Any], List[str]]:
    """The worker's options, and warnings; raises FcnError on what cannot be done.

    Args:
        out: file to write; None: named after the checkpoint, in this folder.
        dims: what the exported graph takes; where None, `onnx` takes any, and the other formats, which need
            fixed sizes, one image of `crop_size`.
        image: on which the file is compared with the network; None: the validation list's first one.
        platform: what exports, "cpu" or "ascend".
    """
    if file_format == "air" and platform != "ascend":
        raise ConfigError(
            "--format air: MindSpore writes AIR on an Ascend alone, and this is a CPU; give --cluster with "
            "an Ascend, such as 1xascend910.yaml, or export mindir or onnx"
        )
    missing = [name for name in _ONNX_PACKAGES if find_spec(name) is None]
    if file_format == "onnx" and missing:
        raise ConfigError(
            f"--format onnx: needs {' and '.join(missing)}; pip install {' '.join(missing)}, or install "
            "fcn-launch[export]"
        )
    file = _new_file(Path(out or f"{Path(config.ckpt_file).stem}.{file_format}").absolute(), overwrite)
    if file.suffix != f".{file_format}":
        raise ConfigError(f"--out {out}: MindSpore and others tell formats by name; end it in .{file_format}")
    if image is not None:
        read_image(image)
    found, warnings = (Path(image).absolute(), []) if image else _of_validation_list(config)
    if file_format != "onnx":
        fixed = (1, config.crop_size, config.crop_size)
        dims = (dims[0] or fixed[0], dims[1] or fixed[1], dims[2] or fixed[2])
    options = {
        "format": file_format,
        "out": str(file),
        "overwrite": overwrite,
        "dims": list(dims),
        "image": str(found) if found else None,
    }
    return options, warnings


def described_in(file: Path) -> Path:
    """The JSON file beside an exported one that says what it takes, gives and comes from."""
    return file.with_name(f"{file.name}.json")


def require_free(file: Path, overwrite: bool) -> None:
    """Raises ConfigError where the export would replace something it may not."""
    for path in (file, described_in(file)):
        if path.is_dir() or (path.exists() and not overwrite):
            remedy = "it is a folder" if path.is_dir() else "--overwrite replaces it"
            raise ConfigError(f"--out: {path} exists; {remedy}, or give another name")


def _new_file(file: Path, overwrite: bool) -> Path:
    folder = file.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        what = "cannot be written to" if folder.is_dir() else "is no folder"
        raise ConfigError(f"--out: {folder} {what}; give a file in another folder")
    require_free(file, overwrite)
    return file


def _of_validation_list(config: Config) -> Tuple[Optional[Path], List[str]]:
    """The first image of the list; None and why, where there is none to be had."""
    if not (config.data_root and config.data_lst):
        return None, []
    try:
        path = read_list(config.data_root, config.data_lst)[0].image_path
        read_image(path)
    except DataError as error:
        reason = str(error).splitlines()[0]
        return None, [f"the file is compared on a drawn image, not on one of the validation list: {reason}"]
    return path.absolute(), []
