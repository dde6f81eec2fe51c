"""Checkpoints of a few arrays, in whose every value their step stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcn import checkpoint


def arrays(step, values=12, prefix=""):
    """Two of them, `values` float32 values together."""
    sizes = {"conv1.0.weight": (values // 2,), "conv1.1.gamma": (2, values // 4)}
    return {prefix + name: np.full(shape, step, np.float32) for name, shape in sizes.items()}


def save(folder: Path, step: int, keep: int = 10, values: int = 12, **manifest) -> Path:
    """As a training saves: with its state, and what is superfluous deleted afterwards."""
    manifest = {"step": step, "epoch": 1, "architecture": {"model": "FCN8s"}, **manifest}
    weights, state = arrays(step, values), arrays(step, values, "moments.")
    path = checkpoint.save(folder, f"FCN8s-1_{step}", weights, state, manifest)
    checkpoint.retire(path, keep)
    return path
