"""The Semantic Boundaries Dataset: masks of 11,355 VOC images in MATLAB files (Hariharan et al., ICCV 2011).

`benchmark_RELEASE/dataset` holds img/NAME.jpg, cls/NAME.mat, train.txt (8,498 names) and val.txt (2,857). A
mask is the field `Segmentation` of the struct `GTcls`; it has no ignore label round the objects.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Callable

import numpy as np

from fcn.data.listing import read_bytes
from fcn.errors import DataError

_CLASSES = 21  # those of VOC, background included


def read_mask(path: Path) -> np.ndarray:
    """The mask of a `cls/NAME.mat`: uint8 (height, width), class ids 0..20.

    Raises:
        DataError: where scipy or the file is missing, or the file holds no such mask.
    """
    read = reader()
    data = read_bytes(path)
    try:
        mask = np.asarray(read(io.BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"].item())
    except Exception as error:  # scipy raises ValueError, TypeError, OSError, zlib.error, KeyError and others
        what = f"is damaged, or has no GTcls.Segmentation ({type(error).__name__}: {error})"
        raise DataError(f"{path}: {what}; fetch SBD's {path.name} again") from error
    if mask.ndim != 2 or mask.size == 0 or not np.issubdtype(mask.dtype, np.integer):
        text = f"{path}: GTcls.Segmentation is {mask.dtype} of shape {mask.shape}, not a picture of class ids"
        raise DataError(f"{text}; fetch SBD's {path.name} again")
    if mask.min() < 0 or mask.max() >= _CLASSES:
        text = f"{path}: GTcls.Segmentation holds {mask.min()} to {mask.max()}, SBD's classes are"
        raise DataError(f"{text} 0 to {_CLASSES - 1}; fetch SBD's {path.name} again")
    return mask.astype(np.uint8)


def reader() -> Callable[..., Any]:
    """scipy's `loadmat`.

    Raises:
        DataError: where scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        text = "SBD's masks are MATLAB files, and scipy, which reads them, is not installed"
        raise DataError(f"{text}; pip install scipy") from error
    return loadmat
