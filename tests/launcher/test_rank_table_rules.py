"""Each rule of a rank table: a good table with one value changed is refused with the field and the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import BASES, KINDS, REMOVED, changed, servers, where

from launcher.chips import CHIPS
from launcher.rank_table_rules import check
from launcher.yaml_lines import name_of

D, S = "server_list[1].device[0]", "server_list[1]"
LAST = "server_list[1].device[1]"
R, L = "rank_list[1]", "rank_list[1].level_list[0]"
G = "group_list[0].instance_list[1]"

APART = [
    {"super_pod_id": pod, "server_list": [{"server_id": name} for name in names]}
    for pod, names in (("0", ("node_0", "node_2")), ("1", ("node_1", "node_3")))
]

# base, what is changed, its new value, words of the problem, and the field named where it is another one
BROKEN = [
    ("1.0", "version", "3.0", "'3.0' is not supported"),
    ("1.0", "version", REMOVED, "is missing; expected a string"),
    ("1.0", "version", 1.0, 'is a number; expected "1.0"; put it in quotes'),
    ("1.0", "version", "1.2", "'1.2' is not that of Ascend 910; expected 1.0"),
    ("1.0", "status", "initializing", "the table is not finished; expected 'completed'"),
    ("1.0", "status", REMOVED, "is missing"),
    ("1.0", "server_count", "3", "'3'; expected '2', the length of server_list"),
    ("1.0", "server_count", 2, 'is a number; expected "2"'),
    ("1.0", "server_count", REMOVED, "is missing"),
    ("1.0", "server_list", [], "is empty; expected a list of objects, not empty"),
    ("1.0", "server_list", REMOVED, "is missing"),
    ("1.0", "server_list", {"a": 1}, "is an object; expected a list of objects"),
    ("1.0", S, "node2", "is a text; expected an object"),
    ("1.0", f"{S}.server_id", "10.0.0.1", "10.0.0.1 is also at server_list[0].server_id"),
    ("1.0", f"{S}.server_id", "", "0 characters; expected 1 to 64"),
    ("1.0", f"{S}.server_id", "x" * 65, "65 characters"),
    ("1.0", f"{S}.server_id", 7, "is a number"),
    ("1.0", f"{S}.server_id", REMOVED, "is missing"),
    ("1.0", f"{S}.pod_ip", "node2", "'node2' is not an IP address"),
    ("1.0", f"{S}.host_ip", "172.16.0.256", "'172.16.0.256' is not an IP address"),
    ("1.0", f"{S}.host_ip", "fd00::1", "fd00::1 is IPv6; expected an IPv4 address"),
    ("1.0", f"{S}.device", [], "is empty"),
    ("1.0", f"{D}.device_id", 0, 'expected "0"; put it in quotes'),
    ("1.0", f"{D}.device_id", "1", "1 is also at server_list[1].device[0].device_id", f"{LAST}.device_id"),
    ("1.0", f"{D}.device_id", "-1", "'-1'; expected a device id in digits"),
    ("1.0", f"{D}.device_id", "8", "8; expected 0 to 7; write the physical id"),
    ("1.0", f"{D}.device_id", "4", "devices [1, 4] are of two rings", f"{S}.device"),
    ("1.0", LAST, REMOVED, "1 device, but server_list[0] has 2", f"{S}.device"),
    ("1.0", f"{D}.device_ip", REMOVED, "is missing"),
    ("1.0", f"{D}.device_ip", "", "is empty; expected an IP address, which the devices need"),
    ("1.0", f"{D}.device_ip", "192.1.27.6", "is also at server_list[0].device[0].device_ip"),
    ("1.0", f"{D}.device_ip", "192.1.*.6", "'192.1.*.6' is not an IP address"),
    ("1.0", f"{D}.device_ip", "10.1.0.7,10.1.0.8", "2 addresses; expected as many for every device, 1"),
    ("1.0", f"{D}.device_ip", "10.1.0.7,10.1.0.256", "'10.1.0.256' is not"),
    ("1.0", f"{D}.device_ip", "fd00::1", "IPv6, others are not; expected one family"),
    ("1.0", f"{D}.device_port", "0", "0; expected a port from 1024 to 65535"),
    ("1.0", f"{D}.device_port", "80", "80; expected a port from 1024"),
    ("1.0", f"{D}.device_port", 16666, 'is a number; expected "16666"'),
    ("1.0", f"{D}.host_port", "65536", "65536; expected a port"),
    ("1.0", f"{D}.rank_id", 2, 'expected "2"; put it in quotes'),
    ("1.0", f"{D}.rank_id", "two", "'two'; expected a rank id in digits"),
    ("1.0", f"{D}.rank_id", "²", "expected a rank id in digits"),
    ("1.0", f"{D}.rank_id", REMOVED, "is missing"),
    ("1.0", f"{D}.rank_id", "1", "1 occurs 2 times; expected each rank once", "rank_id"),
    ("1.0", f"{D}.rank_id", "4", "2 missing; expected every rank from 0 to 3", "rank_id"),
    ("1.2", "version", "2.1", "'2.1' is not supported"),
    ("1.2", "server_count", "5", "'5'; expected '4'"),
    ("1.2", "server_list[0].device[0].device_id", "16", "16; expected 0 to 15"),
    ("1.2", f"{D}.super_device_id", 3, "is a number"),
    ("1.2", f"{D}.super_device_id", "1", "1 is also at server_list[0].device[1].super_device_id"),
    ("1.2", f"{D}.super_device_id", REMOVED, "is missing; expected the SDID of `npu-smi info -t spod-info"),
    ("1.2", f"{D}.super_device_id", "", "''; expected the SDID of"),
    ("1.2", f"{D}.super_device_id", "0x3000000", "in digits"),
    ("1.2", f"{D}.super_device_id", "4294967295", "4294967295 stands for none"),
    ("1.2", f"{D}.backup_device_ip", "192.168.1", "'192.168.1' is not an IP address"),
    ("1.2", f"{D}.backup_device_port", "0", "0; expected a port"),
    ("1.2", "super_pod_list", [], "is empty"),
    ("1.2", "super_pod_list[0]", 7, "is a number; expected an object"),
    ("1.2", "super_pod_list[1].super_pod_id", "0", "0 is also at super_pod_list[0].super_pod_id"),
    ("1.2", "super_pod_list[1].super_pod_id", "", "is empty; expected a name"),
    ("1.2", "super_pod_list[1].super_pod_id", 1, 'expected "1"; put it in quotes'),
    ("1.2", "super_pod_list[1].server_list[0].server_id", "node_9", "'node_9' is not in server_list"),
    ("1.2", "super_pod_list[1].server_list[1]", REMOVED, "node_3 in no super pod", "super_pod_list"),
    ("1.2", "super_pod_list", APART, "servers of one super pod are apart", "server_list"),
    ("2.0", "version", "1.0", "'1.0' is not that of Ascend 950; expected 2.0"),
    ("2.0", "version", 2.0, "is a number"),
    ("2.0", "status", "initializing", "not finished"),
    ("2.0", "rank_count", "4", "'4' is a text; expected a whole number from 1 to 65536; write it without"),
    ("2.0", "rank_count", 5, "5; expected 4, the length of rank_list"),
    ("2.0", "rank_count", 0, "0; expected a whole number from 1"),
    ("2.0", "rank_list", REMOVED, "is missing; expected a list of objects"),
    ("2.0", f"{R}.rank_id", "1", "write it without quotes"),
    ("2.0", f"{R}.rank_id", True, "True is a boolean"),
    ("2.0", f"{R}.rank_id", 0, "0 occurs 2 times", "rank_id"),
    ("2.0", f"{R}.rank_id", 7, "1 missing; expected every rank from 0 to 3", "rank_id"),
    ("2.0", f"{R}.device_id", 65, "65; expected a whole number from 0 to 64"),
    ("2.0", f"{R}.local_id", 0, "0 occurs twice in server0"),
    ("2.0", f"{R}.local_id", REMOVED, "is missing"),
    ("2.0", f"{R}.device_id", 0, "0 occurs twice in server0; expected every device of a server once"),
    ("2.0", f"{R}.device_port", 0, "0; expected a whole number from 1 to 65535"),
    ("2.0", f"{R}.level_list", [], "is empty"),
    ("2.0", f"{L}.net_layer", 1, "1; expected layers from 0 on, ascending"),
    ("2.0", f"{L}.net_layer", 8, "8; expected a whole number from 0 to 7"),
    ("2.0", f"{L}.net_instance_id", "", "0 characters; expected 1 to 1024"),
    ("2.0", f"{L}.net_type", "MESH", "'MESH'; expected TOPO_FILE_DESC or CLOS"),
    (
        "2.0",
        f"{L}.rank_addr_list",
        25 * [{"addr_type": "EID", "addr": "1"}],
        "25 addresses; expected at most",
    ),
    ("2.0", f"{L}.rank_addr_list[0].addr_type", "MAC", "'MAC'; expected EID, IPV4, IPV6"),
    ("2.0", f"{L}.rank_addr_list[0].addr", "", "0 characters; expected 1 to 256"),
    ("2.0", f"{R}.level_list[1].rank_addr_list[0].addr", "fd00::1", "'fd00::1' is not an IPv4 address"),
    ("2.0", f"{L}.rank_addr_list[0].ports", "0/4", "expected a list of texts"),
    ("2.0", f"{L}.rank_addr_list[0].ports", 17 * ["0/4"], "17 ports; expected at most 16"),
    ("old", "status", REMOVED, "is missing"),
    ("old", "group_count", 1, 'expected "1"; put it in quotes'),
    ("old", "group_list[0].device_count", "5", "'5'; expected '4', the number of its devices"),
    ("old", "group_list[0].instance_count", "1", "'1'; expected '2', the number of instance_list"),
    ("old", f"{G}.devices[0].device_id", "1", "is also at", f"{G}.devices[1].device_id"),
    (
        "old",
        f"{G}.devices[0].device_ip",
        "192.1.27.6",
        "is also at group_list[0].instance_list[0].devices[0]",
    ),
    ("old", f"{G}.devices[0].device_ip", "", "is empty; expected an IP address, which the devices need"),
    ("old", f"{G}.devices[0].device_ip", "fd00::1", "IPv6, others are not; expected one family"),
    ("old", f"{G}.devices[0].device_id", "12", "12; expected 0 to 7; write the physical id"),
    ("old", f"{G}.devices[0].device_id", "4", "devices [1, 4] are of two rings", f"{G}.devices"),
    ("old", f"{G}.devices[1]", REMOVED, "1 device, but servers[0] has 2", f"{G}.devices"),
    ("old", f"{G}.devices", [], "is empty"),
    ("old", f"{G}.server_id", "", "0 characters; expected 1 to 64"),
    ("old", f"{G}.server_id", 2, "is a number"),
]


@pytest.mark.parametrize("base", BASES)
def test_good_tables_have_no_problems(base: str) -> None:
    assert check(BASES[base]()) == []
    assert check(BASES[base](), CHIPS[KINDS[base]]) == []


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case[0]} {case[1]} {str(case[2])[:20]}")
def test_broken_tables_are_refused_with_field_and_reason(case: tuple) -> None:
    base, path, value, words, *named = case
    problems = check(changed(base, path, value), CHIPS[KINDS[base]])
    told = [
        f"{p.what}; expected {p.expected}; {p.remedy}" for p in problems if p.where == where(*named or [path])
    ]
    assert any(words in text for text in told), problems
    assert all(problem.remedy for problem in problems)


def test_the_fewest_devices_and_addresses_that_a_chip_demands() -> None:
    table = changed("1.0", "server_list[1]", REMOVED)
    table["server_count"] = "1"
    for device in table["server_list"][0]["device"]:
        device["device_ip"] = ""
    assert check(table) == check(table, CHIPS["ascend910b"]) == []
    assert {name_of(p.where) for p in check(table, CHIPS["ascend910"])} == {
        "server_list[0].device[0].device_ip",
        "server_list[0].device[1].device_ip",
    }
    del table["server_list"][0]["device"][1]["device_ip"]
    assert [p.what for p in check(table, CHIPS["ascend910"])] == ["is empty", "is missing"]


@pytest.mark.parametrize("kind, count", [("ascend910", 4), ("ascend910b", 4), ("ascend910_93", 0), (None, 0)])
@pytest.mark.parametrize("ip", ["", REMOVED])
def test_a_host_ip_stands_in_for_device_ips_on_910_93_only(ip: Any, kind: Any, count: int) -> None:
    table = servers()
    for number, server in enumerate(table["server_list"]):
        server["host_ip"] = f"172.16.0.{number}"
        for device in server["device"]:
            device["device_ip"] = ip
            if ip is REMOVED:
                del device["device_ip"]
    problems = check(table, CHIPS.get(kind))
    assert len(problems) == count and all(p.where[-1] == "device_ip" for p in problems)


def test_within_a_super_pod_no_address_is_needed() -> None:
    table = changed("1.2", "super_pod_list[1]", REMOVED)
    table["server_list"], table["server_count"] = table["server_list"][:2], "2"
    for server in table["server_list"]:
        for device in server["device"]:
            del device["device_ip"]
    assert check(table, CHIPS["ascend910_93"]) == []
    table["version"] = "1.0"
    del table["server_list"][0]["host_ip"]
    assert "is missing" in [p.what for p in check(table, CHIPS["ascend910_93"])]


def test_without_super_pods_no_super_device_is_needed() -> None:
    table = changed("1.2", "super_pod_list", REMOVED)  # Ascend 910_93 as separate servers
    for server in table["server_list"]:
        for device in server["device"]:
            del device["super_device_id"]
    assert check(table, CHIPS["ascend910_93"]) == []
    table["version"] = "1.0"
    table["server_list"][0]["device"][0]["super_device_id"] = ""  # not read in this version
    assert check(table, CHIPS["ascend910_93"]) == []


def test_a_layer_may_have_a_topology_of_its_own_or_no_addresses() -> None:
    for path, value in (("net_type", "TOPO_FILE_DESC"), ("rank_addr_list", [])):
        assert check(changed("2.0", f"{R}.level_list[1].{path}", value), CHIPS["ascend950"]) == []


def test_ranks_that_alternate_between_servers_are_refused() -> None:
    table = changed("1.0", "server_list[0].device[1].rank_id", "2")
    table["server_list"][1]["device"][0]["rank_id"] = "1"
    (problem,) = check(table)
    assert (name_of(problem.where), problem.what) == (
        "server_list[0]",
        "rank 2 comes after ranks of another server",
    )
    assert (
        check(
            changed(
                "1.0",
                "server_list[0].device",
                [
                    {"device_id": "0", "device_ip": "10.1.0.1", "rank_id": "1"},
                    {"device_id": "1", "device_ip": "10.1.0.2", "rank_id": "0"},
                ],
            )
        )
        == []
    )


def test_other_files_are_told_from_rank_tables() -> None:
    for values, words in (
        ([], "is not a JSON object"),
        ({"RankTable": BASES["1.2"]()}, "inside `RankTable`, as GE's CLUSTER_CONFIG has it"),
        ({"version": "2.0", "peer_list": [], "edge_list": []}, "topology file of an Ascend 950 server"),
    ):
        (problem,) = check(values)
        assert words in problem.what
    (problem,) = check(BASES["old"](), CHIPS["ascend910b"])
    assert "for Ascend 910 alone" in problem.what
    (problem,) = check(changed("old", f"{G}.devices[0].device_ip", ""))  # also where no kind is named
    assert problem.what == "is empty"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted({case[:2] for case in BROKEN})), PLAIN, st.sampled_from([None, *CHIPS.values()])
)
def test_any_value_anywhere_is_judged_without_a_crash(place: tuple, value: Any, chip: Any) -> None:
    base, path = place
    for problem in check(changed(base, path, value), chip):
        assert problem.what and problem.expected and problem.remedy
