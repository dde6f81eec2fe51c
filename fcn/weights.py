"""Weights that come from elsewhere: a VGG16-BN encoder, an FCN-8s checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional

import mindspore as ms
import numpy as np
from mindspore import nn

from fcn.checkpoint import load
from fcn.config import Config
from fcn.errors import WeightsError
from fcn.strict import require_fit
from fcn.vgg16 import read_vgg16

# What a training checkpoint holds beside the network, ours or the original project's
_COUNTERS = (
    *("learning_rate", "momentum", "global_step", "epoch_num", "step_num"),
    *("scale_sense", "current_iterator_step"),
)


def initialise(net: nn.Cell, config: Config) -> List[str]:
    """Load what the configuration names into a fresh network; returns a line on each file loaded."""
    if config.ckpt_vgg16:
        values = read_vgg16(Path(config.ckpt_vgg16), config.architecture)
        heads = [parameter.name for parameter in net.get_parameters() if parameter.name not in values]
        load_strictly(net, values, config.ckpt_vgg16, may_lack=heads)
        return [f"{config.ckpt_vgg16}: {len(values)} encoder parameters loaded; the rest starts anew"]
    if config.ckpt_pre_trained:
        left_out = config.filter_list if config.filter_weight else []
        values = read_checkpoint(config.ckpt_pre_trained, config)
        values = {name: value for name, value in values.items() if name not in left_out}
        load_strictly(net, values, config.ckpt_pre_trained, may_lack=left_out)
        return [f"{config.ckpt_pre_trained}: {len(values)} parameters loaded, {len(left_out)} left out"]
    return []


def read_checkpoint(path: str, config: Config) -> Dict[str, Any]:
    """The network's parameters in an FCN-8s checkpoint.

    Raises WeightsError where it was trained on images normalised in another way, or with other skip scales:
    names and shapes would fit, and every prediction be wrong.
    """
    values, description = load(Path(path))
    _require_same_meaning(path, description, config)
    return {n: v for n, v in values.items() if not n.startswith("moments.") and n not in _COUNTERS}


def _require_same_meaning(path: str, description: Optional[Mapping[str, Any]], config: Config) -> None:
    if description is None:
        return
    meant = {**description["normalisation"], "skip_scales": description["architecture"]["skip_scales"]}
    ours = {**config.normalisation, "skip_scales": list(config.skip_scales)}
    wrong = [
        f"  {key}: {meant[key]} in the file, {ours[key]} here" for key in ours if meant[key] != ours[key]
    ]
    if wrong:
        raise WeightsError(f"{path}: trained with other settings; set them alike\n" + "\n".join(wrong))


def load_strictly(
    net: nn.Cell, values: Mapping[str, Any], source: str, may_lack: Collection[str] = ()
) -> None:
    """Load values by name; raises WeightsError that lists every missing, unexpected and misshapen name.

    Nothing is loaded unless everything fits: MindSpore itself would leave what does not fit at random and go
    on.
    """
    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    given = {name: tuple(value.shape) for name, value in values.items()}
    needed = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    require_fit(given, needed, source, may_lack)
    for name, value in values.items():
        array = value.asnumpy() if hasattr(value, "asnumpy") else value
        parameters[name].set_data(ms.Tensor(np.asarray(array, np.float32)))
