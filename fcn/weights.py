"""Weights that come from elsewhere: a VGG16-BN encoder, an FCN-8s checkpoint."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Tuple

import mindspore as ms
import numpy as np
from mindspore import nn

from fcn.checkpoint import load
from fcn.config import Config
from fcn.errors import WeightsError

_VGG_NAME = re.compile(r"conv([1-5])_([1-3])\.(weight|gamma|beta|moving_mean|moving_variance)")


def initialise(net: nn.Cell, config: Config) -> List[str]:
    """Load what the configuration names into a fresh network; returns a line on each file loaded."""
    if config.ckpt_vgg16 and config.ckpt_pre_trained:
        raise WeightsError(
            "ckpt_vgg16 and ckpt_pre_trained: give one of them; the second would replace the first"
        )
    if config.ckpt_vgg16:
        values = read_vgg16(Path(config.ckpt_vgg16))
        load_strictly(net, values, config.ckpt_vgg16, may_lack=[n for n in _names(net) if not _in_encoder(n)])
        return [f"{config.ckpt_vgg16}: {len(values)} encoder parameters loaded; the heads start at random"]
    if config.ckpt_pre_trained:
        left_out = config.filter_list if config.filter_weight else []
        values = network_parameters(load(Path(config.ckpt_pre_trained))[0])
        values = {name: value for name, value in values.items() if name not in left_out}
        load_strictly(net, values, config.ckpt_pre_trained, may_lack=left_out)
        return [f"{config.ckpt_pre_trained}: {len(values)} parameters loaded, {len(left_out)} left out"]
    return []


def _names(net: nn.Cell) -> List[str]:
    return [parameter.name for parameter in net.get_parameters()]


def _in_encoder(name: str) -> bool:
    return name.startswith(("conv1.", "conv2.", "conv3.", "conv4.", "conv5."))


def network_parameters(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Drop what a training checkpoint holds beside the network: momentum and the optimizer's counters."""
    extra = (
        "learning_rate",
        "momentum",
        "global_step",
        "epoch_num",
        "step_num",
        "scale_sense",
        "current_iterator_step",
    )
    return {n: v for n, v in values.items() if not n.startswith("moments.") and n not in extra}


def read_vgg16(path: Path) -> Dict[str, np.ndarray]:
    """A VGG16-BN encoder from a `.npz` file with names such as conv3_2.weight and conv3_2.gamma.

    Returns float32 arrays under the network's own names. Weights are expected for BGR input. Raises
    WeightsError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise WeightsError(f"ckpt_vgg16: {path}: not a readable .npz file ({error})") from None
    values, unknown = {}, []
    for name, array in arrays.items():
        match = _VGG_NAME.fullmatch(name)
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
    return values


def load_strictly(
    net: nn.Cell, values: Mapping[str, Any], source: str, may_lack: Collection[str] = ()
) -> None:
    """Load values by name; raises WeightsError that lists every missing, unexpected and misshapen name.

    Nothing is loaded unless everything fits: MindSpore itself would leave what does not fit at random and go
    on.
    """
    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    missing = [n for n in parameters if n not in values and n not in may_lack]
    unexpected = [n for n in values if n not in parameters]
    misshapen = [
        f"{n} {tuple(values[n].shape)}, needed {tuple(parameters[n].shape)}"
        for n in values
        if n in parameters and tuple(values[n].shape) != tuple(parameters[n].shape)
    ]
    problems: List[Tuple[str, List[str]]] = [
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", misshapen),
    ]
    if any(names for _, names in problems):
        lines = [f"  {len(names)} {what}: {', '.join(names)}" for what, names in problems if names]
        raise WeightsError(f"{source}: does not fit this network; nothing was loaded\n" + "\n".join(lines))
    for name, value in values.items():
        array = value.asnumpy() if hasattr(value, "asnumpy") else value
        parameters[name].set_data(ms.Tensor(np.asarray(array, np.float32)))
