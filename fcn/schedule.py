"""Learning rates. Pure."""

from __future__ import annotations

from math import cos, pi


def cosine_by_epoch(base_lr: float, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch (counted from 0): base_lr * (1 + cos(pi * epoch / epochs)) / 2.

    Cosine annealing without restarts (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5),
    constant in an epoch as in the original FCN8s project.
    """
    return base_lr * (1 + cos(pi * epoch / epochs)) / 2
