"""Named arrays from a file of weights, whoever wrote it: NumPy, safetensors, MindSpore or PyTorch.

A framework is imported for its own kind of file alone.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Callable, Dict, Mapping

import numpy as np

from fcn.errors import WeightsError

Arrays = Dict[str, np.ndarray]

_WRAPPED = re.compile(r"(?<![^.])module\.")  # at the start of a name or after a dot


def read_arrays(path: Path) -> Arrays:
    """Names and values in the file's order; floating point of any width as float32, the rest as it is.

    The name's ending says what the file is. Raises WeightsError that says what is wrong with it.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; name the file")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"{path}: not a kind of file that is read here; expected {', '.join(_READERS)}")
    # A network that was trained data-parallel, or a part of it, has a `module` in its names.
    return {_WRAPPED.sub("", name): _as_float32(array) for name, array in reader(path).items()}


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _unreadable(path: Path, kind: str, error: Exception) -> WeightsError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return WeightsError(f"{path}: not a readable {kind} file ({reason}); fetch or copy it again")


def _numpy(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _unreadable(path, ".npz", error) from None


def _safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError, deserialize

    try:
        return {name: _decode(name, **tensor) for name, tensor in deserialize(path.read_bytes())}
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, ".safetensors", error) from None


def _decode(name: str, dtype: str, shape: list, data: bytes) -> np.ndarray:
    """One tensor of a safetensors file; its NumPy reader has no bfloat16, in which newer files are kept."""
    if dtype == "BF16":  # the upper half of a float32
        values = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return values.view(np.float32).reshape(shape)
    if dtype not in _SAFETENSORS_TYPES:
        raise ValueError(f"{name} is of type {dtype}")
    return np.frombuffer(data, _SAFETENSORS_TYPES[dtype]).reshape(shape)


_SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def _mindspore(path: Path) -> Arrays:
    from fcn.checkpoint import load

    return {name: value.asnumpy() for name, value in load(path)[0].items() if hasattr(value, "asnumpy")}


def _torch(path: Path) -> Arrays:
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path}: a PyTorch file is read by PyTorch, which is not installed; `pip install torch`, or "
            "convert the file to .safetensors where PyTorch is"
        ) from None
    try:
        # weights_only: any other pickle may run what it likes.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch's own: it documents none
        raise _unreadable(path, "PyTorch weights", error) from None
    for wrapper in ("state_dict", "model"):  # a training script's checkpoint, with its optimizer beside
        content = content.get(wrapper, content) if isinstance(content, Mapping) else content
    tensors = content.items() if isinstance(content, Mapping) else ()
    found = {str(name): value for name, value in tensors if isinstance(value, torch.Tensor)}
    if not found:
        raise WeightsError(f"{path}: holds no named tensors; expected a state_dict")
    # NumPy has no bfloat16.
    return {
        name: (value.float() if value.is_floating_point() else value).numpy() for name, value in found.items()
    }


_READERS: Mapping[str, Callable[[Path], Arrays]] = {
    ".npz": _numpy,
    ".safetensors": _safetensors,
    ".ckpt": _mindspore,
    ".pth": _torch,
    ".pt": _torch,
}
