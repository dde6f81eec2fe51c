"""Preflight: what the hosts report against what the cluster file says."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict

import pytest

from launcher.cluster import Cluster, cluster_from, load_cluster
from launcher.errors import ExitCode, PreflightError
from launcher.plan import HostFacts
from launcher.preflight import compare, require_ready

CLUSTER = load_cluster("8xascend910.yaml")
GOOD = HostFacts(
    hostname="node1",
    device_ips={device.id: str(device.ip) for device in CLUSTER.hosts[0].devices},
    devices=tuple(range(8)),
)


def findings(cluster: Cluster, **facts: HostFacts) -> str:
    return "\n".join(map(str, compare(cluster, facts)))


def test_a_host_as_the_file_says_has_no_findings() -> None:
    assert compare(CLUSTER, {"node1": GOOD}) == []
    require_ready(CLUSTER, {"node1": GOOD})


def test_an_address_that_differs_is_told_with_both_values() -> None:
    told = findings(CLUSTER, node1=replace(GOOD, device_ips={**GOOD.device_ips, 3: "192.9.9.9"}))
    assert told.startswith(
        f"node1 device 3: has the address 192.9.9.9, but {CLUSTER.source} says 192.4.27.6; "
    )
    assert "correct the file" in told and "\n" not in told


def test_whom_a_finding_is_held_against_is_known() -> None:
    with pytest.raises(PreflightError) as caught:
        require_ready(CLUSTER, {"node1": replace(GOOD, devices=(0, 1, 2, 3, 4, 5, 6))})
    assert (caught.value.host, caught.value.device) == ("node1", 7)


def test_an_absent_device_is_told_with_those_that_are_there() -> None:
    told = findings(CLUSTER, node1=replace(GOOD, devices=(0, 1, 2, 3, 4, 5, 6)))
    assert told.startswith("node1 device 7: is not there (no /dev/davinci7; there are: 0, 1, 2, 3, 4, 5, 6)")
    assert f"correct the devices of node1 in {CLUSTER.source}" in told


def test_a_machine_without_ascend_devices_is_told_once() -> None:
    told = findings(CLUSTER, node1=HostFacts(hostname="laptop", devices=()))
    assert told.startswith("node1: has no Ascend devices") and "\n" not in told
    assert "device_kind cpu" in told


def test_a_tool_that_answers_without_device_nodes_counts_as_devices() -> None:
    told = findings(CLUSTER, node1=replace(GOOD, devices=()))
    assert told.count("\n") == 7 and "no /dev/davinci0; there are: none" in told


def test_what_was_not_reported_is_not_held_against_a_host() -> None:
    assert compare(CLUSTER, {}) == []
    assert compare(CLUSTER, {"node1": HostFacts()}) == []


def test_a_cpu_cluster_needs_no_devices() -> None:
    cpu = load_cluster("2xcpu.yaml")
    assert compare(cpu, {"localhost": HostFacts(hostname="laptop", devices=())}) == []


def test_equal_host_names_are_told_where_mindspore_counts_by_them() -> None:
    two = load_cluster("2x8xascend910.yaml")
    facts: Dict[str, HostFacts] = {name: HostFacts(hostname="vm") for name in ("node1", "node2")}
    told = findings(two, **facts)
    assert told.startswith("node2: calls itself 'vm', as node1 does; give each host a name of its own")
    store = cluster_from({**two.to_dict(), "device_kind": "cpu", "rendezvous": "store", "hosts": [
        {"name": host.name, "address": host.address, "prefix": ["ssh"], "devices": 1} for host in two.hosts
    ]}, "test.yaml")  # fmt: skip
    assert compare(store, facts) == []


def test_all_findings_come_at_once_with_exit_code_3() -> None:
    bad = replace(GOOD, devices=(0, 1, 2, 3, 4, 5, 6), device_ips={**GOOD.device_ips, 0: "192.9.9.9"})
    with pytest.raises(PreflightError) as caught:
        require_ready(CLUSTER, {"node1": bad})
    assert caught.value.exit_code == ExitCode.PREFLIGHT
    assert "node1 device 7" in str(caught.value) and "node1 device 0" in str(caught.value)
