"""`fcn-launch discover`: hosts' devices as a cluster file that loads as it is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from launching import REPOSITORY, environment
from simulated_servers import SIMULATED, SimulatedServer
from tables import ranks

from launcher import discovery
from launcher.cluster import load_cluster
from launcher.errors import PreflightError, UserError


def npu(device: int, **values: Any) -> Dict[str, Any]:
    return {
        "id": device,
        "card": device,
        "chip": 0,
        "logic": device,
        "name": "910A",
        "health": "OK",
        **values,
    }


@pytest.mark.parametrize(
    ("name", "dies", "kind"),
    [
        ("910A", 1, "ascend910"),
        ("910ProB", 1, "ascend910"),
        ("910B1", 1, "ascend910b"),
        ("Ascend 910B4-1", 1, "ascend910b"),
        ("Ascend910", 2, "ascend910_93"),
        ("Ascend910_9392", 2, "ascend910_93"),
        ("950PR", 1, "ascend950"),
    ],
)
def test_chips_are_known_by_name(name: str, dies: int, kind: str) -> None:
    chips = [npu(i, name=name, chip=i % dies) for i in range(2)]
    assert discovery.kind_of(chips) == kind


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["910A", "910B1"], "chips of several kinds"),
        (["910B"], "'910B', which names no kind"),
        (["Ascend910"], "'Ascend910', which names no kind"),
        (["xxx"], "'xxx', which names no kind"),
        (["310P3"], "training on ascend310p is not supported"),
    ],
)
def test_what_names_no_kind_is_refused(names: List[str], told: str) -> None:
    with pytest.raises(PreflightError, match=told):
        discovery.kind_of([npu(i, name=name) for i, name in enumerate(names)])


def found(host: str = "h1", count: int = 8, ip: str = "192.1.27.{}", **values: Any) -> discovery.Found:
    npus = {"version": "24.1.rc1", "devices": [npu(i, **values) for i in range(count)]}
    ips = {i: ip.format(i) for i in range(count)} if ip else {}
    return discovery.Found(host, f"10.0.0.{host[1:]}", npus, ips, ("ssh", host))


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        (
            [found(), found("h2", name="910B1", ip="192.2.27.{}")],
            "several kinds (h1 ascend910, h2 ascend910b)",
        ),
        ([found(count=3)], "3 devices [0, 1, 2]; expected 1, 2, 4 or 8 devices"),
        ([found(), found("h2")], "192.1.27.0 is also the device IP at hosts[0].devices[0]"),
        ([found(), found("h2", ip="")], "no IP address for device 0, 1, 2"),
        ([found(name="abc"), found("h2", name="?")], "host h2: npu-smi calls its chips '?'"),
    ],
)
def test_hosts_that_make_no_cluster_are_refused(hosts: List[discovery.Found], told: str) -> None:
    with pytest.raises(PreflightError) as caught:
        discovery.cluster_text(hosts)
    assert told in str(caught.value)


def test_a_device_that_is_ill_is_listed_and_told() -> None:
    hosts = [found(), found("h2", ip="192.2.27.{}", health="Alarm")]
    assert discovery.unhealthy(hosts) == {"h2": list(range(8))}
    assert "h2" in discovery.cluster_text(hosts)


def test_loopback_is_no_address_for_others() -> None:
    assert discovery.address_of("h1", "10.0.0.1", "10.9.9.9") == "10.0.0.1"
    assert discovery.address_of("h1", "127.0.1.1", "10.9.9.9") == "10.9.9.9"
    with pytest.raises(PreflightError, match="no address but loopback"):
        discovery.address_of("h1", None, "127.0.0.1")


SSH = """#!/bin/sh
name="$1"
shift
eval "set -- $*"
exec {folder}/$name/inside "$@"
"""


def discover(folder: Path, *arguments: str, **env: str) -> Any:
    """Runs the command where `ssh` leads into the folders of the servers."""
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir(exist_ok=True)
    ssh.write_text(SSH.format(folder=folder))
    ssh.chmod(0o755)
    path = f"{ssh.parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "launcher", "discover", *arguments]
    env = {**environment(), "PATH": path, **env}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("kind", ["ascend910", "ascend910b", "ascend910_93"])
def test_what_is_printed_loads_unchanged_and_names_what_is_there(tmp_path: Path, kind: str) -> None:
    servers = [SimulatedServer(tmp_path / f"h{i}", i, 2, kind) for i in (1, 2)]
    servers[1].sicken(3, "Alarm", "80E0")
    for server in servers:
        server.finish()
    done = discover(tmp_path, "--hosts", "h1,h2")
    assert done.stderr == "warning: host h2: npu-smi does not call device 3 OK; leave it out\n"
    (tmp_path / "cluster.yaml").write_text(done.stdout)
    cluster = load_cluster(str(tmp_path / "cluster.yaml"))
    assert cluster.device_kind == kind
    for host, server in zip(cluster.hosts, servers):
        assert (host.name, host.prefix) == (server.name, ("ssh", server.name))
        assert host.address == server.settings["address"]
        assert {device.id: device.ip for device in host.devices} == server.ips
    sick = "card 1 chip 1, logical 3" if kind == "ascend910_93" else "card 3 chip 0, logical 3"
    assert [line for line in done.stdout.splitlines() if "Alarm" in line and sick in line]


def test_this_machine_is_asked_without_hosts_and_needs_no_addresses_on_a_910b(tmp_path: Path) -> None:
    server = SimulatedServer(tmp_path / "h1", 1, 1, "ascend910b")
    server.answer("hccn_tool -i 3 -ip -g", "Command execute failed!\n")
    server.finish()
    simulated = {"SIMULATED_HOST": str(server.folder), "PATH": f"{server.bin}:{os.environ['PATH']}"}
    simulated["PYTHONPATH"] = f"{SIMULATED}:{REPOSITORY}"
    done = discover(tmp_path, **simulated)
    (tmp_path / "cluster.yaml").write_text(done.stdout)
    cluster = load_cluster(str(tmp_path / "cluster.yaml"))
    assert (cluster.engine, cluster.device_kind, cluster.world_size) == ("local", "ascend910b", 8)
    assert "not every network card tells its address" in done.stdout


def test_hosts_that_give_no_answer_or_a_damaged_one_are_all_told_and_nothing_is_printed(
    tmp_path: Path,
) -> None:
    servers = [SimulatedServer(tmp_path / f"h{i}", i, 3) for i in (1, 2, 3)]
    for server in servers:
        server.finish()
    servers[0].answer("npu-smi info -m", "dcmi module initialize failed. ret is -8005\n")
    (servers[1].folder / "inside").write_text("#!/bin/sh\necho no route to host >&2\nexit 255\n")
    for node in servers[2].dev.iterdir():
        node.unlink()
    done = discover(tmp_path, "--hosts", "h1,h2,h3")
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        "host h1: npu-smi says `dcmi module initialize failed. ret is -8005`: the driver is not"
        in done.stderr
    )
    assert "host h2: exit code 255; no route to host" in done.stderr
    assert "host h3: there is no Ascend device" in done.stderr


def test_of_a_950_the_rank_table_is_left_to_be_put_beside_what_is_printed(tmp_path: Path) -> None:
    for number in (1, 2):
        server = SimulatedServer(tmp_path / f"h{number}", number, 2, "ascend950")
        for npu in server.npus[2:]:
            (server.dev / f"davinci{npu.phy}").unlink()
        del server.npus[2:]
        server.tell()
        server.finish()
    done = discover(tmp_path, "--hosts", "h1,h2")
    assert done.returncode == 0 and done.stderr.startswith("note: a rank table is needed")
    (tmp_path / "cluster.yaml").write_text(done.stdout)
    with pytest.raises(UserError, match=r"hccl\.json: cannot be read"):
        load_cluster(str(tmp_path / "cluster.yaml"))
    table = json.dumps(ranks()).replace("server0", "h1").replace("server1", "h2")
    (tmp_path / "hccl.json").write_text(table)
    cluster = load_cluster(str(tmp_path / "cluster.yaml"))
    assert (cluster.device_kind, cluster.world_size) == ("ascend950", 4)
    assert [(host.name, host.address) for host in cluster.hosts] == [("h1", "10.0.0.1"), ("h2", "10.0.0.2")]


def test_a_single_950_needs_no_rank_table() -> None:
    assert "rank_table" not in discovery.cluster_text([found(count=1, name="950PR")])


def test_hosts_are_names(tmp_path: Path) -> None:
    done = discover(tmp_path, "--hosts", "h1,,h2")
    assert done.returncode == 2 and "--hosts h1,,h2: expected names, each once" in done.stderr
