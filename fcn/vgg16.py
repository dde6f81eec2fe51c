"""A VGG16 from a file, as the network's encoder, fc6 and fc7 under its own names. Imports no framework.

A layer with a bias b becomes one with a batch norm of mean 0, variance 1, gamma sqrt(1 + eps) and beta b,
which computes the same with its moving statistics. In training the batch's own take their place and would
change every activation's size, so these batch norms (`Vgg16.folded`) are to be given statistics of training
images before the first step: `fcn.calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

from fcn.architecture import BATCH_NORM_EPS, VGG16_STAGES, Architecture, parameter_shapes
from fcn.config import Config
from fcn.errors import WeightsError
from fcn.strict import abridged, require_fit
from fcn.vgg16_layouts import CLASSES, FULLY_CONNECTED, INPUT_FORMS, InputForm, Layout, recognise
from fcn.weight_files import Arrays, read_arrays

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Vgg16:
    """What a file holds for the network.

    Attributes:
        values: float32 arrays under the network's names: all of the encoder, and conv6 and conv7 or neither.
        folded: the batch norms that stand for biases, such as `conv1.1`.
        report: what was loaded and what was left out, in lines.
        warnings: what a person would rather have otherwise, in lines.
    """

    values: Dict[str, np.ndarray]
    folded: Tuple[str, ...]
    report: Tuple[str, ...]
    warnings: Tuple[str, ...]


def read_vgg16(path: Path, config: Config) -> Vgg16:
    """Read a file of any layout in `fcn.vgg16_layouts`, adapted to this network's sizes and input.

    Raises WeightsError that lists what is missing or misshapen of the encoder; fc6 and fc7 are left out where
    they do not fit, and a line says so.
    """
    source = f"ckpt_vgg16: {path}"
    try:
        arrays = read_arrays(path)
    except WeightsError as error:
        raise WeightsError(f"ckpt_vgg16: {error}") from None
    layout = recognise({name: array.shape for name, array in arrays.items()}, source)
    layers = _encoder(arrays, layout, config, source)
    warnings = []
    lacks_statistics = layout.batch_norm and "conv1.1.moving_mean" not in layers
    if lacks_statistics and config.freeze_bn:
        raise WeightsError(
            f"{source}: has no moving statistics of batch norm, and freeze_bn would never take any; "
            "set freeze_bn=false, or take another file"
        )
    if lacks_statistics:
        warnings.append(f"{source}: has no moving statistics of batch norm; they start at mean 0, variance 1")
    fully_connected, refused = _fully_connected(arrays, config.architecture)
    if fully_connected and lacks_statistics:
        fully_connected, refused = {}, "without moving statistics the size of their input is not known"
    if refused:
        warnings.append(f"{source}: fc6 and fc7 are left out and start anew: {refused}")
    classes = next((len(arrays[name]) for name in CLASSES if name in arrays), _IMAGENET_CLASSES)
    if classes != _IMAGENET_CLASSES:
        warnings.append(f"{source}: was trained on {classes} classes, not on ImageNet's {_IMAGENET_CLASSES}")
    form = _input_form(arrays, layout, config)
    values, folded = _with_batch_norms({**layers, **fully_connected}, form, config)
    used = {*layout.encoder, *(FULLY_CONNECTED if fully_connected else ())}
    report = [
        f"{source}: {layout.title}, trained on {form}",
        f"  {len(values)} parameters loaded: the encoder" + ", fc6 and fc7" * bool(fully_connected),
        f"  left out: {abridged([name for name in arrays if name not in used])}",
    ]
    return Vgg16(values, folded, tuple(report), tuple(warnings))


def _encoder(arrays: Arrays, layout: Layout, config: Config, source: str) -> Arrays:
    """The encoder's values under the network's names, conv1.0.bias and its like among them."""
    arch = config.architecture
    first = next(iter(layout.encoder))
    width, needed_width = len(arrays[first]), arch.stages[0][0]
    if width != needed_width:
        raise WeightsError(
            f"{source}: {first} has {width} channels, the network {needed_width} (encoder_width "
            f"{arch.encoder_width:g}); set encoder_width={width / VGG16_STAGES[0][0]:g}"
        )
    shapes = parameter_shapes(arch)
    needed = {
        name: shapes.get(ours) or shapes[ours.replace(".bias", ".weight")][:1]
        for name, ours in layout.encoder.items()
    }
    # Some files have these nowhere; a file that has them here and there is damaged.
    for ending in (".bias", ".moving_mean", ".moving_variance"):
        group = [name for name, ours in layout.encoder.items() if ours.endswith(ending)]
        if not any(name in arrays for name in group):
            needed = {name: shape for name, shape in needed.items() if name not in group}
    found = {name: arrays[name] for name in needed if name in arrays}
    require_fit({name: array.shape for name, array in found.items()}, needed, source)
    bad = [name for name, array in found.items() if not _is_good(array)]
    if bad:
        raise WeightsError(f"{source}: not finite floating-point numbers: {abridged(bad)}; take another file")
    return {layout.encoder[name]: array for name, array in found.items()}


def _fully_connected(arrays: Arrays, arch: Architecture) -> Tuple[Arrays, str]:
    """fc6 and fc7 as convolutions, or nothing and the reason (none where the file does not have them).

    Long, Shelhamer, Darrell (CVPR 2015), section 3.1. One without the other is of no use.
    """
    found = {name: arrays[name] for name in FULLY_CONNECTED if name in arrays}
    if not found:
        return {}, ""
    shapes = parameter_shapes(arch)
    values = {}
    for name, array in found.items():
        ours = FULLY_CONNECTED[name]
        shape = shapes.get(ours) or (arch.fc_channels,)
        rows = (shape[0], prod(shape[1:]))
        if array.shape not in (shape, rows, (1, 1, *rows)):
            return {}, f"refused by shape: {name} {array.shape}, needed {rows if len(shape) > 1 else shape}"
        if not _is_good(array):
            return {}, f"{name} is not of finite floating-point numbers"
        values[ours] = array.reshape(shape)
    lacking = {*FULLY_CONNECTED.values()} - {*values}
    return ({}, f"the file has {', '.join(found)} alone") if lacking else (values, "")


def _is_good(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _input_form(arrays: Arrays, layout: Layout, config: Config) -> InputForm:
    if config.vgg16_input != "auto":
        return INPUT_FORMS[config.vgg16_input]
    # torchvision's IMAGENET1K_FEATURES has the usual names, and NaN for every weight of the classifier.
    if np.isnan(arrays.get("classifier.0.bias", 0.0)).all():
        return INPUT_FORMS["caffe_rgb"]
    return INPUT_FORMS[layout.input_form]


def _with_batch_norms(layers: Arrays, form: InputForm, config: Config) -> Tuple[Arrays, Tuple[str, ...]]:
    """The network's parameters, and the batch norms among them that stand for biases alone."""
    values: Arrays = {}
    folded: List[str] = []
    for name in [name for name in layers if name.endswith(".weight")]:
        stage, index, _ = name.split(".")
        weight, bias = layers[name], layers.get(f"{stage}.{index}.bias", np.float32(0))
        if name == "conv1.0.weight":
            weight, shift = adapt_input(weight, form, config)
            bias = bias + shift
        norm = f"{stage}.{int(index) + 1}"
        zeros, ones = np.zeros(len(weight), np.float32), np.ones(len(weight), np.float32)
        values[name] = weight
        if f"{norm}.gamma" in layers:
            # A bias before batch norm only moves the mean that is taken off again.
            values[f"{norm}.moving_mean"] = layers.get(f"{norm}.moving_mean", zeros) - bias
            values[f"{norm}.moving_variance"] = layers.get(f"{norm}.moving_variance", ones)
            values.update({f"{norm}.{kind}": layers[f"{norm}.{kind}"] for kind in ("gamma", "beta")})
        else:
            folded.append(norm)
            values.update({f"{norm}.moving_mean": zeros, f"{norm}.moving_variance": ones})
            values[f"{norm}.gamma"] = ones * np.float32(np.sqrt(1 + BATCH_NORM_EPS))
            values[f"{norm}.beta"] = zeros + bias
    return values, tuple(folded)


def adapt_input(weight: np.ndarray, form: InputForm, config: Config) -> Tuple[np.ndarray, np.ndarray]:
    """conv1_1's weight (O, 3, 3, 3) for the configuration's input, and what to add to its output (O,).

    Exact but at the image's border: there both networks pad with their own mean colour.
    """
    mean, std = np.array(form.mean), np.array(form.std)
    if form.colour == "RGB":
        weight, mean, std = weight[:, ::-1], mean[::-1], std[::-1]
    # (value - mean) / std in terms of our own (value - image_mean) / image_std
    offset = (np.array(config.image_mean) - mean) / std
    shift = np.einsum("oihw,i->o", weight.astype(np.float64), offset)
    scaled = weight * (np.array(config.image_std) / std)[None, :, None, None]
    return np.ascontiguousarray(scaled, np.float32), shift.astype(np.float32)
