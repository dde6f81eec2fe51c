"""A VGG16-BN encoder from a file, under the network's own names. Imports no framework."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Dict

import numpy as np

from fcn.architecture import Architecture, parameter_shapes
from fcn.errors import WeightsError
from fcn.strict import require_fit

_NAME = re.compile(r"conv([1-5])_([1-3])\.(weight|gamma|beta|moving_mean|moving_variance)")
_UNREADABLE = (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error)


def read_vgg16(path: Path, arch: Architecture) -> Dict[str, np.ndarray]:
    """The encoder in a `.npz` file with names such as conv3_2.weight and conv3_2.gamma, for BGR input.

    Returns float32 arrays under the network's names, all of the encoder's. Raises WeightsError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise WeightsError(f"ckpt_vgg16: {path}: not a readable .npz file ({error})") from None
    values, unknown = {}, []
    for name, array in arrays.items():
        match = _NAME.fullmatch(name)
        if not match:
            unknown.append(name)
            continue
        stage, layer, kind = match.groups()
        index = 3 * (int(layer) - 1) + (kind != "weight")
        values[f"conv{stage}.{index}.{kind}"] = array.astype(np.float32)
    if unknown:
        raise WeightsError(
            f"ckpt_vgg16: {path}: {len(unknown)} names are not a VGG16-BN encoder's, such as {unknown[0]}; "
            "expected convB_I.weight, .gamma, .beta, .moving_mean, .moving_variance"
        )
    encoder = {name: shape for name, shape in parameter_shapes(arch).items() if name < "conv6"}
    require_fit({name: array.shape for name, array in values.items()}, encoder, f"ckpt_vgg16: {path}")
    return values
