"""The network as a run needs it on its device."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import mindspore as ms
import numpy as np
from mindspore import nn

from fcn.config import Config
from fcn.fold import fold
from fcn.model import FCN8s, Shift, start_as_in_the_paper
from fcn.onednn import ConvTurned
from fcn.platform import Platform
from fcn.weights import load_strictly


def build_network(config: Config, platform: Platform) -> nn.Cell:
    """The network with this platform's precision; weights drawn from the run's seed."""
    ms.set_seed(config.seed)  # ranks must start equal: MindSpore sends no weights around
    norm = nn.SyncBatchNorm if config.sync_bn else nn.BatchNorm2d
    net = FCN8s(config.architecture, platform.for_onednn, norm)
    if config.paper_init:
        start_as_in_the_paper(net)
    if config.freeze_bn:
        freeze_batch_norm(net)
    level = platform.precision(config)
    if level == "O0":
        return net
    net = ms.amp.auto_mixed_precision(net, level)
    for _, cell in net.cells_and_names():
        # O2 leaves nn.BatchNorm2d in float32, but not the synchronised one. And gradients that a cell
        # computes by itself come in half precision, which then cannot be added up.
        if isinstance(cell, ConvTurned) or (level == "O2" and isinstance(cell, nn.SyncBatchNorm)):
            cell.to_float(ms.float32)
    return net


def inference_network(config: Config, platform: Platform) -> nn.Cell:
    """The network for evaluation, prediction and export, without batch norm: see set_inference_weights.

    In float32 everywhere, as the original project evaluates.
    """
    return FCN8s(config.architecture, platform.for_onednn, Shift)


def set_inference_weights(
    net: nn.Cell, values: Mapping[str, Any], config: Config, source: str
) -> Dict[str, np.ndarray]:
    """Load a trained network's parameters into an `inference_network`; returns them as it has them, folded.

    values: by name, arrays or MindSpore's parameters. Raises WeightsError, which names `source`, where they
    do not fit.
    """
    arrays = {name: v.asnumpy() if hasattr(v, "asnumpy") else v for name, v in values.items()}
    folded = fold(arrays, config.architecture, source)
    load_strictly(net, folded, source)
    return folded


def freeze_batch_norm(net: nn.Cell) -> None:
    """Use and keep the moving statistics; gamma and beta go on learning."""
    for _, cell in net.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.use_batch_statistics = False
