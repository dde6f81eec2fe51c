"""`fcn-launch doctor` over eight servers, well and with faults: the whole path, with processes and files."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
from launching import REPOSITORY, closing, environment
from simulated_servers import SimulatedServer, cluster_file, make

from launcher.cluster import load_cluster
from launcher.engines import ENGINES
from launcher.engines.link import EXIT_LIMIT_S, AgentLink

DATA = "/proc/self/cwd/voc.mindrecord"  # each host has its own there


def doctor(folder: Path, cluster: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launcher", "--cluster", str(cluster), "--runs", str(folder), "doctor"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )


def findings(done: subprocess.CompletedProcess) -> List[Dict[str, Any]]:
    """But for what this machine itself gives reason for."""
    told = json.loads(done.stdout)["findings"]
    return [finding for finding in told if "not reserved" not in finding["what"]]


class Holder:
    """A process of somebody else's: it listens, or just lives."""

    def __init__(self, address: str, port: int) -> None:
        program = (
            "import socket, sys, time\n"
            "held = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
            "print(flush=True)\ntime.sleep(600)\n"
        )
        command = [sys.executable, "-S", "-c", program, address, str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holders() -> Iterator[List[Holder]]:
    with closing() as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Faults = Dict[Tuple[str, Optional[int]], List[str]]  # culprit -> what is to be said of it


def break_devices(servers: List[SimulatedServer], holder: Holder) -> Faults:
    h1, h2, h3, h4, h5, h6, h7, h8 = servers
    h1.sicken(3, "Alarm", "80E01801 80E18402")
    name = Path(f"/proc/{holder.process.pid}/comm").read_text().strip()
    h2.npus[0].processes = [(holder.process.pid, name, 30780)]
    h2.tell()
    h3.card(5, link="DOWN")
    h4.card(6, net_health="Fault")
    h5.card(1, ip="192.1.27.77")
    h5.ping(2, h6.ips[2], received=0)
    h6.ping(2, h7.ips[2], received=0)
    h7.card(4, tls="1")
    (h7.dev / "davinci7").unlink()
    h7.npus.pop()
    h7.tell()
    text = (h8.answers / "npu-smi info").read_text()
    h8.answer("npu-smi info", text[: len(text) // 2])
    return {
        ("h1", 3): ["npu-smi says Alarm (error code 80E01801 80E18402)"],
        ("h2", 0): [f"30780 MB of it are in use by process {holder.process.pid} ({name}) of user "],
        ("h3", 5): ["the link of its network card is down"],
        ("h4", 6): ["net health of its network card: Fault"],
        ("h5", 1): ["has the address 192.1.27.77, but "],
        ("h6", 2): ["it and device 2 of h5 and device 2 of h7 do not reach each other"],
        ("h7", 4): ["TLS is on on its network card, and off on most others"],
        ("h7", 7): ["is not there (no /dev/davinci7; there are: 0, 1, 2, 3, 4, 5, 6)"],
        ("h8", None): ["not known are npus: the output of npu-smi cannot be trusted"],
    }


def break_hosts(servers: List[SimulatedServer], folder: Path, port: int) -> Faults:
    h1, h2, h3, h4, h5, h6, h7, h8 = servers
    h1.settings["disks_mb"][str(folder)] = 1_500
    h2.settings["hostname"] = "h1"
    (h2.folder / "voc.mindrecord").unlink()
    shutil.copytree(REPOSITORY / "fcn", h3.folder / "packages" / "fcn")
    with (h3.folder / "packages" / "fcn" / "model.py").open("a") as file:
        file.write("# changed\n")
    info = h4.folder / "cann" / "ascend_toolkit_install.info"
    info.write_text(info.read_text().replace("8.0.0", "8.0.1"))
    h4.settings["disks_mb"]["/dev/shm"] = 64
    driver = h5.folder / "version.info"
    driver.write_text(driver.read_text().replace("24.1.rc1", "24.1.rc2"))
    h5.limits = "ulimit -n 512"
    (h6.folder / "packages" / "mindspore-2.10.0.dist-info").rename(
        h6.folder / "packages" / "mindspore-2.10.1.dist-info"
    )
    h6.free_memory_mb(3_000)
    h7.settings["python"] = "3.10.4"
    h8.variables.clear()
    return {
        ("h1", None): [
            "1.5 GB are free at ",
            f"TCP port {port} is held by process ",
        ],
        ("h2", None): ["calls itself 'h1', as h1 does", f"{DATA} can not be read: No such file"],
        ("h3", None): ["the code of fcn-launch differs from that on most hosts"],
        ("h4", None): ["CANN 8.0.1, on most hosts 8.0.0", "shared memory (/dev/shm) is 64 MB"],
        ("h5", None): ["driver 24.1.rc2, on most hosts 24.1.rc1", "a process may open 512 files"],
        ("h6", None): ["MindSpore 2.10.1, on most hosts 2.10.0", "3.0 GB of memory are free for 8 workers"],
        ("h7", None): ["Python 3.10.4, on most hosts 3.11.7"],
        ("h8", None): ["CANN's set_env.sh is not sourced", "TCP port 60003 is held by process "],
    }


def shift_clock(server: SimulatedServer, seconds: float) -> bool:
    """Whether it could be done: there is a C compiler."""
    library = server.folder / "shifted_clock.so"
    source = REPOSITORY / "tests" / "hosts" / "shifted_clock.c"
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    server.variables.update(LD_PRELOAD=str(library), CLOCK_SHIFT_S=str(seconds))
    return True


def test_servers_that_are_well_pass(tmp_path: Path) -> None:
    done = doctor(tmp_path, cluster_file(tmp_path, make(tmp_path, 2)), "--data", DATA, "--json")
    assert findings(done) == [] and done.returncode == 0, done.stderr


def test_twenty_faults_on_eight_servers_are_found_each_with_its_culprit(
    tmp_path: Path, holders: List[Holder]
) -> None:
    servers = make(tmp_path, 8)
    port = free_port()
    holders += [Holder("127.0.0.1", port), Holder("127.0.0.8", 60003)]
    injected: List[Tuple[Tuple[str, Optional[int]], str]] = []
    for faults in (break_devices(servers, holders[0]), break_hosts(servers, tmp_path, port)):
        injected += [(culprit, words) for culprit, told in faults.items() for words in told]
    if shift_clock(servers[2], 4.0):
        injected.append((("h3", None), "its clock is 4.0 s ahead"))
    done = doctor(tmp_path, cluster_file(tmp_path, servers, master_port=port), "--data", DATA, "--json")
    told = [((f["host"], f["device"]), f["what"]) for f in findings(done)]
    for culprit, words in injected:
        assert [place for place, what in told if what.startswith(words)] == [culprit], (
            words,
            told,
            done.stderr,
        )
    assert len(told) == len(injected) >= 20, told
    assert all(f["causes"] and f["remedy"] for f in findings(done))
    assert done.returncode == 3
    print(f"{len(injected)} faults on 8 servers: all found in {json.loads(done.stdout)['seconds']} s")


def ports_held_at_the_start(path: Path) -> List[int]:
    """As the agent of the first host tells before a training."""
    cluster = load_cluster(str(path))
    argv = ENGINES[cluster.engine].agent_argv(cluster.hosts[0], cluster)
    link = AgentLink(cluster.hosts[0].name, argv, path.with_name("agent.log"), os.environ)
    try:
        while not link.ended:
            for message in link.read():
                if message["event"] == "hello":
                    return [held["port"] for held in message["facts"]["examined"]["ports"]]
    finally:
        link.close()
    raise AssertionError(link.said())


def test_a_start_looks_at_the_ports_that_the_file_gives_hccl_at_the_hosts_address(
    tmp_path: Path, holders: List[Holder]
) -> None:
    servers, port = make(tmp_path, 1), free_port()
    holders.append(Holder(servers[0].address, port))  # not at every address, as HCCL listens
    given = {"HCCL_IF_BASE_PORT": str(port)}
    assert port in ports_held_at_the_start(cluster_file(tmp_path, servers, env=given))
    servers[0].variables.update(given)
    assert port in ports_held_at_the_start(cluster_file(tmp_path, servers))
    given = {"HCCL_IF_BASE_PORT": str(port + 1)}  # the remedy
    assert port not in ports_held_at_the_start(cluster_file(tmp_path, servers, env=given))


def test_many_ways_that_end_without_their_processes_are_awaited_together(tmp_path: Path) -> None:
    prefix = ["sh", "-c", "exec >&-; exec sleep 600"]
    hosts = [
        {"name": f"h{n}", "address": f"127.0.0.{n}", "devices": 1, "prefix": prefix} for n in range(1, 31)
    ]
    path = tmp_path / "cluster.yaml"
    path.write_text(json.dumps({"device_kind": "cpu", "engine": "exec", "hosts": hosts}))
    began = time.monotonic()
    done = doctor(tmp_path, path)
    assert time.monotonic() - began < len(hosts) * EXIT_LIMIT_S  # one after the other
    assert done.returncode == 3 and "and 22 more: its output ended; try" in done.stdout


def test_a_server_that_cannot_be_reached_and_one_that_hangs_are_told(tmp_path: Path) -> None:
    servers = make(tmp_path, 4)
    servers[3].settings["tool_limit_s"] = 0.5
    servers[3].hang("npu-smi info")
    path = cluster_file(tmp_path, servers)
    (servers[1].folder / "inside").write_text("#!/bin/sh\necho no route to host >&2\nexit 255\n")
    (servers[2].folder / "inside").unlink()
    done = doctor(tmp_path, path)
    assert done.returncode == 3
    assert "FAIL  h2: exit code 255; no route to host; try the command by hand: " in done.stdout
    assert "FAIL  h3: host h3: its agent can not be started: No such file" in done.stdout
    assert "warn  h4: not known are npus: npu-smi did not answer within 0.5 s" in done.stdout
