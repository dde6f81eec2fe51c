"""`kernel_step.py WHAT OWN_THREADS` prints the seconds of a training step: see benchmarks.kernels.

A file of its own: MindSpore compiles cells from their source.
"""

import sys
import time

import mindspore as ms
import numpy as np
from mindspore import nn

from fcn.onednn import convolution

REPEATS = 5
ENOUGH_S = 60.0  # a convolution on oneDNN's reference code takes half a minute


class Loss(nn.Cell):
    def __init__(self, cell):
        super().__init__()
        self.scale = ms.Parameter(ms.Tensor(1.0, ms.float32), name="scale")  # wants the input's gradient
        self.cell = cell

    def construct(self, x):
        return self.cell(x * self.scale).mean()


def make(what):
    """A cell and the shape of its input: `layers`, or a convolution, as `ours-3`, `conv-7`."""
    if what == "layers":
        layers = []
        for _ in range(6):
            layers += [nn.Conv2d(32, 32, 3), nn.BatchNorm2d(32), nn.ReLU()]
        return nn.SequentialCell(*layers), (2, 32, 64, 64)
    kind, kernel = what.split("-")
    inputs, outputs, side = (512, 4096, 8) if kernel == "7" else (64, 64, 256)
    cell = (convolution if kind == "ours" else nn.Conv2d)(inputs, outputs, int(kernel))
    return cell, (2, inputs, side, side)


def main(what, own_threads):
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    if own_threads == "no":
        ms.set_context(runtime_num_threads=1)
    cell, shape = make(what)
    loss = Loss(cell)
    step = nn.TrainOneStepCell(loss, nn.Momentum(loss.trainable_params(), 0.01, 0.9)).set_train()
    x = ms.Tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    times = []
    while len(times) < 2 or (len(times) <= REPEATS and sum(times) < ENOUGH_S):
        begin = time.perf_counter()
        step(x).asnumpy()
        times.append(time.perf_counter() - begin)
    print(min(times[1:]))  # the first compiles


main(*sys.argv[1:])
