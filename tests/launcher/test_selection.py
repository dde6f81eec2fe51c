"""Which devices an attempt uses: spares, what is excluded, and with how few a run goes on."""

from __future__ import annotations

from typing import Any, List, Tuple

import pytest
from cluster_files import cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.chips import CHIPS, choose, subset_problems
from launcher.cluster_types import Cluster
from launcher.selection import Place, Shortage, difference, select

Used = List[Tuple[str, List[int]]]


def ips(server: int, count: int = 8) -> Any:
    return {i: f"192.168.{server}.{i + 1}" for i in range(count)}


def used(made: Cluster, *excluded: Place, global_batch: Any = None) -> Used:
    chosen = select(made, excluded, global_batch)
    assert (chosen.spares, chosen.min_devices) == (0, None)
    return [(host.name, [device.id for device in host.devices]) for host in chosen.hosts]


def test_everything_is_used_without_spares():
    assert used(cluster("cpu", 2, 2)) == [("node1", [0, 1]), ("node2", [0, 1])]


def test_the_last_devices_are_in_reserve_and_step_in():
    made = cluster("cpu", 3, spares=1)
    assert made.world_size == 2
    assert used(made) == [("node1", [0, 1])]
    assert used(made, Place("node1", 0)) == [("node1", [1, 2])]


def test_a_spare_host_stands_in_the_place_of_the_one_that_is_gone():
    made = cluster("cpu", 2, 2, 2, spares=2)
    assert used(made, Place("node1")) == [("node3", [0, 1]), ("node2", [0, 1])]
    assert used(made, Place("node2")) == [("node1", [0, 1]), ("node3", [0, 1])]


def test_a_spare_server_is_used_as_a_whole_where_all_must_bring_the_same_number():
    made = cluster("ascend910", ips(1), ips(2), ips(3), spares=8)
    assert used(made, Place("node2", 5)) == [("node1", list(range(8))), ("node3", list(range(8)))]


def test_a_ring_replaces_a_ring():
    made = cluster("ascend910", 8, spares=4)
    assert used(made) == [("node1", [0, 1, 2, 3])]
    assert used(made, Place("node1", 2)) == [("node1", [4, 5, 6, 7])]


def test_without_a_spare_it_goes_on_with_fewer_as_the_chip_and_the_batch_allow():
    made = cluster("ascend910", 8, min_devices=2)
    assert used(made, Place("node1", 1)) == [("node1", [4, 5, 6, 7])]
    assert used(made, Place("node1", 1), Place("node1", 6)) == [("node1", [0, 2])]
    made = cluster("ascend910b", 8, min_devices=3)
    assert used(made, Place("node1", 1)) == [("node1", [0, 2, 3, 4, 5, 6, 7])]
    assert used(made, Place("node1", 1), global_batch=32) == [("node1", [0, 2, 3, 4])]


def test_too_few_are_told_with_what_is_needed():
    lone = (
        "^1 of 2 devices is left, and the job needs at least 2: repair it, or .* `spares` or `min_devices`$"
    )
    with pytest.raises(Shortage, match=lone):
        select(cluster("cpu", 2), [Place("node1", 1)])
    with pytest.raises(
        Shortage, match="^0 of 1 devices are left, .* at least 1: .* give test.yaml `spares`$"
    ):
        select(cluster("cpu", 1), [Place("node1")])
    with pytest.raises(
        Shortage, match=r"7 of 8 devices.*at least 5, a number that Ascend 910 allows:.*lower"
    ):
        select(cluster("ascend910", 8, min_devices=5), [Place("node1", 1)])
    with pytest.raises(Shortage, match=r"at least 3, one that divides the global batch of 8:"):
        select(cluster("cpu", 4, min_devices=3), [Place("node1", 1)], global_batch=8)


def test_what_changes_is_told():
    made = cluster("cpu", 2, 2, spares=1, min_devices=2)
    first = select(made)
    assert difference(first, first) == ""
    assert difference(first, select(made, [Place("node1", 1)])) == "device 1 of node2 takes over"
    assert difference(first, select(made, [Place("node1")])) == (
        "device 1 of node2 takes over, 2 devices go on in place of 3"
    )


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(CHIPS)),
    st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=5),
    st.integers(1, 40),
)
def test_what_is_chosen_is_what_the_chip_allows(kind: str, servers: List[set], count: int):
    chip, ids = CHIPS[kind], [sorted(server) for server in servers]
    chosen = choose(chip, ids, count)
    if chosen is None:
        assert chip.equal_servers or sum(map(len, ids)) < count
        return
    assert sum(map(len, chosen)) == count
    assert all(set(part) <= server for part, server in zip(chosen, servers))
    assert list(subset_problems(chip, [part or None for part in chosen])) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=3), st.sampled_from([1, 2, 4, 8]), st.data())
def test_what_can_be_chosen_is_found(servers: List[set], each: int, data: Any):
    """A legal choice is planted: the same on each server, whole, a half, a pair or a single device."""
    group = {8: st.just(range(8)), 4: st.sampled_from([range(4), range(4, 8)]), 2: st.just((5, 7))}
    planted = [server | set(data.draw(group.get(each, st.just((3,))))) for server in servers]
    assert choose(CHIPS["ascend910"], [sorted(server) for server in planted], each * len(planted)) is not None
