"""FCN-8s: VGG16 with batch norm, fc6 and fc7 as convolutions, pools 3, 4 and 5 fused, 8x upsampling.

Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015),
sections 4.1 to 4.3. As in the original FCN8s project every convolution is padded to 'same', fc6 and fc7
have batch norm in place of dropout, no convolution has a bias, and the upsamplings are learned.
"""

from __future__ import annotations

from typing import Tuple, Type

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import initializer

from fcn import onednn
from fcn.architecture import BATCH_NORM_EPS, FC6_KERNEL, STRIDE, UPSAMPLINGS, Architecture


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, pad_mode="same", weight_init="xavier_uniform")


class Shift(nn.Cell):
    """What is left of a batch norm whose scale is in the convolution's weight: see fcn.fold."""

    def __init__(self, channels: int, **_: float) -> None:
        super().__init__()
        self.beta = ms.Parameter(initializer("zeros", (channels,)), name="beta")
        self.add = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        return self.add(x, self.beta)


class FCN8s(nn.Cell):
    """Normalised BGR images (N, 3, H, W) -> class scores (N, num_classes, H, W), for any H and W.

    134,526,944 parameters at the published sizes and 21 classes, 134,502,112 of them trainable.
    `for_onednn` takes the convolutions of fcn.onednn: names, shapes and results stay. `norm` is the batch
    norm to use, nn.BatchNorm2d or nn.SyncBatchNorm, or Shift for inference.
    """

    def __init__(
        self, arch: Architecture, for_onednn: bool = False, norm: Type[nn.Cell] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        conv = onednn.convolution if for_onednn else _conv

        def conv_bn_relu(inputs: int, outputs: int, kernel: int) -> list:
            # MindSpore's momentum 0.9 keeps nine tenths of the old statistics.
            return [conv(inputs, outputs, kernel), norm(outputs, eps=BATCH_NORM_EPS, momentum=0.9), nn.ReLU()]

        channels = 3
        stages = []
        for widths in arch.stages:
            layers = []
            for width in widths:
                layers += conv_bn_relu(channels, width, 3)
                channels = width
            stages.append(nn.SequentialCell(*layers))
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = stages
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.conv6 = nn.SequentialCell(*conv_bn_relu(channels, arch.fc_channels, FC6_KERNEL))
        self.conv7 = nn.SequentialCell(*conv_bn_relu(arch.fc_channels, arch.fc_channels, 1))
        classes = arch.num_classes
        self.scale4, self.scale3 = arch.skip_scales
        self.score_fr = _conv(arch.fc_channels, classes, 1)
        self.upscore2 = _upsampling("upscore2", classes)
        self.score_pool4 = _conv(arch.stages[3][-1], classes, 1)
        self.upscore_pool4 = _upsampling("upscore_pool4", classes)
        self.score_pool3 = _conv(arch.stages[2][-1], classes, 1)
        self.upscore8 = _upsampling("upscore8", classes)

    def construct(self, x: Tensor) -> Tensor:
        """Pads to a multiple of 32 with zeros, the mean colour, and cuts the scores back."""
        height, width = x.shape[2:]
        padded_height, padded_width = _ceil(height), _ceil(width)
        if (padded_height, padded_width) != (height, width):
            x = ops.pad(x, (0, padded_width - width, 0, padded_height - height))
        x = self.pool(self.conv1(x))
        x = self.pool(self.conv2(x))
        pool3 = self.pool(self.conv3(x))
        pool4 = self.pool(self.conv4(pool3))
        pool5 = self.pool(self.conv5(pool4))
        fc7 = self.conv7(self.conv6(pool5))
        fused = self.upscore2(self.score_fr(fc7)) + self.score_pool4(pool4 * self.scale4)
        fused = self.upscore_pool4(fused) + self.score_pool3(pool3 * self.scale3)
        scores = self.upscore8(fused)
        if (padded_height, padded_width) != (height, width):
            scores = scores[:, :, :height, :width]
        return scores


def _upsampling(name: str, classes: int) -> nn.Conv2dTranspose:
    kernel, stride = UPSAMPLINGS[name]
    return nn.Conv2dTranspose(
        classes, classes, kernel, stride=stride, pad_mode="same", weight_init="xavier_uniform"
    )


def _ceil(side: int) -> int:
    return (side + STRIDE - 1) // STRIDE * STRIDE


def start_as_in_the_paper(net: FCN8s) -> None:
    """Zero score heads, and upsamplings that interpolate bilinearly, each class by itself.

    Long, Shelhamer, Darrell (CVPR 2015), sections 3.3 and 4.3.
    """
    for head in (net.score_fr, net.score_pool4, net.score_pool3):
        head.weight.set_data(Tensor(np.zeros(head.weight.shape, np.float32)))
    for name, (kernel, stride) in UPSAMPLINGS.items():
        weight = getattr(net, name).weight
        tent = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / stride
        values = np.zeros(weight.shape, np.float32)
        for label in range(weight.shape[0]):
            values[label, label] = np.outer(tent, tent)
        weight.set_data(Tensor(values))


class Normalise(nn.Cell):
    """uint8 BGR images (N, H, W, 3) -> (image - mean) / std as float32 (N, 3, H, W), on the device."""

    def __init__(self, mean: Tuple[float, ...], std: Tuple[float, ...]) -> None:
        super().__init__()
        self.mean = Tensor(mean, ms.float32)
        self.std = Tensor(std, ms.float32)

    def construct(self, images: Tensor) -> Tensor:
        return ((images.astype(ms.float32) - self.mean) / self.std).transpose(0, 3, 1, 2)
