"""Workers bound to the CPUs near their devices: who gets which, and that they run there."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ascend_server import Server, topo_text
from launching import FOREVER, LOCAL_CLUSTER, Launch, closing

from launcher import binding, devices
from launcher.agent import topology
from launcher.binding import format_cpus, parse_cpus, share_out
from launcher.cluster import cluster_from, load_cluster
from launcher.plan import make_plan
from launcher.plan_types import HostFacts, Job

KUNPENG = [(cpu,) for cpu in range(192)]
NEAR = ["144-167", "0-23", "144-167", "0-23", "96-119", "48-71", "96-119", "48-71"]  # of a 910B server


def test_lists_of_cpus() -> None:
    assert parse_cpus("0-2,96\n") == (0, 1, 2, 96) and parse_cpus("") == ()
    assert format_cpus((96, 2, 0, 1)) == "0-2,96" and format_cpus(()) == ""


def test_devices_near_the_same_cpus_share_them() -> None:
    shares = share_out(KUNPENG, {i: parse_cpus(text) for i, text in enumerate(NEAR)}, range(8))
    told = [format_cpus(shares[i]) for i in range(8)]
    assert told == ["144-155", "0-11", "156-167", "12-23", "96-107", "48-59", "108-119", "60-71"]


def test_hardware_threads_of_a_core_stay_together() -> None:
    cores = [(i, i + 4) for i in range(4)]
    assert share_out(cores, {}, [0, 1]) == {0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}


def test_what_is_near_to_nobody_is_for_those_of_whom_nothing_is_known() -> None:
    shares = share_out(KUNPENG[:8], {0: (0, 1), 1: (200,)}, [0, 1, 2])
    assert shares == {0: (0, 1), 1: (2, 3, 4), 2: (5, 6, 7)}


def test_too_few_cores_bind_nobody() -> None:
    assert share_out(KUNPENG[:2], {}, [0, 1, 2]) == {}
    few = {"cores": [[0], [1]], "near": {}, "source": "NUMA nodes"}
    assert binding.bind({"h1": few}, {"h1": [0, 1, 2]}) == (
        {},
        ["workers of h1 are bound to CPUs by NUMA nodes: none, as cores are too few"],
    )


def test_no_cpu_is_given_twice_and_shares_are_even() -> None:
    dice = random.Random("bindings")
    for _ in range(300):
        cores = [(i,) for i in range(dice.randint(1, 64))]
        count = dice.randint(1, 16)
        parts = dice.randint(1, 4)
        near: Dict[int, List[int]] = {
            i: [core[0] for core in cores if core[0] % parts == i % parts]
            for i in range(count)
            if dice.random() < 0.8
        }
        shares = share_out(cores, near, range(count))
        given = [cpu for share in shares.values() for cpu in share]
        if all(near.get(i) for i in range(count)):
            assert len(set(given)) == len(given)
        assert set(given) <= {core[0] for core in cores} and all(shares.values())
        for part in range(parts):
            sizes = [len(shares[i]) for i in near if i in shares and i % parts == part and near[i]]
            assert not sizes or max(sizes) - min(sizes) <= 1


def test_the_matrix_of_npu_smi_tells_and_else_the_pci_addresses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Server(tmp_path / "server", "ascend910b")
    monkeypatch.setattr(devices, "DEV", server.dev)
    monkeypatch.setattr(topology, "SYS", tmp_path / "sys")
    monkeypatch.setenv("PATH", f"{server.bin}:/usr/bin:/bin")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(192)))
    server.answer("npu-smi info -t topo", topo_text(NEAR))
    found = topology.look((1, 4))
    assert found["source"] == "npu-smi info -t topo"
    assert found["near"] == {1: list(range(24)), 4: list(range(96, 120))}
    server.answer("npu-smi info -t topo", "This device does not support querying topo.\n")
    assert topology.look((1, 4))["source"] == "NUMA nodes"
    for npu in devices.inventory().npus:
        bus = tmp_path / "sys/bus/pci/devices" / str(npu.state.bus).lower()
        bus.mkdir(parents=True)
        (bus / "local_cpulist").write_text(f"{24 * npu.id}-{24 * npu.id + 23}\n")
    found = topology.look((1, 4))
    assert found["source"] == "PCI addresses" and found["near"][4] == list(range(96, 120))


def test_cores_follow_the_numa_nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(topology, "SYS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 5, 6, 7})
    for node, cpus in enumerate(("0,2,4,6", "1,3,5,7")):
        (tmp_path / f"devices/system/node/node{node}").mkdir(parents=True)
        (tmp_path / f"devices/system/node/node{node}/cpulist").write_text(cpus)
    for cpu in range(8):
        (tmp_path / f"devices/system/cpu/cpu{cpu}/topology").mkdir(parents=True)
        siblings = f"{cpu % 4},{cpu % 4 + 4}"
        (tmp_path / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").write_text(siblings)
    assert topology.look(())["cores"] == [[0], [2, 6], [1, 5], [3, 7]]


def test_the_plan_binds_and_says_what_to_what() -> None:
    server = load_cluster("8xascend910b.yaml")
    cluster = cluster_from({**server.to_dict(), "bind_cpus": True}, "test.yaml")
    near = {str(i): list(parse_cpus(text)) for i, text in enumerate(NEAR)}
    known = {"cores": [list(core) for core in KUNPENG], "near": near, "source": "npu-smi info -t topo"}
    host = cluster.hosts[0].name
    facts = {host: HostFacts.from_dict({"topology": known, "free_ports": [20000], "hostname": host})}
    job = Job("train", "/runs/r", ("-m", "fcn.worker", "train"))
    plan = make_plan(cluster, job, facts)
    workers = [process for process in plan.processes if process.rank is not None]
    assert [format_cpus(worker.cpus) for worker in workers][:3] == ["144-155", "0-11", "156-167"]
    told = (
        f"workers of {host} are bound to CPUs by npu-smi info -t topo: device 0 to 144-155, device 1 to 0-11,"
    )
    assert told in str(plan.notes)
    unknown = make_plan(cluster, job, {})
    assert "the CPUs that workers are bound to are chosen when the run starts" in unknown.notes
    assert all(not process.cpus for process in make_plan(server, job, facts).processes)


def test_workers_run_where_they_are_bound_to(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this machine has one CPU")
    with closing() as made:
        launch = Launch(tmp_path, LOCAL_CLUSTER.format(devices=2, grace_s=1) + "bind_cpus: true\n", *FOREVER)
        made.append(launch)
        launch.until_training(2)
        bound = [os.sched_getaffinity(event["pid"]) for event in launch.all("started")]
        assert bound[0] | bound[1] == set(cpus) and not bound[0] & bound[1]
        (plan,) = launch.all("plan")
        assert f"device 0 to {format_cpus(bound[0])}" in plan["notes"][-1]
        launch.signal(signal.SIGINT)
        assert launch.finish() == 130


@pytest.mark.parametrize("value", ["yes please", 1])
def test_the_field_is_true_or_false(value: Any, tmp_path: Path) -> None:
    from launcher.errors import UserError

    with pytest.raises(UserError, match="bind_cpus: .* is neither true nor false; expected true or false"):
        cluster_from({**load_cluster("2xcpu.yaml").to_dict(), "bind_cpus": value}, "test.yaml")
