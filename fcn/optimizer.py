"""Momentum with a learning rate and a weight decay for each parameter."""

from __future__ import annotations

from typing import List, Tuple

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from fcn.config import Config

_ENCODER = ("conv1.", "conv2.", "conv3.", "conv4.", "conv5.")
_NOT_DECAYED = ("gamma", "beta")  # of batch norm


class Momentum(nn.Cell):
    """v = momentum * v + gradient + decay * w; w = w - lr * v, in place.

    `moments` are v, one a parameter. Sutskever et al., "On the importance of initialization and momentum in
    deep learning" (ICML 2013), as mindspore.nn.Momentum, but in less memory; the learning rate is an input
    here, so that no state of the schedule lives in the graph.
    """

    def __init__(self, parameters: List[ms.Parameter], config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.moments = self.parameters.clone(prefix="moments", init="zeros")
        self.factors = tuple(
            config.encoder_lr_factor if p.name.startswith(_ENCODER) else 1.0 for p in parameters
        )
        self.decays = tuple(
            0.0 if p.name.rpartition(".")[2] in _NOT_DECAYED else config.weight_decay for p in parameters
        )
        self.apply_momentum = ops.ApplyMomentum()
        self.subtract_scaled = ops.ApplyGradientDescent()
        self.momentum = config.momentum
        self.map = ops.HyperMap()

    def construct(self, gradients: Tuple[Tensor, ...], learning_rate: Tensor) -> Tuple[bool, ...]:
        """Updates weights and moments; the result is there to be depended on."""
        update = ops.partial(_update, self.subtract_scaled, self.apply_momentum, self.momentum, learning_rate)
        # MindSpore keeps the order. The last layers' gradients come first, and each is freed once it is used.
        return self.map(
            update,
            self.factors[::-1],
            self.decays[::-1],
            gradients[::-1],
            self.parameters[::-1],
            self.moments[::-1],
        )


def _update(
    subtract_scaled: ops.Primitive,
    apply: ops.Primitive,
    momentum: float,
    learning_rate: Tensor,
    factor: float,
    decay: float,
    gradient: Tensor,
    weight: Tensor,
    moment: Tensor,
) -> bool:
    if decay != 0.0:
        # Into the moment, which is about to be multiplied by the momentum: the sum of gradient and decayed
        # weight would need room for another two of each.
        moment = ops.depend(moment, subtract_scaled(moment, -decay / momentum, weight))
    if factor != 1.0:
        learning_rate = learning_rate * factor
    return ops.depend(True, apply(weight, moment, learning_rate, gradient, momentum))
