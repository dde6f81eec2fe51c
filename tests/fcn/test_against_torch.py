"""The training step against an independent one in PyTorch: float64 is the truth, its float32 the measure.

Which way a ReLU or a maximum falls is a matter of rounding, and moves a gradient by far more than rounding:
so errors are compared in norm, and ours may be twice PyTorch's.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
torch = pytest.importorskip("torch", reason="PyTorch is the peer: pip install torch")

from benchmarks.torch_fcn8s import FCN8s, Training, normalise  # noqa: E402
from fcn.architecture import parameter_shapes  # noqa: E402
from fcn.distributed import World  # noqa: E402
from fcn.model import Normalise  # noqa: E402
from fcn.network import build_network  # noqa: E402
from fcn.step import Steps  # noqa: E402

pytestmark = pytest.mark.torch

STEPS = 5
RATE = 0.01
NEAR = 1e-5
TIMES = 2.0

TOY = ("num_classes=5", "encoder_width=0.125", "fc_channels=32", "crop_size=96", "batch_size=4")
PUBLISHED = ("num_classes=21", "encoder_width=1", "fc_channels=4096", "crop_size=128", "batch_size=4")


class Result(NamedTuple):
    """Of a training: logits and gradients at its start, the loss of each step, what is learnt in the end."""

    logits: np.ndarray
    gradients: Dict[str, np.ndarray]
    losses: List[float]
    values: Dict[str, np.ndarray]


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param(TOY, id="toy"),
        pytest.param(PUBLISHED, id="published size", marks=pytest.mark.slow),
    ],
)
def test_no_less_exact_than_pytorch(device, small_config, sets):
    config = small_config(*sets)
    start = draw_weights(config), *draw_batch(config)
    truth = in_torch(torch.float64, config, *start)
    peer = in_torch(torch.float32, config, *start)
    ours = in_mindspore(device, config, *start)
    assert_near(ours, truth)
    for one, other, exact in (
        (ours.gradients, peer.gradients, truth.gradients),
        (ours.values, peer.values, truth.values),
    ):
        assert one.keys() == other.keys() == exact.keys()
        pairs = {name: (error(one[name], exact[name]), error(other[name], exact[name])) for name in exact}
        assert not {name: pair for name, pair in pairs.items() if pair[0] > TIMES * pair[1]}


def test_with_frozen_batch_norm(device, small_config):
    """Without batch norm's own rounding a single ReLU that falls the other way is all of the error."""
    config = small_config(*TOY, "freeze_bn=true")
    start = draw_weights(config), *draw_batch(config)
    truth = in_torch(torch.float64, config, *start)
    ours = in_mindspore(device, config, *start)
    assert_near(ours, truth)
    for name, exact in truth.gradients.items():
        assert error(ours.gradients[name], exact) < 1e-3, name
    for name, exact in truth.values.items():
        assert error(ours.values[name], exact) < 1e-4, name


def assert_near(ours, truth):
    assert error(ours.logits, truth.logits) < NEAR
    np.testing.assert_allclose(ours.losses, truth.losses, rtol=NEAR)
    assert truth.losses[-1] < truth.losses[0]


def error(values, exact):
    return np.linalg.norm(values.astype(np.float64) - exact) / np.linalg.norm(exact)


def draw_batch(config):
    rng = np.random.default_rng(0)
    shape = (config.batch_size, config.crop_size, config.crop_size)
    labels = rng.choice([*range(config.num_classes), config.ignore_label], shape).astype(np.uint8)
    return rng.integers(0, 256, (*shape, 3), np.uint8), labels


def draw_weights(config):
    """Every value another, and of a size that keeps the signal's."""
    rng = np.random.default_rng(1)
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


def in_torch(dtype, config, weights, images, labels):
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


def _fill(named, weights):
    assert named.keys() == weights.keys()
    for name, value in weights.items():
        named[name].copy_(torch.from_numpy(value))


class Logits(ms.nn.Cell):
    def __init__(self, net, config):
        super().__init__(auto_prefix=False)
        self.net = net
        self.normalise = Normalise(config.image_mean, config.image_std)

    def construct(self, images):
        return self.net(self.normalise(images))


def in_mindspore(device, config, weights, images, labels):
    net = build_network(config, device)
    named = {p.name: p for p in net.get_parameters()}

    def fill():
        for name, value in weights.items():
            named[name].set_data(ms.Tensor(value))

    fill()
    logits = Logits(net, config).set_train()(ms.Tensor(images)).asnumpy()
    fill()
    steps = Steps(net, config, device, World())
    steps.run(images, labels, rate=0.0)
    gradients = {}
    for moment in steps.graph.optimizer.moments:  # after a step without a rate: gradient and decay
        name = moment.name.partition(".")[2]
        decay = config.weight_decay if moment.ndim > 1 else 0.0
        gradients[name] = moment.asnumpy().astype(np.float64) - decay * weights[name].astype(np.float64)
        moment.set_data(ms.Tensor(np.zeros(moment.shape, np.float32)))
    fill()
    losses = [steps.run(images, labels, RATE)[0] for _ in range(STEPS)]
    return Result(logits, gradients, losses, {name: p.asnumpy() for name, p in named.items()})
