"""Batch norm folded into the convolution before it, for inference.

With the moving statistics fixed, gamma * (w * x - mean) / sqrt(variance + eps) + beta is a convolution with
other weights and a bias. Imports no framework.
"""

from __future__ import annotations

from typing import Dict, Mapping

import numpy as np

from fcn.architecture import BATCH_NORM_EPS, Architecture, parameter_shapes
from fcn.strict import require_fit

_GAMMA = ".gamma"
_PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


def fold(values: Mapping[str, np.ndarray], arch: Architecture, source: str) -> Dict[str, np.ndarray]:
    """Parameters of a trained FCN-8s -> float32 parameters of the same function without batch norm.

    Each convolution's weight takes its batch norm's scale; of the batch norm itself `beta` is left, which is
    what to add to the convolution's result. Computed in float64. Raises WeightsError, which names `source`,
    where the values are not those of `arch`.
    """
    require_fit({name: value.shape for name, value in values.items()}, parameter_shapes(arch), source)
    folded = {name: value.astype(np.float32) for name, value in values.items() if value.ndim > 1}
    for name in values:
        if name.endswith(_GAMMA):
            norm = name[: -len(_GAMMA)]
            gamma, beta, mean, variance = (values[f"{norm}.{part}"].astype(np.float64) for part in _PARTS)
            scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
            weight = folded[convolution_before(norm)]
            # In place: fc6's weights are 400 MB, and twice that in float64.
            np.multiply(weight, scale[:, None, None, None], out=weight, casting="same_kind")
            folded[f"{norm}.beta"] = (beta - mean * scale).astype(np.float32)
    return folded


def convolution_before(norm: str) -> str:
    """The name of the weight whose convolution a batch norm follows: conv1.0.weight for conv1.1."""
    stage, place = norm.split(".")
    return f"{stage}.{int(place) - 1}.weight"
