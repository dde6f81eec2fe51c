"""The plan: ranks, rank table, environments, meeting point, from a cluster file and the hosts' facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from cluster_files import cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.cluster import cluster_from, load_cluster
from launcher.cluster_types import Cluster
from launcher.environment import COLLECTIVE_MARGIN_S
from launcher.errors import PreflightError
from launcher.plan import make_plan
from launcher.plan_files import render
from launcher.plan_types import HostFacts, Job, Plan, Process
from launcher.selection import Place, select

REFERENCES = Path(__file__).parents[3] / "shared" / "ascend" / "rank_tables"
JOB = Job("train", "/runs/r1", ("-m", "fcn.worker", "train"))
CPU_FACTS = HostFacts(cores=8, machine="x86_64", hostname="h", free_ports=(20001, 20002, 20003))


def with_ips(server: int, *ids: int) -> Dict[int, str]:
    return {i: f"192.168.{server}.{i + 1}" for i in ids}


def workers(plan: Plan) -> List[Process]:
    return [process for process in plan.processes if process.rank is not None]


def scheduler(plan: Plan) -> Optional[Process]:
    return plan.processes[0] if plan.processes[0].rank is None else None


# --- ranks


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=12))
def test_ranks_are_dense_unique_and_contiguous_on_each_server(servers: list) -> None:
    made = cluster("ascend910b", *(with_ips(i, *ids) for i, ids in enumerate(servers)))
    plan = make_plan(made, JOB, {})
    found = workers(plan)
    assert [process.rank for process in found] == list(range(sum(map(len, servers))))
    for host in made.hosts:
        own = [process for process in found if process.host == host.name]
        assert [process.rank for process in own] == list(
            range(own[0].rank or 0, (own[0].rank or 0) + len(own))
        )
        assert [process.device_id for process in own] == [device.id for device in host.devices]
        assert [process.local_rank for process in own] == list(range(len(own)))
    if plan.rank_table:
        ids = [server["server_id"] for server in plan.rank_table["server_list"]]
        assert ids == sorted(ids)
        entries = [d for server in plan.rank_table["server_list"] for d in server["device"]]
        assert [entry["rank_id"] for entry in entries] == [str(rank) for rank in range(len(found))]
        assert [entry["device_id"] for entry in entries] == [str(process.device_id) for process in found]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.integers(1, 3))
def test_the_same_input_gives_the_same_bytes(order: list, attempt: int) -> None:
    facts = {f"node{i + 1}": CPU_FACTS for i in order}
    texts = [
        render(make_plan(cluster("cpu", *[2] * 5), JOB, given_facts, attempt), has_run=True)
        for given_facts in (facts, dict(sorted(facts.items())))
    ]
    assert texts[0] == texts[1]


def test_ascend_hosts_take_ranks_in_the_dictionary_order_of_their_addresses() -> None:
    hosts = [
        {"name": f"node{i}", "address": f"10.0.0.{i}", "prefix": ["ssh"], "devices": with_ips(i, 0)}
        for i in (9, 10)
    ]
    made = cluster_from({"device_kind": "ascend910", "engine": "exec", "hosts": hosts}, "test.yaml")
    plan = make_plan(made, JOB, {})
    assert [process.host for process in workers(plan)] == ["node10", "node9"]
    assert plan.master_address == "10.0.0.10"
    assert any("dictionary order" in note and "node10, node9" in note for note in plan.notes)


def test_cpu_hosts_take_ranks_in_the_order_of_the_file() -> None:
    hosts = [{"name": f"n{i}", "address": f"10.0.0.{i}", "prefix": ["ssh"], "devices": 1} for i in (9, 10)]
    plan = make_plan(
        cluster_from({"device_kind": "cpu", "engine": "exec", "hosts": hosts}, "test.yaml"), JOB, {}
    )
    assert [process.host for process in workers(plan)] == ["n9", "n10"]


def test_names_of_many_ranks_sort_like_the_ranks() -> None:
    names = [process.name for process in make_plan(cluster("cpu", 120), JOB, {}).processes]
    assert names[7] == "rank-007" and names == sorted(names)


# --- rank table


def cluster_of(table: Dict[str, Any], kind: str) -> Cluster:
    servers = table["server_list"]
    hosts = [
        {
            "name": f"node{i}",
            "address": server["server_id"],
            "devices": {int(d["device_id"]): d["device_ip"] for d in server["device"]},
            **({"prefix": ["ssh", f"node{i}"]} if len(servers) > 1 else {}),
        }
        for i, server in enumerate(servers)
    ]
    engine = "exec" if len(servers) > 1 else "local"
    return cluster_from({"device_kind": kind, "engine": engine, "hosts": hosts}, "test.yaml")


@pytest.mark.skipif(not REFERENCES.is_dir(), reason="the reference rank tables are not beside this checkout")
@pytest.mark.parametrize("kind", ["ascend910", "ascend910b"])
@pytest.mark.parametrize("name", ["2s_16p", "4p_4567_10.0.0.1", "8p_01234567_10.0.0.1"])
def test_planned_tables_equal_those_of_hccl_tools(name: str, kind: str) -> None:
    reference = json.loads((REFERENCES / f"hccl_tools_output_hccl_{name}.json").read_text())
    planned = make_plan(cluster_of(reference, kind), JOB, {}).rank_table
    assert planned is not None
    for server in [*reference["server_list"], *planned["server_list"]]:
        server.pop("host_nic_ip", None)
        server.pop("pod_ip", None)
    assert planned == reference
    assert json.dumps(planned, indent=4) == json.dumps(reference, indent=4)  # the order of keys too


def test_addresses_come_from_the_host_where_the_file_has_none() -> None:
    facts = {"node1": HostFacts(free_ports=(20001,), device_ips={0: "10.1.0.1", 1: "10.1.0.2"})}
    table = make_plan(cluster("ascend910", 2), JOB, facts).rank_table
    assert table is not None
    assert [d["device_ip"] for d in table["server_list"][0]["device"]] == ["10.1.0.1", "10.1.0.2"]


def test_an_address_that_nobody_knows_is_refused_where_it_is_needed() -> None:
    with pytest.raises(PreflightError, match="device 0, 1: .*where it has none, /etc/hccn.conf.*-i 0 -ip -g"):
        make_plan(cluster("ascend910", 2), JOB, {"node1": CPU_FACTS})
    table = make_plan(cluster("ascend910b", 2), JOB, {}).rank_table  # one server: HCCL goes without
    assert table is not None and "device_ip" not in table["server_list"][0]["device"][0]
    half = make_plan(cluster("ascend910b", {0: "10.1.0.1", 1: None}), JOB, {}).rank_table  # all or none
    assert half is not None and all("device_ip" not in d for d in half["server_list"][0]["device"])


def test_a_host_that_was_not_asked_is_planned_without_its_addresses() -> None:
    host = {"name": "n", "address": "10.0.0.1", "prefix": ["ssh", "n"], "devices": 2}
    made = cluster_from({"device_kind": "ascend910", "engine": "exec", "hosts": [host]}, "test.yaml")
    plan = make_plan(made, JOB, {})
    assert plan.rank_table and "device_ip" not in plan.rank_table["server_list"][0]["device"][0]
    assert any("addresses of device 0, 1 of n are asked for when the run starts" in n for n in plan.notes)


def test_pod_ip_is_the_address_that_workers_register_with() -> None:
    local = make_plan(cluster("ascend910", with_ips(1, 0, 1)), JOB, {})
    assert (
        local.rank_table
        and local.rank_table["server_list"][0]["pod_ip"] == local.master_address == "127.0.0.1"
    )
    several = make_plan(cluster("ascend910", with_ips(1, 0), with_ips(2, 0)), JOB, {})
    assert several.rank_table
    assert [server["pod_ip"] for server in several.rank_table["server_list"]] == ["10.0.0.1", "10.0.0.2"]


def test_without_ascend_or_without_peers_there_is_no_table() -> None:
    assert make_plan(cluster("cpu", 2, rendezvous="scheduler"), JOB, {}).rank_table is None
    alone = make_plan(cluster("ascend910", 1), JOB, {})
    assert alone.rank_table is None and "RANK_TABLE_FILE" not in alone.processes[0].env


# --- environments


def test_environment_of_a_cpu_worker() -> None:
    plan = make_plan(cluster("cpu", 3), JOB, {"node1": CPU_FACTS}, attempt=2, old_ports={20001})
    assert scheduler(plan) is None
    assert plan.processes[1].env == {
        "RANK_ID": "1",
        "RANK_SIZE": "3",
        "LOCAL_RANK": "1",
        "DEVICE_ID": "1",
        "FCN_PLATFORM": "cpu",
        "FCN_RUN_DIR": "/runs/r1",
        "FCN_ATTEMPT": "2",
        "FCN_RENDEZVOUS": "store",
        "FCN_START_TIMEOUT_S": "660",
        "FCN_PEERS": "/runs/r1/attempt-002/plan/peers.json",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "20002",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "2",
        "MS_CPU_COMM_OP_TIMEOUT": "1860",
    }
    assert plan.processes[1].argv == ("/opt/python", "-m", "fcn.worker", "train")
    assert plan.processes[1].log == "rank-01.log"


def test_environment_of_an_ascend_worker() -> None:
    made = cluster("ascend910", with_ips(1, 4, 5, 6, 7), with_ips(2, 0, 1, 2, 3), env={"HCCL_BUFFSIZE": 100})
    plan = make_plan(made, JOB, {"node1": CPU_FACTS}, attempt=3, old_ports={20001, 20002})
    assert workers(plan)[5].env == {
        "RANK_ID": "5",
        "RANK_SIZE": "8",
        "LOCAL_RANK": "1",
        "DEVICE_ID": "1",
        "FCN_PLATFORM": "ascend",
        "FCN_RUN_DIR": "/runs/r1",
        "FCN_ATTEMPT": "3",
        "FCN_RENDEZVOUS": "scheduler",
        "FCN_START_TIMEOUT_S": "660",
        "MS_ROLE": "MS_WORKER",
        "MS_SCHED_HOST": "10.0.0.1",
        "MS_SCHED_PORT": "20003",
        "MS_WORKER_NUM": "8",
        "MS_NODE_ID": "5",
        "RANK_TABLE_FILE": "/runs/r1/attempt-003/plan/rank_table.json",
        "FCN_DEVICES": "0,1,2,3",
        "ASCEND_RT_VISIBLE_DEVICES": "0,1,2,3",
        "FCN_PEERS": "/runs/r1/attempt-003/plan/peers.json",
        "ASCEND_PROCESS_LOG_PATH": "/runs/r1/attempt-003/plog/rank-05",
        "GLOG_log_dir": "/runs/r1/attempt-003/plog/rank-05",
        "HCCL_CONNECT_TIMEOUT": "1860",
        "HCCL_EXEC_TIMEOUT": "1904",
        "HCCL_EVENT_TIMEOUT": "1936",
        "MS_TOPO_TIMEOUT": "660",
        "MS_RETRY_INTERVAL_LOWER": "1",
        "MS_RETRY_INTERVAL_UPPER": "1",
        "HCCL_BUFFSIZE": "100",
    }


def test_device_id_is_an_index_and_the_subset_is_made_visible() -> None:
    plan = make_plan(cluster("ascend910", with_ips(1, 4, 5, 6, 7)), JOB, {})
    assert [process.env["DEVICE_ID"] for process in workers(plan)] == ["0", "1", "2", "3"]
    assert [process.device_id for process in workers(plan)] == [4, 5, 6, 7]
    assert {process.env["ASCEND_RT_VISIBLE_DEVICES"] for process in workers(plan)} == {"4,5,6,7"}
    assert plan.rank_table
    assert [d["device_id"] for d in plan.rank_table["server_list"][0]["device"]] == ["4", "5", "6", "7"]
    whole = make_plan(load_cluster("8xascend910.yaml"), JOB, {})
    assert all("ASCEND_RT_VISIBLE_DEVICES" not in process.env for process in whole.processes)


def test_in_a_container_the_visible_devices_are_those_that_it_counts() -> None:
    facts = {"node1": HostFacts(free_ports=(20001,), logical={4: 0, 5: 1, 6: 2, 7: 3})}
    unseen = make_plan(cluster("ascend910", with_ips(1, 6, 7)), JOB, {})
    assert any("ASCEND_RT_VISIBLE_DEVICES of node1 is that of a host" in note for note in unseen.notes)
    plan = make_plan(cluster("ascend910", with_ips(1, 6, 7)), JOB, facts)
    assert plan.notes == ()
    assert {process.env["ASCEND_RT_VISIBLE_DEVICES"] for process in workers(plan)} == {"2,3"}
    assert {process.env["FCN_DEVICES"] for process in workers(plan)} == {"6,7"}
    assert [process.env["DEVICE_ID"] for process in workers(plan)] == ["0", "1"]
    assert [peer.device for peer in plan.peers] == [6, 7]
    assert plan.rank_table
    assert [d["device_id"] for d in plan.rank_table["server_list"][0]["device"]] == ["6", "7"]


def test_the_scheduler_comes_first_and_takes_the_ranks_from_the_table() -> None:
    plan = make_plan(cluster("ascend910", with_ips(1, 4, 5), env={"MS_NODE_TIMEOUT": 60}), JOB, {})
    first = scheduler(plan)
    assert first is not None
    assert (first.name, first.host, first.log) == ("scheduler", "node1", "scheduler.log")
    assert first.argv == ("/opt/python", "-m", "fcn.distributed")
    assert first.env["MS_ROLE"] == "MS_SCHED" and first.env["MS_NODE_TIMEOUT"] == "60"
    assert first.env["RANK_TABLE_FILE"] == workers(plan)[0].env["RANK_TABLE_FILE"]
    assert not {"DEVICE_ID", "RANK_ID", "MS_NODE_ID"} & set(first.env)


def test_the_scheduler_start_on_cpu() -> None:
    plan = make_plan(cluster("cpu", 2, rendezvous="scheduler"), JOB, {"node1": CPU_FACTS})
    assert scheduler(plan) is not None
    env = workers(plan)[1].env
    assert (env["MS_NODE_ID"], env["MS_SCHED_PORT"], env["MS_CPU_COMM_OP_TIMEOUT"]) == ("1", "20001", "1860")
    assert "MASTER_ADDR" not in env


def test_one_rank_meets_nobody() -> None:
    plan = make_plan(cluster("cpu", 1, rendezvous="scheduler"), JOB, {"node1": HostFacts()})
    assert (plan.rendezvous, plan.master_address, plan.master_port) == ("none", None, None)
    assert len(plan.processes) == 1 and plan.processes[0].env["FCN_RENDEZVOUS"] == "none"


def test_limits_of_collectives_lie_above_the_longest_phase() -> None:
    for kind, devices in (("cpu", 2), ("ascend910", with_ips(1, 0, 1)), ("ascend910b", 2)):
        for phase_s, hang_s in ((1, 1), (400, 120), (6999.5, 120), (100, 5000)):
            timeouts = {"phase_s": phase_s, "hang_s": hang_s, "start_s": 300}
            made = cluster(kind, devices, timeouts=timeouts)
            env = make_plan(made, JOB, {}).processes[-1].env
            names = (
                ["MS_CPU_COMM_OP_TIMEOUT"] if kind == "cpu" else ["HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT"]
            )
            for name in names:
                assert int(env[name]) >= max(phase_s, hang_s, 300) + COLLECTIVE_MARGIN_S, (kind, name)
            if kind != "cpu":
                assert 120 <= int(env["HCCL_CONNECT_TIMEOUT"]) <= 7200
                assert int(env["HCCL_EVENT_TIMEOUT"]) > int(env["HCCL_EXEC_TIMEOUT"])
            if kind == "ascend910":  # it rounds down to a multiple of 68, and refuses more than 17340
                assert int(env["HCCL_EXEC_TIMEOUT"]) % 68 == 0 and int(env["HCCL_EXEC_TIMEOUT"]) <= 17340


@pytest.mark.parametrize("cores, count, threads", [(2, 2, "1"), (2, 4, "1"), (192, 8, "24"), (7, 2, "3")])
def test_the_workers_of_a_host_share_its_cores(cores: int, count: int, threads: str) -> None:
    plan = make_plan(
        cluster("cpu", count), JOB, {"node1": HostFacts(cores=cores, machine="x86_64", free_ports=(20001,))}
    )
    assert {process.env["OMP_NUM_THREADS"] for process in plan.processes} == {threads}


def test_the_instruction_set_is_pinned_on_x86_only() -> None:
    plan = make_plan(cluster("cpu", 1), JOB, {"node1": HostFacts(cores=4, machine="aarch64")})
    assert "ONEDNN_MAX_CPU_ISA" not in plan.processes[0].env


def test_the_user_wins_over_choices_and_the_file_over_the_user() -> None:
    facts = {
        "node1": HostFacts(
            cores=8,
            machine="x86_64",
            free_ports=(20001,),
            environ={"OMP_NUM_THREADS": "5", "ONEDNN_MAX_CPU_ISA": "SSE41", "RANK_ID": "77"},
        )
    }
    env = make_plan(cluster("cpu", 2, env={"OMP_NUM_THREADS": 7}), JOB, facts).processes[1].env
    assert (env["OMP_NUM_THREADS"], env["ONEDNN_MAX_CPU_ISA"], env["RANK_ID"]) == ("7", "SSE41", "1")


def test_ipv6_workers_are_told_their_address() -> None:
    hosts = [
        {"name": f"n{i}", "address": f"fd00::{i}", "prefix": ["ssh"], "devices": {0: f"fd01::{i}"}}
        for i in (1, 2)
    ]
    made = cluster_from({"device_kind": "ascend910", "engine": "exec", "hosts": hosts}, "test.yaml")
    assert [process.env["MS_WORKER_IP"] for process in workers(make_plan(made, JOB, {}))] == [
        "fd00::1",
        "fd00::2",
    ]


# --- the meeting point


def test_each_attempt_takes_another_free_port() -> None:
    ports: List[Optional[int]] = []
    for attempt in (1, 2, 3, 4):
        plan = make_plan(cluster("cpu", 2), JOB, {"node1": CPU_FACTS}, attempt, ports)
        ports.append(plan.master_port)
    assert ports == [20001, 20002, 20003, 20001]


def test_a_fixed_port_is_taken_or_refused() -> None:
    fixed = cluster("cpu", 2, master_port=20002)
    assert make_plan(fixed, JOB, {"node1": CPU_FACTS}, attempt=5).master_port == 20002
    with pytest.raises(PreflightError, match=r"node1: TCP port 20009 is in use \(master_port in test.yaml\)"):
        make_plan(cluster("cpu", 2, master_port=20009), JOB, {"node1": CPU_FACTS})
    with pytest.raises(PreflightError, match="node1: no free TCP port"):
        make_plan(cluster("cpu", 2), JOB, {"node1": HostFacts(cores=2)})


def test_what_is_not_known_is_left_out_and_said() -> None:
    plan = make_plan(cluster("cpu", 2, 2), JOB, {"node2": CPU_FACTS})
    first, last = plan.processes[0].env, plan.processes[-1].env
    assert not {"OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "MASTER_PORT"} & set(first)
    assert last["OMP_NUM_THREADS"] == "4" and "MASTER_PORT" not in last
    assert plan.master_port is None
    assert any("node1 are not known here" in note for note in plan.notes)
    assert any("the port on 10.0.0.1 is chosen when the run starts" in note for note in plan.notes)
    assert make_plan(cluster("cpu", 2), JOB, {"node1": CPU_FACTS}).notes == ()


# --- exclusions


def test_excluded_devices_are_left_out() -> None:
    made = cluster("ascend910b", with_ips(1, *range(8)), with_ips(2, 0), min_devices=2)
    plan = make_plan(select(made, [Place("node1", 3), Place("node2", 0)]), JOB, {})
    assert plan.world_size == 7
    assert [process.device_id for process in workers(plan)] == [0, 1, 2, 4, 5, 6, 7]
    assert workers(plan)[0].env["ASCEND_RT_VISIBLE_DEVICES"] == "0,1,2,4,5,6,7"
    assert plan.rank_table and [s["server_id"] for s in plan.rank_table["server_list"]] == ["10.0.0.1"]


def test_facts_survive_json() -> None:
    facts = HostFacts(
        4, "x86_64", "h", (20001, 20002), {3: "10.1.0.3"}, {"A": "b"}, (3, 4), logical={3: 0, 4: 1}
    )
    assert HostFacts.from_dict(json.loads(json.dumps(vars(facts)))) == facts
    assert HostFacts.from_dict({"cores": 2, "from_a_newer_agent": 1}) == HostFacts(cores=2)
