from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.data.order import global_order, positions, steps_per_epoch


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 500))
def test_an_epoch_holds_every_sample_once(samples, seed, epoch):
    order = global_order(samples, seed, epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, global_order(samples, seed, epoch))


def test_epochs_and_seeds_differ():
    orders = {tuple(global_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(st.integers(1, 6), st.integers(1, 5))
def test_a_global_batch_is_the_same_samples_at_every_world_size(world, local):
    global_batch = world * local
    for step in range(3):
        parts = [positions(step, global_batch, rank, world) for rank in range(world)]
        assert all(len(part) == local for part in parts)
        whole = [position for part in parts for position in part]
        assert whole == list(positions(step, global_batch, rank=0, world=1))
        assert whole == list(range(step * global_batch, (step + 1) * global_batch))


def test_only_whole_global_batches_count():
    assert steps_per_epoch(100, 32) == 3
    assert steps_per_epoch(31, 32) == 0


def test_positions_count_on_through_the_epoch():
    assert list(positions(2, global_batch=6, rank=1, world=2)) == [15, 16, 17]


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="10 does not divide over 4 ranks"):
        positions(0, global_batch=10, rank=0, world=4)
