"""What the doctor makes of the facts of hosts. `test_doctor_hosts.py` asks hosts for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

import pytest

from launcher.cluster import cluster_from, load_cluster
from launcher.cluster_types import Cluster
from launcher.doctor import CHECKS, judge, require_ready
from launcher.doctor.check import Finding, View, merged
from launcher.doctor.links import ring
from launcher.errors import ExitCode, PreflightError

ONE = load_cluster("8xascend910.yaml")
TWO = load_cluster("2x8xascend910.yaml")
GOOD: Dict[str, Any] = {
    "hostname": "node1",
    "device_ips": {str(device.id): device.ip for device in ONE.hosts[0].devices},
    "devices": list(range(8)),
}


def findings(cluster: Cluster, **facts: Dict[str, Any]) -> List[Finding]:
    return judge(View(cluster, facts))


def told(cluster: Cluster, **facts: Dict[str, Any]) -> str:
    return "\n".join(map(str, findings(cluster, **facts)))


def npu(device: int, **values: Any) -> Dict[str, Any]:
    well = {"card": device, "chip": 0, "logic": device, "name": "910A", "health": "OK", "codes": []}
    return {"id": device, **well, "hbm_used_mb": 2000, "hbm_mb": 32768, **values}


def npus(*changed: Dict[str, Any], processes: Any = ()) -> Dict[str, Any]:
    by_id = {state["id"]: state for state in changed}
    return {
        "version": "24",
        "devices": [by_id.get(i, npu(i)) for i in range(8)],
        "processes": list(processes),
    }


def test_a_host_as_the_file_says_has_no_findings() -> None:
    assert findings(ONE, node1={**GOOD, "npus": npus()}) == []
    assert require_ready(ONE, {"node1": GOOD}) == []


def test_an_address_that_differs_is_told_with_both_values() -> None:
    text = told(ONE, node1={**GOOD, "device_ips": {**GOOD["device_ips"], "3": "192.9.9.9"}})
    assert text.startswith(f"node1 device 3: has the address 192.9.9.9, but {ONE.source} says 192.4.27.6; ")
    assert "correct the file" in text and "\n" not in text


def test_an_absent_device_is_told_with_those_that_are_there() -> None:
    text = told(ONE, node1={**GOOD, "devices": [0, 1, 2, 3, 4, 5, 6]})
    assert text.startswith("node1 device 7: is not there (no /dev/davinci7; there are: 0, 1, 2, 3, 4, 5, 6)")
    assert f"correct the devices of node1 in {ONE.source}" in text


def test_a_machine_without_ascend_devices_is_told_once() -> None:
    text = told(ONE, node1={"hostname": "laptop", "devices": [], "device_ips": {}})
    assert text.startswith("node1: has no Ascend devices") and "\n" not in text
    assert "device_kind cpu" in text


def test_a_tool_that_answers_without_device_nodes_counts_as_devices() -> None:
    text = told(ONE, node1={**GOOD, "devices": []})
    assert text.count("\n") == 7 and "no /dev/davinci0; there are: none" in text


def test_what_was_not_reported_is_not_held_against_a_host() -> None:
    assert findings(ONE) == []
    assert findings(ONE, node1={}) == []


def test_a_cpu_cluster_needs_no_devices() -> None:
    assert findings(load_cluster("2xcpu.yaml"), localhost={"hostname": "laptop", "devices": []}) == []


def test_all_fatal_findings_come_at_once_with_exit_code_3_and_the_first_culprit() -> None:
    bad = {**GOOD, "devices": [0, 1, 2, 3, 4, 5, 6], "device_ips": {**GOOD["device_ips"], "0": "192.9.9.9"}}
    with pytest.raises(PreflightError) as caught:
        require_ready(ONE, {"node1": bad})
    assert caught.value.exit_code == ExitCode.PREFLIGHT
    assert (caught.value.host, caught.value.device) == ("node1", 7)
    assert "node1 device 7" in str(caught.value) and "node1 device 0" in str(caught.value)


def test_warnings_do_not_keep_a_training_from_starting() -> None:
    hello = {
        **GOOD,
        "examined": {"npus": npus(npu(2, health="Warning", codes=["A1"]))},
        "unknown": {"links": "no"},
    }
    warnings = require_ready(ONE, {"node1": hello})
    assert [warning.culprit for warning in warnings] == ["node1 device 2", "node1"]


def test_equal_host_names_are_told_where_mindspore_counts_by_them() -> None:
    facts = {name: {"hostname": "vm"} for name in ("node1", "node2")}
    text = told(TWO, **facts)
    assert text.startswith("node2: calls itself 'vm', as node1 does;") and "a name of its own" in text
    store = cluster_from({**TWO.to_dict(), "device_kind": "cpu", "rendezvous": "store", "hosts": [
        {"name": host.name, "address": host.address, "prefix": ["ssh"], "devices": 1} for host in TWO.hosts
    ]}, "test.yaml")  # fmt: skip
    assert findings(store, **facts) == []


@pytest.mark.parametrize(
    ("state", "text", "fatal"),
    [
        ({"health": "Alarm", "codes": ["80E0", "80E1"]}, "npu-smi says Alarm (error code 80E0 80E1)", True),
        ({"health": "Critical"}, "npu-smi says Critical", True),
        ({"health": "UNKNOWN"}, "npu-smi says UNKNOWN", True),
        ({"health": "Warning"}, "npu-smi says Warning", False),
        ({"hbm_used_mb": 30000}, "30.0 GB of 32.8 GB are held by no process", False),
    ],
)
def test_how_a_device_is(state: Dict[str, Any], text: str, fatal: bool) -> None:
    (found,) = findings(ONE, node1={**GOOD, "npus": npus(npu(3, **state))})
    assert (found.culprit, found.fatal) == ("node1 device 3", fatal) and found.what.startswith(text)


def test_another_kind_than_the_file_says() -> None:
    others = npus(*(npu(i, name="910B3") for i in range(8)))
    (found,) = findings(ONE, node1={**GOOD, "npus": others})
    assert "of kind ascend910b" in found.what and "device_kind: ascend910b" in found.remedy
    unnamed = npus(*(npu(i, name="xxx") for i in range(8)))
    assert findings(ONE, node1={**GOOD, "npus": unnamed}) == []


@pytest.mark.parametrize(("owner", "fatal"), [("ann", True), (None, False)])
def test_who_uses_a_device_is_named(owner: Any, fatal: bool) -> None:
    process = {"device": 5, "pid": 77, "name": "python", "memory_mb": 30780, "owner": owner}
    (found,) = findings(ONE, node1={**GOOD, "npus": npus(processes=[process])})
    assert (found.culprit, found.fatal) == ("node1 device 5", fatal)
    assert "30780 MB of it are in use by process 77 (python)" in found.what
    assert not fatal or "of user ann" in found.what


def links(**changed: Dict[str, Any]) -> Dict[str, Any]:
    well = {"link": True, "net_health": "Success", "tls": False}
    return {str(i): {**well, **changed.get(f"d{i}", {})} for i in range(8)}


def test_cards_are_judged_as_the_chip_needs_them() -> None:
    broken = links(
        d1={"link": False}, d2={"net_health": "Fault"}, d3={"net_health": "Init"}, d4={"tls": True}
    )
    found = findings(ONE, node1={**GOOD, "links": broken})
    assert [(f.device, f.fatal) for f in found] == [(1, True), (2, True), (4, True), (3, False)]
    assert "TLS is on on its network card, and off on most others" in found[2].what
    alone = load_cluster("8xascend910b.yaml")  # on one server its devices talk through HCCS
    found = findings(alone, node1={"links": links(d1={"link": False})})
    assert [(f.device, f.fatal) for f in found] == [(1, False)]


def hosts(count: int) -> Cluster:
    text = TWO.to_dict()
    text["hosts"] = [
        {
            "name": f"h{n}",
            "address": f"10.0.0.{n}",
            "prefix": ["ssh", f"h{n}"],
            "devices": {i: f"192.{i}.27.{n}" for i in range(8)},
        }
        for n in range(1, count + 1)
    ]
    return cluster_from(text, "test.yaml")


def pings(cluster: Cluster, *lost: tuple) -> Dict[str, Any]:
    """All pings of the ring answered but those from or to `lost`; a pair is a way that is lost."""
    facts: Dict[str, Any] = {h.name: {"pings": {}} for h in cluster.hosts}
    for source, target in ring(cluster).items():
        facts[source[0]]["pings"][str(source[1])] = not {source, target, (source, target)} & set(lost)
    return facts


def test_every_device_is_pinged_once_by_that_of_the_same_place_of_another_server() -> None:
    peers = ring(hosts(3))
    assert (
        sorted(peers.values()) == sorted(peers) == sorted((f"h{n}", i) for n in (1, 2, 3) for i in range(8))
    )
    assert all(source[1] == target[1] and source[0] != target[0] for source, target in peers.items())
    assert ring(ONE) == {}


def test_a_device_that_neither_reaches_nor_is_reached_is_the_culprit() -> None:
    cluster = hosts(4)
    assert findings(cluster, **pings(cluster)) == []
    (found,) = findings(cluster, **pings(cluster, ("h2", 5)))
    assert found.culprit == "h2 device 5"
    assert "it and device 5 of h1 and device 5 of h3 do not reach each other" in found.what
    (found,) = findings(cluster, **pings(cluster, (("h2", 5), ("h3", 5))))
    assert (
        found.culprit == "h3 device 5" and "does not answer device 5 of h2, which may as well" in found.what
    )


def test_between_two_servers_both_ends_are_told() -> None:
    cluster = hosts(2)
    assert [f.culprit for f in findings(cluster, **pings(cluster, ("h1", 0)))] == [
        "h1 device 0",
        "h2 device 0",
    ]


VERSIONS = {"python": "3.11.7", "mindspore": "2.10.0", "driver": "24.1.rc1", "cann": "8.0.0"}
VERSIONS_INNER = {
    **VERSIONS,
    **{"driver_inner": "V100R001C15SPC006B220", "driver_fits": ["V100R001C17"]},
    **{"cann_inner": "V100R001C17SPC001", "cann_fits": ["V100R001C15"]},
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cann": "7.0"}, "h2: CANN 7.0, on most hosts 8.0.0"),
        ({"driver": None}, "h2: driver is not found, on most hosts 24.1.rc1"),
        ({"mindspore": "2.10.1"}, "h2: MindSpore 2.10.1, on most hosts 2.10.0"),
        ({"python": "3.10.1"}, "h2: Python 3.10.1, on most hosts 3.11.7"),
        ({"driver_fits": [], "cann_fits": ["V100R001C18"]}, "h2: CANN 8.0.0 (V100R001C17) and driver"),
    ],
)
def test_versions_are_to_be_equal_and_to_fit(change: Dict[str, Any], text: str) -> None:
    facts = {f"h{n}": {"versions": {**VERSIONS_INNER, **(change if n == 2 else {})}} for n in (1, 2, 3)}
    (found,) = findings(hosts(3), **facts)
    assert str(found).startswith(text)


def test_who_lacks_mindspore_is_told_once_and_all_where_nobody_has_it() -> None:
    facts = {
        f"h{n}": {"versions": {**VERSIONS_INNER, "mindspore": None if n == 2 else "2.10.0"}}
        for n in (1, 2, 3)
    }
    (found,) = findings(hosts(3), **facts)
    assert found.culprit == "h2" and found.what == "MindSpore is not found, on most hosts 2.10.0"
    facts = {f"h{n}": {"versions": {**VERSIONS_INNER, "mindspore": None}} for n in (1, 2)}
    assert [f.what.split(" in ")[0] for f in findings(hosts(2), **facts)] == ["MindSpore is not found"] * 2


def test_versions_that_no_host_may_have() -> None:
    facts = {
        f"h{n}": {"versions": {**VERSIONS_INNER, "mindspore": "2.1.0", "python": "3.13.0"}} for n in (1, 2)
    }
    assert [f.what.split()[0] for f in findings(hosts(2), **facts)] == ["MindSpore", "Python"] * 2


DISK = {"folder": "/r", "free_mb": 9000, "writable": True}
DATA = {"/d": {"files": {"d": 3}}}
CANN: Dict[str, Any] = {"home": "/cann", "missing": [], "scripts": []}


@pytest.mark.parametrize(
    ("name", "usual", "odd", "text"),
    [
        ("code", "aa", "bb", "the code of fcn-launch differs"),
        ("clock", 0.01, -3.21, "its clock is 3.2 s behind"),
        ("disk", DISK, {**DISK, "free_mb": 2100}, "2.1 GB are free at /r; 2 checkpoints take 2.2 GB"),
        ("disk", DISK, {**DISK, "writable": False}, "/r can not be written"),
        ("data", DATA, {"/d": {"files": {"d": 2}}}, "/d has other files, or other sizes"),
        ("data", DATA, {"/d": {"error": "Permission denied"}}, "/d can not be read: Permission denied"),
        ("shared_memory_mb", 8000, 64, "shared memory (/dev/shm) is 64 MB"),
        ("open_files", 65536, 1023, "a process may open 1023 files"),
        ("memory_free_mb", 99_000, 3_000, "3.0 GB of memory are free for 8 workers"),
        ("address", {"is_own": True, "main": "10.0.0.1"}, {"is_own": False, "main": "10.9.9.9"},
         "10.0.0.2, its address in test.yaml, is not one of this host, its own is 10.9.9.9"),
        ("environment", CANN, {**CANN, "home": None}, "CANN's set_env.sh is not sourced"),
        ("environment", CANN, {**CANN, "missing": ["libhccl.so"]}, "libhccl.so not found on LD_LIBRARY_PATH"),
        ("ports", [], [{"port": 60003, "owner": "process 7", "listens": True}], "TCP port 60003 is held by"),
        ("reserved_ports", {"open": [], "reserved": ""}, {"open": [60000, 60031], "reserved": ""},
         "the ports 60000-60031 are not reserved"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_one_host_is_told_of_that_one(name: str, usual: Any, odd: Any, text: str) -> None:
    cluster = hosts(3)
    assert findings(cluster, **{f"h{n}": {name: usual} for n in (1, 2, 3)}) == []
    (found,) = findings(cluster, **{f"h{n}": {name: odd if n == 2 else usual} for n in (1, 2, 3)})
    assert found.culprit == "h2" and found.what.startswith(text)


def test_the_meeting_port_matters_on_the_first_host_alone() -> None:
    cluster = replace(hosts(2), master_port=29400)
    taken = {"ports": [{"port": 29400, "owner": "process 7", "listens": True}]}
    (found,) = findings(cluster, h1=taken, h2=taken)
    assert found.culprit == "h1" and "the ranks cannot meet there" in found.causes


@pytest.mark.parametrize(
    ("port", "listens", "fatal"), [(60003, True, True), (60003, False, False), (16666, True, False)]
)
def test_a_connection_or_a_port_of_the_cards_may_do_no_harm(port: int, listens: bool, fatal: bool) -> None:
    taken = {"ports": [{"port": port, "owner": "process 7", "listens": listens}]}
    (found,) = findings(hosts(2), h1=taken)
    assert found.fatal is fatal
    assert ("HCCL_IF_BASE_PORT" in found.remedy) is (port != 16666)  # which that does not move


def test_a_part_of_canns_environment_may_do() -> None:
    missing = {"home": None, "missing": ["libhccl.so"], "scripts": ["/a/set_env.sh"]}
    (found,) = findings(ONE, node1={"environment": missing})
    assert found.fatal and "source /a/set_env.sh before" in found.remedy
    for part in ({**missing, "missing": []}, {**missing, "home": "/cann"}):
        assert [f.fatal for f in findings(ONE, node1={"environment": part})] == [False]


def test_a_host_that_tells_nothing_is_fatal_and_a_fact_that_is_not_known_is_a_warning() -> None:
    names = [check.name for check in CHECKS]
    reasons = {
        "h1": dict.fromkeys(("pings", "links"), "no hccn_tool"),
        "h2": dict.fromkeys(names, "exit 255"),
    }
    silent, unknown = judge(View(hosts(2), {"h1": {"code": "a"}, "h2": {}}, reasons))
    assert (silent.culprit, silent.what, silent.fatal) == ("h2", "exit 255", True)
    assert (unknown.culprit, unknown.fatal) == ("h1", False)
    assert unknown.what == "not known are links, pings: no hccn_tool"


def test_what_is_said_of_several_hosts_is_told_once() -> None:
    warning = Finding("h1", "is off", "nothing works", "turn it on", fatal=False)
    others = [warning._replace(host=f"h{n}") for n in range(2, 12)]
    one, many = merged([warning._replace(what="hums"), warning, *others])
    assert one.host == "h1"
    assert many.culprit == "h1, h2, h3, h4, h5, h6, h7, h8 and 3 more"
