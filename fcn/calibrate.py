"""Statistics of training images for batch norms that were made from biases. Imports no framework.

Such a batch norm (see `fcn.vgg16`) has mean 0 and variance 1, which is right as long as they are used. A
training step uses the batch's own: every channel would be squeezed to deviation 1, and the sizes that the
pretrained layers expect of each other be lost. With the mean m and variance v of its input on training
images, gamma sqrt(v + eps) and beta b + m, the network still computes the same, and in training nearly so.
Over the first 40 steps of 12 VOC images the loss was 1 to 7 % lower for it, in every 8 steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Collection, Dict, List, Mapping, Sequence

import numpy as np

from fcn.architecture import BATCH_NORM_EPS

IMAGES = 16

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Layer:
    """A convolution with its batch norm, ready to compute."""

    norm: str
    pooled: bool  # whether a max pool comes before it
    taps: np.ndarray  # (kernel, kernel, outputs, inputs)
    scale: np.ndarray  # (outputs, 1), as the shift: what the batch norm multiplies by and adds
    shift: np.ndarray


def observe(values: Values, folded: Collection[str], images: np.ndarray) -> np.ndarray:
    """Mean and mean square of every channel that enters a batch norm of `folded`, for each image.

    Args:
        values: the encoder's parameters, or those of conv6 and conv7 too, under the network's names.
        images: normalised, float32 (images, 3, H, W), H and W multiples of 32.

    Returns:
        float64 (images, channels of `folded` one after the other, 2); images may be none.
    """
    layers = _layers(values)
    result = np.empty((len(images), sum(len(values[f"{norm}.beta"]) for norm in folded), 2))
    for row, image in zip(result, images):
        row[:] = _moments(layers, folded, image)
    return result


def with_statistics(values: Values, folded: Sequence[str], moments: np.ndarray) -> Dict[str, np.ndarray]:
    """The parameters of the `folded` batch norms, with the moments (channels, 2) that `observe` found."""
    result: Dict[str, np.ndarray] = {}
    start = 0
    for norm in folded:
        beta = values[f"{norm}.beta"]
        mean, square = moments[start : start + len(beta)].T
        start += len(beta)
        variance = np.maximum(square - mean**2, 0)
        arrays = {
            "moving_mean": mean,
            "moving_variance": variance,
            "gamma": np.sqrt(variance + BATCH_NORM_EPS),
            "beta": beta + mean,
        }
        result.update({f"{norm}.{kind}": array.astype(np.float32) for kind, array in arrays.items()})
    return result


def _layers(values: Values) -> List[_Layer]:
    layers = []
    stages = [""]
    for name in [name for name in values if name.endswith(".weight")]:
        stage, index, _ = name.split(".")
        norm = f"{stage}.{int(index) + 1}"
        gamma, beta, mean, variance = (
            values[f"{norm}.{kind}"][:, None] for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + np.float32(BATCH_NORM_EPS))
        pooled = stage not in ("conv1", "conv7", stages[-1])
        taps = np.ascontiguousarray(values[name].transpose(2, 3, 0, 1))
        layers.append(_Layer(norm, pooled, taps, scale, beta - scale * mean))
        stages.append(stage)
    return layers


def _moments(layers: Sequence[_Layer], folded: Collection[str], image: np.ndarray) -> np.ndarray:
    """(channels, 2) of one image."""
    found = []
    x = image
    for layer in layers:
        if layer.pooled:
            c, h, w = x.shape
            x = x.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
        height, width = x.shape[1:]
        y = _convolve(x, layer.taps)
        if layer.norm in folded:
            mean = y.mean(axis=1, dtype=np.float64)
            found.append(np.stack((mean, y.var(axis=1, dtype=np.float64) + mean**2), axis=1))
        x = np.maximum(layer.scale * y + layer.shift, 0).reshape(-1, height, width)
    return np.concatenate(found)


def _convolve(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """'Same' convolution (C, H, W) -> (O, H*W), as one matrix product for each place in the kernel."""
    (channels, height, width), kernel = x.shape, len(taps)
    padded = np.pad(x, ((0, 0), (kernel // 2, kernel // 2), (kernel // 2, kernel // 2)))
    result = np.zeros((taps.shape[2], height * width), np.float32)
    for row, column in np.ndindex(kernel, kernel):
        window = padded[:, row : row + height, column : column + width]
        result += taps[row, column] @ window.reshape(channels, -1)
    return result
