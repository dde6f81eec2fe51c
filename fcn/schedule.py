"""Learning rates. Pure."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcn.config import Config


def learning_rate(config: Config, step: int, epoch_steps: int, global_batch: int) -> float:
    """Learning rate of a step (counted from 0 over all epochs).

    Linear warm-up (Goyal et al., arXiv 1706.02677, section 2.2) multiplies what the schedule says.
    """
    rate = start_rate(config, global_batch) * _share(config, step, epoch_steps)
    warmup_steps = round(config.warmup_epochs * epoch_steps)
    return rate * (step + 1) / warmup_steps if step < warmup_steps else rate


def start_rate(config: Config, global_batch: int) -> float:
    """base_lr, with `scale_lr` in proportion to the global batch (arXiv 1706.02677, section 2.1)."""
    return config.base_lr * (global_batch / config.batch_size if config.scale_lr else 1)


def _share(config: Config, step: int, epoch_steps: int) -> float:
    """What the schedule leaves of the start rate, 0..1.

    Cosine annealing without restarts: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5; by epoch it is
    constant in an epoch as in the original FCN8s project. poly: Chen et al., "DeepLab", arXiv 1606.00915,
    section 4.1.1.
    """
    epoch = step // epoch_steps
    done = step / (config.train_epochs * epoch_steps)
    if config.lr_schedule == "cosine_epoch":
        return (1 + cos(pi * epoch / config.train_epochs)) / 2
    if config.lr_schedule == "cosine":
        return (1 + cos(pi * done)) / 2
    if config.lr_schedule == "poly":
        return float((1 - done) ** config.lr_power)
    return float(config.lr_gamma ** sum(epoch >= after for after in config.lr_steps))
