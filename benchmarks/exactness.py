"""How exact the training step is beside PyTorch's: float64 is the truth, both in float32.

Which way a ReLU or a maximum falls is a matter of rounding, and moves a gradient by far more than rounding:
so errors are compared in norm, by the lower quartile of some draws. The published network has so many units
that some fall the other way in every draw, in both.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple

import mindspore as ms
import numpy as np
import torch

from benchmarks.report import report
from benchmarks.torch_fcn8s import FCN8s, Training, normalise
from fcn import platform
from fcn.architecture import parameter_shapes
from fcn.config import Config
from fcn.config_file import load_config
from fcn.distributed import World
from fcn.model import Normalise
from fcn.network import build_network
from fcn.platform import Platform
from fcn.step import Steps

TOY = ("num_classes=5", "encoder_width=0.125", "fc_channels=32", "crop_size=64", "batch_size=2")
PUBLISHED = ("num_classes=21", "encoder_width=1", "fc_channels=4096", "crop_size=128", "batch_size=4")

STEPS = 5
RATE = 0.01


def main() -> None:
    """The worst ratio of our error to PyTorch's, over all parameters."""
    device = platform.set_up()
    rows = []
    for size, sets, draws in (("toy", TOY, 31), ("published", PUBLISHED, 5)):
        comparison = compare(load_config(None, list(sets))[0], device, draws)
        for kind in ("gradients", "values"):
            errors = {name: pair for name, pair in comparison.errors.items() if name.startswith(kind)}
            name = max(errors, key=lambda name: errors[name][0] / errors[name][1])
            ours, peers = errors[name]
            rows.append([size, draws, name, ours, peers, ours / peers])
        rows.append([size, draws, "logits", comparison.logits, None, None])
        rows.append([size, draws, "losses", comparison.losses, None, None])
    report("exactness", ["size", "draws", "worst", "ours", "pytorch", "ratio"], rows)


class Comparison(NamedTuple):
    """logits, losses: our largest relative error in any draw. errors: by `gradients NAME` and `values NAME`
    ours and PyTorch's relative error in norm, the lower quartile over the draws.
    """

    logits: float
    losses: float
    errors: Dict[str, Tuple[float, float]]


def compare(config: Config, device: Platform, draws: int) -> Comparison:
    """Train from each draw in float64, in PyTorch's float32 and in ours."""
    network = Network(config, device)
    logits, losses = 0.0, 0.0
    errors: Dict[str, List[Tuple[float, float]]] = {}
    for seed in range(draws):
        start = draw(config, seed)
        truth = in_torch(torch.float64, config, *start)
        peer = in_torch(torch.float32, config, *start)
        ours = network.train(*start)
        logits = max(logits, error(ours.logits, truth.logits))
        losses = max(losses, *np.abs(np.array(ours.losses) / truth.losses - 1))
        for kind in ("gradients", "values"):
            one, other, exact = (getattr(result, kind) for result in (ours, peer, truth))
            assert one.keys() == other.keys() == exact.keys()
            for name in exact:
                pair = error(one[name], exact[name]), error(other[name], exact[name])
                errors.setdefault(f"{kind} {name}", []).append(pair)
    quartiles = {name: np.quantile(pairs, 0.25, axis=0).tolist() for name, pairs in errors.items()}
    return Comparison(logits, losses, quartiles)


class Result(NamedTuple):
    """Of a training: logits and gradients at its start, the loss of each step, what is learnt in the end."""

    logits: np.ndarray
    gradients: Dict[str, np.ndarray]
    losses: List[float]
    values: Dict[str, np.ndarray]


Weights = Dict[str, np.ndarray]


def error(values: np.ndarray, exact: np.ndarray) -> float:
    """Relative, in norm."""
    return float(np.linalg.norm(values.astype(np.float64) - exact) / np.linalg.norm(exact))


