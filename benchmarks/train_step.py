"""A training step of the trainer, as a CPU worker runs it, beside the same in PyTorch.

Network, normalisation, loss, momentum and weight decay are the same, in float32, on the same drawn images.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from benchmarks.report import report
from benchmarks.sides import Side, measure, peer_environment, worker_environment

ROUNDS = 7

# What is trained: side of the crop, images, channels of fc6 and fc7, workers that share the machine
SIZES = {
    "published network": (256, 2, 4096, 1),
    "one of two workers, fc 512": (128, 6, 512, 2),
}

COMMON = """
import numpy as np
from fcn.config import Config
crop, batch, fc_channels = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (batch, crop, crop, 3), np.uint8)
labels = rng.choice([*range(21), 255], (batch, crop, crop)).astype(np.uint8)
config = Config(crop_size=crop, batch_size=batch, fc_channels=fc_channels)
"""

OURS = """
from fcn import platform
from fcn.distributed import World
from fcn.network import build_network
from fcn.step import Steps
device = platform.set_up()
steps = Steps(build_network(config, device), config, device, World())
serve(lambda: steps.run(images, labels, config.base_lr))
"""

PEER = """
import torch
from benchmarks.torch_fcn8s import FCN8s, Training, normalise
training = Training(FCN8s(21, 1.0, fc_channels), config.base_lr, config.momentum, config.weight_decay)

def step():
    x = normalise(torch.from_numpy(images), config.image_mean, config.image_std, torch.float32)
    training.step(x, torch.from_numpy(labels).long())

serve(step)
"""


def main() -> None:
    """Seconds a step and peak memory of both; the ratios are ours to PyTorch's."""
    if find_spec("torch") is None:
        sys.exit("PyTorch is the peer of this benchmark and is not installed: pip install torch")
    rows = []
    for name, (*sizes, workers) in SIZES.items():
        sides = {
            "fcn-launch": Side(COMMON + OURS, worker_environment(workers)),
            "PyTorch": Side(COMMON + PEER, peer_environment(workers)),
        }
        results = {side: one.figures() for side, one in measure(sides, sizes, ROUNDS).items()}
        for side, (least, median, peak) in results.items():
            ratios = [least / results["PyTorch"][0], median / results["PyTorch"][1]]
            rows.append([name, side, least, median, peak, *ratios])
    columns = ["what", "trainer", "min_s", "median_s", "peak_gb", "min_ratio", "median_ratio"]
    report("train_step", columns, rows)
