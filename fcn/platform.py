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
    # Convolutions of fcn.onednn in place of nn.Conv2d.
    for_onednn: bool

    def precision(self, config: Config) -> str:
        """MindSpore's mixed precision level for a run."""
        return self.amp_level if config.amp_level == "auto" else config.amp_level


CPU = Platform("cpu", amp_level="O0", for_onednn=True)
ASCEND = Platform("ascend", amp_level="O3", for_onednn=False)


def set_up() -> Platform:
    """Choose the device that FCN_PLATFORM and DEVICE_ID name. Call it before the first tensor is made."""
    platform = ASCEND if os.environ.get("FCN_PLATFORM") == "ascend" else CPU
    # One graph a step: the same step as single operators takes 10 times as long.
    ms.set_context(mode=ms.GRAPH_MODE)
    if platform is ASCEND:
        ms.set_device("Ascend", int(os.environ.get("DEVICE_ID", "0")))
    else:
        ms.set_device("CPU")
        # MindSpore computes on threads of its own, in every worker on as many as there are cores, whatever
        # OMP_NUM_THREADS says; threads that wait for a core keep it busy.
        ms.set_context(runtime_num_threads=_threads())
    return platform


def _threads() -> int:
    """This process's share of the cores; MindSpore takes two at least."""
    share = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # may be a list, one number a level
    return int(share) if share else len(os.sched_getaffinity(0))
