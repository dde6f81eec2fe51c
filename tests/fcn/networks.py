"""Checkpoints of small untrained networks, as a training writes them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import mindspore as ms
import numpy as np

from fcn import checkpoint
from fcn.network import build_network
from fcn.platform import CPU


def write_checkpoint(folder: Path, config, name: str = "FCN8s-1_1") -> Path:
    """A network whose predictions have several classes; returns the `.ckpt`, its manifest lies beside it."""
    net = build_network(config, CPU)
    for parameter in net.get_parameters():
        if parameter.name.startswith("score_"):  # large enough that neighbouring pixels differ
            values = np.random.default_rng(len(parameter.name)).normal(size=parameter.shape)
            parameter.set_data(ms.Tensor(values.astype(np.float32)))
    weights = {parameter.name: parameter.asnumpy() for parameter in net.get_parameters()}
    manifest = {
        "step": 1,
        "epoch": 1,
        "architecture": {"model": config.model, **asdict(config.architecture)},
        "normalisation": config.normalisation,
    }
    return checkpoint.save(folder, name, weights, None, manifest)
