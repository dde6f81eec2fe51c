"""Convolutions for training on CPU: nn.Conv2d's parameter and results, in forms that oneDNN computes well.

MindSpore hands oneDNN plain NCHW tensors, for which several of its gradients are slow or need much memory.
"""

from __future__ import annotations

from typing import Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.ops.operations._grad_ops import Conv2DBackpropFilter


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Cell:
    """A 'same' convolution of stride 1: (N, inputs, H, W) -> (N, outputs, H, W)."""
    return ConvTurned(inputs, outputs, kernel) if kernel == 3 else ConvAsMatMul(inputs, outputs, kernel)


class ConvAsMatMul(nn.Cell):
    """Unfold, and one matrix product.

    The weight gradient of fc6's 7x7 convolution would run on oneDNN's reference code, 30 s against 1 s in
    this form, and that of fc7 would keep 540 MB to work in.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = _weight(inputs, outputs, kernel)
        self.outputs = outputs
        self.kernel = kernel
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.kernel > 1:
            x = ops.unfold(x, kernel_size=self.kernel, padding=self.kernel // 2)  # (N, c*k*k, H*W)
        columns = x.reshape(n, c * self.kernel * self.kernel, h * w).transpose(0, 2, 1)
        flat = self.matmul(columns.reshape(n * h * w, -1), self.weight.reshape(self.outputs, -1))
        return flat.reshape(n, h * w, self.outputs).transpose(0, 2, 1).reshape(n, self.outputs, h, w)


class ConvTurned(nn.Cell):
    """The gradient of the input is a forward convolution with the turned kernel.

    oneDNN's own one unfolds whole images, each thread one, and each layer keeps the memory: 300 MB for the
    second layer at 256x256.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = _weight(inputs, outputs, kernel)
        self.turned_shape = (inputs, outputs, kernel, kernel)
        self.last_to_first = Tensor(np.arange(kernel**2)[::-1].astype(np.int32))
        self.conv = _ConvTurned(inputs, outputs, kernel)

    def construct(self, x: Tensor) -> Tensor:
        inputs, outputs = self.turned_shape[:2]
        turned = ops.gather(self.weight.reshape(outputs, inputs, -1), self.last_to_first, 2)
        turned = turned.transpose(1, 0, 2).reshape(self.turned_shape)
        # Turned here: a gradient that reads the weights again makes MindSpore copy all of them in every step.
        return self.conv(x, self.weight, ops.stop_gradient(turned))


class _ConvTurned(nn.Cell):
    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.shape = (outputs, inputs, kernel, kernel)
        self.forward_conv = ops.Conv2D(outputs, kernel, pad_mode="same")
        self.input_conv = ops.Conv2D(inputs, kernel, pad_mode="same")
        self.weight_gradient = Conv2DBackpropFilter(outputs, kernel, pad_mode="same")

    def construct(self, x: Tensor, weight: Tensor, turned: Tensor) -> Tensor:
        return self.forward_conv(x, weight)

    def bprop(
        self, x: Tensor, weight: Tensor, turned: Tensor, out: Tensor, gradient: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        to_weight = self.weight_gradient(gradient, x, self.shape)
        return self.input_conv(gradient, turned), to_weight, ops.zeros_like(turned)


def _weight(inputs: int, outputs: int, kernel: int) -> ms.Parameter:
    shape = (outputs, inputs, kernel, kernel)
    return ms.Parameter(initializer("xavier_uniform", shape), name="weight")
