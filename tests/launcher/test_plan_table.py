"""Plans on a given rank table, and the three ways to start from one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List

import pytest
from cluster_files import cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import BASES, any_tables, ranks, servers
from test_plan import JOB, scheduler, with_ips, workers

from launcher.cluster import cluster_from
from launcher.cluster_types import Cluster
from launcher.conversion import cluster_values
from launcher.errors import PreflightError
from launcher.plan import make_plan
from launcher.plan_types import HostFacts
from launcher.rank_table import RankTable, of_places
from launcher.rank_table_forms import render
from launcher.selection import Place, select


def on_table(table: Dict[str, Any], kind: str = "ascend910b", **more: Any) -> Cluster:
    return cluster_from({"device_kind": kind, "rank_table": table, **more}, "test.yaml")


def permuted() -> Dict[str, Any]:
    """Two servers of two devices, ranks 3, 2 and 0, 1; the entries of the second one not by their ids."""
    table = servers()
    for server, order in zip(table["server_list"], ("32", "01")):
        for device, rank in zip(server["device"], order):
            device["rank_id"] = rank
    table["server_list"][1]["device"].reverse()
    return table


def where(plan: Any) -> List[tuple]:
    return [(p.rank, p.host, p.device_id, p.env["DEVICE_ID"], p.env.get("MS_NODE_ID")) for p in workers(plan)]


def test_ranks_are_those_of_the_table_and_device_id_is_an_index_into_it() -> None:
    plan = make_plan(on_table(permuted()), JOB, {})
    assert where(plan) == [
        (0, "10.0.0.2", 0, "0", "0"),
        (1, "10.0.0.2", 1, "1", "1"),
        (2, "10.0.0.1", 1, "1", "2"),
        (3, "10.0.0.1", 0, "0", "3"),
    ]
    assert plan.master_address == "10.0.0.2" and scheduler(plan).host == "10.0.0.2"
    assert plan.rank_table is not None
    for server in plan.rank_table["server_list"]:  # the DEVICE_ID-th entry is that device
        for index, device in enumerate(server["device"]):
            (process,) = [p for p in workers(plan) if str(p.rank) == device["rank_id"]]
            assert (process.env["DEVICE_ID"], str(process.device_id)) == (str(index), device["device_id"])


@settings(max_examples=60, deadline=None)
@given(any_tables(), st.data())
def test_plans_on_any_part_of_any_table_are_dense_and_agree_with_it(table: RankTable, data: Any) -> None:
    kind = "ascend910_93" if table.version == "1.2" else "ascend910b"
    whole = cluster_from(cluster_values(table, kind, {}), "c.yaml")
    gone = data.draw(st.sets(st.sampled_from([(h.name, d.id) for h in whole.hosts for d in h.devices])))
    if len(gone) >= whole.world_size - 1:
        return
    reduced = cluster_from({**whole.to_dict(), "min_devices": 1}, "c.yaml")
    used = select(reduced, [Place(host, device) for host, device in gone])
    plan = make_plan(used, JOB, {})
    assert [process.rank for process in workers(plan)] == list(range(whole.world_size - len(gone)))
    kept = [(h.server_id or h.address, d.id) for h in used.hosts for d in h.devices]
    expected = [(s.server_id, r.device_id) for s, r in of_places(table, kept).by_rank()]
    names = {h.name: h.server_id or h.address for h in used.hosts}
    assert [(names[p.host], p.device_id) for p in workers(plan)] == expected
    assert plan == make_plan(used, JOB, {})


def test_what_a_table_says_more_is_kept_and_pod_ip_is_the_plans() -> None:
    table = BASES["1.2"]()
    plan = make_plan(on_table(table, "ascend910_93"), JOB, {})
    assert plan.rank_table is not None
    for server in plan.rank_table["server_list"]:
        assert server.pop("pod_ip") == server["host_ip"]
    assert plan.rank_table == table


def test_a_given_table_is_checked_too() -> None:
    good = on_table(BASES["old"](), "ascend910")
    table = good.rank_table
    assert table is not None and make_plan(good, JOB, {}).rank_table is not None
    silent = (replace(s, ranks=tuple(replace(r, device_ip="") for r in s.ranks)) for s in table.servers)
    bad = replace(good, rank_table=replace(table, servers=tuple(silent)))
    with pytest.raises(
        PreflightError, match=r"not valid: .*server_list\[0\].device\[0\].device_ip: is empty"
    ):
        make_plan(bad, JOB, {})


def test_the_peers_are_what_each_rank_has_to_find() -> None:
    facts = {
        "10.0.0.1": HostFacts(hostname="a", free_ports=(20001,)),
        "10.0.0.2": HostFacts(hostname="b", free_ports=(20001,)),
    }
    plan = make_plan(on_table(permuted()), JOB, facts)
    assert plan.peers == (
        ("b", 0, "10.0.0.2"),
        ("b", 1, "10.0.0.2"),
        ("a", 1, "10.0.0.1"),
        ("a", 0, "10.0.0.1"),
    )
    assert make_plan(cluster("cpu", 2), JOB, {}).peers == ((None, 0, None), (None, 1, None))
    subset = make_plan(cluster("ascend910", with_ips(1, 4, 5)), JOB, {})
    assert [peer.device for peer in subset.peers] == [4, 5]


def test_a_start_from_the_table_alone_has_no_scheduler() -> None:
    plan = make_plan(cluster("ascend910", with_ips(1, 4, 5), rendezvous="rank_table"), JOB, {})
    assert scheduler(plan) is None and (plan.master_address, plan.master_port) == (None, None)
    env = workers(plan)[1].env
    assert not [name for name in env if name.startswith(("MS_", "MASTER_"))]
    wanted = {"RANK_ID": "1", "RANK_SIZE": "2", "DEVICE_ID": "1", "ASCEND_RT_VISIBLE_DEVICES": "4,5"}
    assert {name: env[name] for name in wanted} == wanted
    assert env["FCN_RENDEZVOUS"] == "rank_table" and env["RANK_TABLE_FILE"].endswith("plan/rank_table.json")
    assert not [note for note in plan.notes if "port" in note] and plan.peers[1].address is None


def test_a_cpu_cluster_rehearses_a_table_with_the_scheduler() -> None:
    plan = make_plan(on_table(permuted(), "cpu"), JOB, {})
    assert plan.rendezvous == "scheduler"
    assert {p.env.get("RANK_TABLE_FILE") for p in plan.processes} == {
        "/runs/r1/attempt-001/plan/rank_table.json"
    }


def test_the_scheduler_reads_no_table_of_ranks() -> None:
    hosts = [{"server_id": f"server{i}", "address": f"10.0.0.{i}", "prefix": ["ssh"]} for i in (1, 0)]
    plan = make_plan(on_table(ranks(), "ascend950", engine="exec", hosts=hosts), JOB, {})
    assert plan.rank_table == render(on_table(ranks(), "ascend950", engine="exec", hosts=hosts).rank_table)
    assert "RANK_TABLE_FILE" not in plan.processes[0].env
    assert where(plan)[2:] == [(2, "server1", 0, "0", "2"), (3, "server1", 1, "1", "3")]


@pytest.mark.parametrize("value", ["0", "17341"])
def test_an_ascend_910_waits_for_a_limited_time_only(value: str) -> None:
    with pytest.raises(
        Exception, match=f"env.HCCL_EXEC_TIMEOUT: '{value}' cannot be used; expected 1 to 17340"
    ):
        make_plan(cluster("ascend910", with_ips(1, 0, 1), env={"HCCL_EXEC_TIMEOUT": value}), JOB, {})
