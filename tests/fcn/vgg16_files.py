"""A small VGG16 of random weights, files of it in every layout, and what it computes, written plainly.

Layers have VGG16's own names, conv1_1 .. conv5_3, fc6, fc7; each is a dict of weight, bias, gamma, beta, mean
and var.
"""

from __future__ import annotations

from typing import Dict

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fcn.architecture import VGG16_STAGES, Architecture

EPS = 1e-5
BLOCKS = [len(stage) for stage in VGG16_STAGES]
CONVOLUTIONS = [f"conv{s}_{i}" for s, count in enumerate(BLOCKS, 1) for i in range(1, count + 1)]

Layers = Dict[str, Dict[str, np.ndarray]]


def random_vgg(arch: Architecture, batch_norm: bool, bias: bool = True, top: bool = True) -> Layers:
    """float32 layers of the widths that `arch` has, sized so that activations neither fade nor grow."""
    rng = np.random.default_rng(5)
    layers: Layers = {}
    inputs = 3

    def layer(name, outputs, kernel, norm):
        nonlocal inputs
        shape = (outputs, inputs, kernel, kernel)
        arrays = {"weight": rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))}
        if bias:
            arrays["bias"] = rng.normal(size=outputs) * 0.3
        if norm:
            arrays["gamma"], arrays["beta"] = rng.uniform(0.7, 1.3, outputs), rng.normal(size=outputs) * 0.3
            arrays["mean"], arrays["var"] = rng.normal(size=outputs) * 0.3, rng.uniform(0.7, 1.3, outputs)
        layers[name] = {kind: array.astype(np.float32) for kind, array in arrays.items()}
        inputs = outputs

    for name in CONVOLUTIONS:
        stage, index = int(name[4]), int(name[6])
        layer(name, arch.stages[stage - 1][index - 1], 3, batch_norm)
    if top:
        layer("fc6", arch.fc_channels, 7, False)
        layer("fc7", arch.fc_channels, 1, False)
        for name in ("fc6", "fc7"):
            layers[name].setdefault("bias", np.zeros(arch.fc_channels, np.float32))
    return layers


# Where each layer is in VGG16: convolution, batch norm if any, ReLU, and a pool after each block
def _places(batch_norm: bool) -> Dict[str, int]:
    plain = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    normed = [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]
    return dict(zip(CONVOLUTIONS, normed if batch_norm else plain))


def in_layout(layers: Layers, layout: str) -> Dict[str, np.ndarray]:
    """Arrays under the names of torchvision, timm, zoo and ctpn (both of MindSpore's model zoo) or caffe."""
    batch_norm = "gamma" in layers["conv1_1"]
    places = _places(batch_norm)
    torch = layout in ("torchvision", "timm")
    arrays = {}
    for name, layer in layers.items():
        if name.startswith("fc"):
            continue
        if layout == "ctpn":
            conv, norm = f"vgg16_feature_extractor.{name}.0", f"vgg16_feature_extractor.{name}.1"
        elif layout == "caffe":
            conv = norm = name
        else:
            stem = "features" if torch else "layers"
            conv, norm = f"{stem}.{places[name]}", f"{stem}.{places[name] + 1}"
        for kind in ("weight", "bias"):
            if kind in layer:
                arrays[f"{conv}.{kind}"] = layer[kind]
        kinds = ("weight", "bias", "running_mean", "running_var")
        kinds = kinds if torch else ("gamma", "beta", "moving_mean", "moving_variance")
        for theirs, ours in zip(kinds, ("gamma", "beta", "mean", "var")):
            if ours in layer:
                arrays[f"{norm}.{theirs}"] = layer[ours]
        if torch and batch_norm:
            arrays[f"{norm}.num_batches_tracked"] = np.array(7)
    return {**arrays, **_top_in_layout(layers, layout)}


def _top_in_layout(layers: Layers, layout: str) -> Dict[str, np.ndarray]:
    if "fc6" not in layers:
        return {}
    names = {
        "torchvision": ("classifier.0", "classifier.3", "classifier.6"),
        "zoo": ("classifier.0", "classifier.3", "classifier.6"),
        "timm": ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
        "ctpn": ("classifier.fc1", "classifier.fc2", "fc3"),
        "caffe": ("fc6", "fc7", "fc8"),
    }[layout]
    arrays = {}
    for theirs, ours in zip(names, ("fc6", "fc7")):
        weight = layers[ours]["weight"]
        arrays[f"{theirs}.weight"] = weight if layout == "timm" else weight.reshape(len(weight), -1)
        arrays[f"{theirs}.bias"] = layers[ours]["bias"]
    width = len(layers["fc7"]["bias"])
    return {
        **arrays,
        f"{names[2]}.weight": np.zeros((1000, width), np.float32),
        f"{names[2]}.bias": np.zeros(1000, np.float32),
    }


def compute(layers: Layers, image: np.ndarray) -> Dict[str, np.ndarray]:
    """What enters each ReLU: float64 (O, H, W), of fc6 and fc7 (O,).

    image: (3, H, W) as the network was trained on; 224 x 224 where it has fc6.
    """
    found = {}
    x = image.astype(np.float64)
    for name in CONVOLUTIONS:
        layer = layers[name]
        x = _pool(x) if name.endswith("_1") and name != "conv1_1" else x
        y = _convolve(x, layer["weight"]) + _column(layer.get("bias", 0.0))
        found[name] = y if "gamma" not in layer else _batch_norm(y, layer)
        x = np.maximum(found[name], 0)
    x = _pool(x).ravel()
    for name in [name for name in ("fc6", "fc7") if name in layers]:
        weight = layers[name]["weight"]
        found[name] = weight.reshape(len(weight), -1).astype(np.float64) @ x + layers[name]["bias"]
        x = np.maximum(found[name], 0)
    return found


def compute_ours(values: Dict[str, np.ndarray], image: np.ndarray) -> Dict[str, np.ndarray]:
    """The same for parameters under our network's names; fc6 and fc7 are convolutions, (O, H/32, W/32)."""
    found = {}
    x = image.astype(np.float64)
    names = [*CONVOLUTIONS, *(["fc6", "fc7"] if "conv6.0.weight" in values else [])]
    for name in names:
        stage, index = (name[:5], 3 * int(name[6]) - 3) if name[0] == "c" else (f"conv{name[2]}", 0)
        x = _pool(x) if name.endswith("_1") and name != "conv1_1" or name == "fc6" else x
        norm = {kind: values[f"{stage}.{index + 1}.{key}"] for kind, key in _NORM.items()}
        found[name] = _batch_norm(_convolve(x, values[f"{stage}.{index}.weight"]), norm)
        x = np.maximum(found[name], 0)
    return found


_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "var": "moving_variance"}


def _convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    kernel = weight.shape[-1]
    edge = kernel // 2
    windows = sliding_window_view(
        np.pad(x, ((0, 0), (edge, edge), (edge, edge))), (kernel, kernel), axis=(1, 2)
    )
    return np.einsum("oiyx,ihwyx->ohw", weight.astype(np.float64), windows, optimize=True)


def _pool(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max(axis=(2, 4))


def _batch_norm(y: np.ndarray, layer: Dict[str, np.ndarray]) -> np.ndarray:
    gamma, beta, mean, var = (_column(layer[kind].astype(np.float64)) for kind in _NORM)
    return (y - mean) / np.sqrt(var + EPS) * gamma + beta


def _column(values) -> np.ndarray:
    return np.reshape(values, (-1, 1, 1))
