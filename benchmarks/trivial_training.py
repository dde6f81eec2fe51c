"""A two-layer network, five data-parallel steps: nearly all of its time is start and end.

Under msrun it starts as MindSpore's documentation shows; under fcn-launch through fcn.distributed.
"""

import os

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

STEPS = 5


def train() -> float:
    ms.set_seed(1)
    net = nn.SequentialCell(nn.Dense(16, 32), nn.ReLU(), nn.Dense(32, 4))
    loss = nn.WithLossCell(net, nn.MSELoss())
    step = nn.TrainOneStepCell(loss, nn.Momentum(net.trainable_params(), 0.1, 0.9)).set_train()
    x = Tensor(np.ones((8, 16), np.float32))
    y = Tensor(np.zeros((8, 4), np.float32))
    for _ in range(STEPS):
        value = float(step(x, y).asnumpy())
    return value


if os.environ.get("FCN_RENDEZVOUS"):
    from fcn import distributed, platform
    from fcn.status import Status

    world = distributed.join(platform.set_up(), Status())
    ms.set_auto_parallel_context(gradients_mean=True)
    print("loss", train(), flush=True)
    world.leave(0)
else:
    from mindspore.communication import init

    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    init()
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    print("loss", train(), flush=True)
