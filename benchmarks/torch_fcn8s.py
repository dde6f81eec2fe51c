"""FCN-8s and its training step in PyTorch: the peer of the benchmarks and of the tests of numerics.

Written from the paper and from what the original FCN8s project chose, not from fcn.model. Parameters have the
original project's names, but for batch norm's, which PyTorch calls otherwise.
"""

from __future__ import annotations

from typing import Dict, List, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 3) -> List[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1), nn.ReLU(inplace=True)]


def _upsampling(classes: int, stride: int) -> nn.ConvTranspose2d:
    # 'same': the result is `stride` times as large as the input
    return nn.ConvTranspose2d(classes, classes, 2 * stride, stride, padding=stride // 2, bias=False)


class FCN8s(nn.Module):
    """Normalised images (N, 3, H, W), sides multiples of 32 -> class scores (N, classes, H, W)."""

    def __init__(self, classes: int = 21, encoder_width: float = 1.0, fc_channels: int = 4096) -> None:
        super().__init__()
        widths = [[max(1, round(width * encoder_width)) for width in stage] for stage in STAGES]
        channels = 3
        for number, stage in enumerate(widths, start=1):
            layers = []
            for width in stage:
                layers += _conv_bn_relu(channels, width)
                channels = width
            self.add_module(f"conv{number}", nn.Sequential(*layers))
        self.conv6 = nn.Sequential(*_conv_bn_relu(channels, fc_channels, 7))
        self.conv7 = nn.Sequential(*_conv_bn_relu(fc_channels, fc_channels, 1))
        self.score_fr = nn.Conv2d(fc_channels, classes, 1, bias=False)
        self.score_pool4 = nn.Conv2d(widths[3][-1], classes, 1, bias=False)
        self.score_pool3 = nn.Conv2d(widths[2][-1], classes, 1, bias=False)
        self.upscore2 = _upsampling(classes, 2)
        self.upscore_pool4 = _upsampling(classes, 2)
        self.upscore8 = _upsampling(classes, 8)

    def forward(self, x: Tensor) -> Tensor:
        pools = []
        for number in range(1, 6):
            x = functional.max_pool2d(getattr(self, f"conv{number}")(x), 2)
            pools.append(x)
        x = self.upscore2(self.score_fr(self.conv7(self.conv6(x)))) + self.score_pool4(pools[3])
        x = self.upscore_pool4(x) + self.score_pool3(pools[2])
        return self.upscore8(x)

    def freeze_batch_norm(self) -> None:
        """Normalise with the running statistics and leave them; weight and bias go on learning."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def by_original_name(self) -> Dict[str, Tensor]:
        """Parameters and running statistics under the names of the original project."""
        named = {}
        for name, module in self.named_modules():
            of_batch_norm = isinstance(module, nn.BatchNorm2d)
            for key, value in module.state_dict().items() if not list(module.children()) else ():
                if key != "num_batches_tracked":
                    named[f"{name}.{BATCH_NORM[key] if of_batch_norm else key}"] = value
        return named


class Training:
    """Stochastic gradient descent with momentum; no weight decay on batch norm."""

    def __init__(self, net: FCN8s, learning_rate: float, momentum: float, weight_decay: float) -> None:
        self.net = net
        self.parameters = dict(net.named_parameters())
        decayed = [p for p in self.parameters.values() if p.dim() > 1]
        plain = [p for p in self.parameters.values() if p.dim() == 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain}]
        self.optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)

    def step(self, images: Tensor, labels: Tensor, ignore_label: int = 255) -> float:
        """Normalised images (N, 3, H, W), labels (N, H, W) int64 -> mean loss of the labelled pixels."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.net(images), labels, ignore_index=ignore_label)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """uint8 images (N, H, W, 3) -> (image - mean) / std as (N, 3, H, W)."""
    scaled = (images.to(dtype) - torch.tensor(mean, dtype=dtype)) / torch.tensor(std, dtype=dtype)
    return scaled.permute(0, 3, 1, 2).contiguous()