def draw(config: Config, seed: int) -> Tuple[Weights, np.ndarray, np.ndarray]:
    """Weights, images (N, H, W, 3), labels (N, H, W)."""
    rng = np.random.default_rng(seed)
    shape = (config.batch_size, config.crop_size, config.crop_size)
    labels = rng.choice([*range(config.num_classes), config.ignore_label], shape).astype(np.uint8)
    return draw_weights(config, rng), rng.integers(0, 256, (*shape, 3), np.uint8), labels


def draw_weights(config: Config, rng: np.random.Generator) -> Weights:
    """Every value another, and of a size that keeps the signal's."""
    weights = {}
    for name, shape in parameter_shapes(config.architecture).items():
        kind = name.rpartition(".")[2]
        if kind == "weight":
            values = rng.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[1:])))
        elif kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(size=shape, scale=0.1)
        weights[name] = values.astype(np.float32)
    return weights


@torch.backends.mkldnn.flags(enabled=False)  # slowed by the instruction set that MindSpore's copy needs
def in_torch(
    dtype: torch.dtype, config: Config, weights: Weights, images: np.ndarray, labels: np.ndarray
) -> Result:
    """Train in PyTorch."""
    net = FCN8s(config.num_classes, config.encoder_width, config.fc_channels).to(dtype)
    training = Training(net, RATE, config.momentum, config.weight_decay)
    if config.freeze_bn:
        net.freeze_batch_norm()
    named = net.by_original_name()
    names = {value.data_ptr(): name for name, value in named.items()}
    x = normalise(torch.from_numpy(images), config.image_mean, config.image_std, dtype)
    y = torch.from_numpy(labels).long()
    with torch.no_grad():
        _fill(named, weights)
        logits = net(x).numpy()
        _fill(named, weights)  # the moving statistics have moved
    losses = [training.step(x, y)]
    gradients = {names[p.data_ptr()]: p.grad.numpy().copy() for p in net.parameters()}
    losses += [training.step(x, y) for _ in range(STEPS - 1)]
    return Result(logits, gradients, losses, {name: value.numpy() for name, value in named.items()})


def _fill(named: Dict[str, torch.Tensor], weights: Weights) -> None:
    assert named.keys() == weights.keys()
    for name, value in weights.items():
        named[name].copy_(torch.from_numpy(value))


class Logits(ms.nn.Cell):
    """Of images as they are."""

    def __init__(self, net: ms.nn.Cell, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.normalise = Normalise(config.image_mean, config.image_std)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.net(self.normalise(images))


class Network:
    """Compiled once, trained from any start."""

    def __init__(self, config: Config, device: Platform) -> None:
        self.config = config
        self.net = build_network(config, device)
        self.named = {p.name: p for p in self.net.get_parameters()}
        self.logits = Logits(self.net, config).set_train()
        self.steps = Steps(self.net, config, device, World())

    def train(self, weights: Weights, images: np.ndarray, labels: np.ndarray) -> Result:
        """From this start, without momentum."""
        self._fill(weights)
        logits = self.logits(ms.Tensor(images)).asnumpy()
        self._fill(weights)
        self.steps.run(images, labels, rate=0.0)
        gradients = {}
        for moment in self.steps.graph.optimizer.moments:  # after a step without a rate: gradient and decay
            name = moment.name.partition(".")[2]
            decay = self.config.weight_decay if moment.ndim > 1 else 0.0
            gradients[name] = moment.asnumpy().astype(np.float64) - decay * weights[name].astype(np.float64)
        self._fill(weights)
        losses = [self.steps.run(images, labels, RATE)[0] for _ in range(STEPS)]
        return Result(logits, gradients, losses, {name: p.asnumpy() for name, p in self.named.items()})

    def _fill(self, weights: Weights) -> None:
        for name, value in weights.items():
            self.named[name].set_data(ms.Tensor(value))
        for moment in self.steps.graph.optimizer.moments:
            moment.set_data(ms.Tensor(np.zeros(moment.shape, np.float32)))
