"""Which sample stands where: pure functions of (seed, epoch, position), the same at every world size.

An epoch visits every sample once in a drawn order; what does not fill a last global batch is left out of
that epoch. Global batch k of an epoch is positions k * global_batch up to (k + 1) * global_batch, and rank
r takes the r-th of its world_size equal slices.
"""

from __future__ import annotations

import numpy as np

# A fourth word keeps the order's random stream apart from those of augment.draw, which have three.
_ORDER_STREAM = 1


def global_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    """Sample ids of an epoch by position: int64 (samples,), a permutation of 0..samples-1."""
    return np.random.default_rng([seed, epoch, 0, _ORDER_STREAM]).permutation(samples)


def steps_per_epoch(samples: int, global_batch: int) -> int:
    """Whole global batches in an epoch."""
    return samples // global_batch


def positions(step: int, global_batch: int, rank: int, world: int) -> range:
    """Positions in the epoch that `rank` reads for the epoch's global batch `step`."""
    if global_batch % world:
        raise ValueError(f"a global batch of {global_batch} does not divide over {world} ranks")
    batch = global_batch // world
    first = step * global_batch + rank * batch
    return range(first, first + batch)
