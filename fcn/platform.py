"""All that differs between Ascend and CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

import mindspore as ms

from fcn.config import Config


@dataclass(frozen=True)
class Platform:
    """What the trainer has to know about the device it runs on."""

    name: str
    # MindSpore's mixed precision level. The CPU has half-precision kernels too, but they are no quicker.
    amp_level: str
    # See fcn.model.ConvAsMatMul. Ascend's convolution is the quicker one there.
    fc6_as_matmul: bool

    def precision(self, config: Config) -> str:
        """MindSpore's mixed precision level for a run."""
        return self.amp_level if config.amp_level == "auto" else config.amp_level


CPU = Platform("cpu", amp_level="O0", fc6_as_matmul=True)
ASCEND = Platform("ascend", amp_level="O3", fc6_as_matmul=False)


def set_up() -> Platform:
    """Choose the device that FCN_PLATFORM and DEVICE_ID name. Call it before the first tensor is made."""
    platform = ASCEND if os.environ.get("FCN_PLATFORM") == "ascend" else CPU
    # One graph a step: the same step as single operators takes 10 times as long.
    ms.set_context(mode=ms.GRAPH_MODE)
    if platform is ASCEND:
        ms.set_device("Ascend", int(os.environ.get("DEVICE_ID", "0")))
    else:
        ms.set_device("CPU")
        # One operator at a time, each on OMP_NUM_THREADS threads: MindSpore's threads for several at a time
        # spin while they wait, which takes half of the processor from the ones that compute.
        ms.set_context(runtime_num_threads=1)
    return platform
