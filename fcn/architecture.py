"""The shape of FCN-8s, without a framework: what every parameter is called and how large it is.

Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015),
section 4, with VGG16's batch-norm form as encoder. Names are those of the original FCN8s project, so its
checkpoints load.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Dict, Tuple

# Channels of VGG16's five stages of 3x3 convolutions (Simonyan and Zisserman 2015, table 1, column D).
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FC6_KERNEL = 7
BATCH_NORM_EPS = 1e-5
STRIDE = 32  # of the encoder: input sides are padded to a multiple of it
UPSAMPLINGS = {"upscore2": (4, 2), "upscore_pool4": (4, 2), "upscore8": (16, 8)}  # kernel, stride


@dataclass(frozen=True)
class Architecture:
    """Sizes that the parameters' shapes depend on; the defaults are the published network's."""

    num_classes: int = 21
    encoder_width: float = 1.0
    fc_channels: int = 4096
    skip_scales: Tuple[float, float] = (1.0, 1.0)  # factors on pool4 and pool3 before their score heads

    @property
    def stages(self) -> Tuple[Tuple[int, ...], ...]:
        """Output channels of each convolution of the five encoder stages."""
        return tuple(tuple(max(1, round(c * self.encoder_width)) for c in stage) for stage in VGG16_STAGES)


def _batch_norm(name: str, channels: int) -> Dict[str, Tuple[int, ...]]:
    return {f"{name}.{p}": (channels,) for p in ("moving_mean", "moving_variance", "gamma", "beta")}


def parameter_shapes(arch: Architecture) -> Dict[str, Tuple[int, ...]]:
    """Name and shape of every parameter, batch-norm moving statistics included, in the network's order."""
    shapes: Dict[str, Tuple[int, ...]] = {}
    channels = 3
    for number, stage in enumerate(arch.stages, start=1):
        for index, out in enumerate(stage):
            shapes[f"conv{number}.{3 * index}.weight"] = (out, channels, 3, 3)
            shapes.update(_batch_norm(f"conv{number}.{3 * index + 1}", out))
            channels = out
    for name, kernel in (("conv6", FC6_KERNEL), ("conv7", 1)):
        shapes[f"{name}.0.weight"] = (arch.fc_channels, channels, kernel, kernel)
        shapes.update(_batch_norm(f"{name}.1", arch.fc_channels))
        channels = arch.fc_channels
    classes = arch.num_classes
    heads = {"score_fr": channels, "score_pool4": arch.stages[3][-1], "score_pool3": arch.stages[2][-1]}
    for head, upsampling in zip(heads, UPSAMPLINGS):
        shapes[f"{head}.weight"] = (classes, heads[head], 1, 1)
        kernel, _ = UPSAMPLINGS[upsampling]
        shapes[f"{upsampling}.weight"] = (classes, classes, kernel, kernel)
    return shapes


def parameter_count(arch: Architecture, trainable_only: bool = False) -> int:
    """Number of values; without the moving statistics where only the trainable ones are asked for."""
    shapes = parameter_shapes(arch)
    return sum(prod(s) for n, s in shapes.items() if not (trainable_only and ".moving_" in n))
