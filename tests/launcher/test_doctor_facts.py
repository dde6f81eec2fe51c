"""What the doctor gathers on a host: facts of this machine, with real files and processes."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ascend_server import Server

from launcher import devices
from launcher.cluster import cluster_from, load_cluster
from launcher.doctor import CHECKS, ask, gather, host, judge, ports, software
from launcher.doctor.check import Check, Request, View

ONE = load_cluster("8xascend910.yaml")
TWO = load_cluster("2x8xascend910.yaml")


def test_a_port_is_told_with_the_process_that_holds_it_at_this_hosts_address() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.9", 0))
        holder.listen()
        port = holder.getsockname()[1]
        found = ports.gather_ports(Request(address="127.0.0.9", master_port=port))
        (taken,) = found
        assert (
            taken["port"] == port
            and taken["listens"]
            and f"process {os.getpid()} (" in taken["owner"]
            and "of user " in taken["owner"]
        )
        assert ports.gather_ports(Request(address="127.0.0.8", master_port=port)) == []
    assert ports.gather_ports(Request(address="127.0.0.9", master_port=port)) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (*range(60000, 60032), 16666)),
        ({"HCCL_IF_BASE_PORT": "61000"}, (*range(61000, 61032), 16666)),
        ({"HCCL_IF_BASE_PORT": "61000", "HCCL_HOST_SOCKET_PORT_RANGE": "50000-50050"}, (16666,)),
        ({"HCCL_HOST_SOCKET_PORT_RANGE": "auto", "HCCL_NPU_SOCKET_PORT_RANGE": "auto"}, ()),
    ],
)
def test_the_ports_of_hccl_are_those_that_the_hosts_environment_gives(
    monkeypatch: pytest.MonkeyPatch, environ: Dict[str, str], expected: Any
) -> None:
    for name in ("HCCL_IF_BASE_PORT", "HCCL_HOST_SOCKET_PORT_RANGE", "HCCL_NPU_SOCKET_PORT_RANGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ports.wanted(Request(devices=(0,))) == expected
    assert ports.wanted(Request(devices=(0,), master_port=29400)) == (*expected, 29400)
    assert ports.wanted(Request()) == ()


@pytest.mark.parametrize(
    ("range_", "reserved", "told"),
    [
        ("32768\t60999", "", "60000-60031"),
        ("1024\t65535", "8080,9000-9010", "8080,9000-9010,60000-60031"),  # 16666 is in it too
        ("32768\t60999", "60000-60015", "60000-60015,60016-60031"),
        ("32768\t60999", "50000-61000", None),
        ("32768\t59999", "", None),
    ],
)
def test_the_ports_of_hccl_are_reserved_besides_those_that_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, range_: str, reserved: str, told: Any
) -> None:
    monkeypatch.delenv("HCCL_IF_BASE_PORT", raising=False)
    monkeypatch.delenv("HCCL_HOST_SOCKET_PORT_RANGE", raising=False)
    for name, text in (("EPHEMERAL", range_), ("RESERVED", reserved)):
        (tmp_path / name).write_text(f"{text}\n")
        monkeypatch.setattr(ports, name, tmp_path / name)
    fact = ports.gather_reserved(Request(devices=(0,), master_port=50000))
    remedies = [found.remedy for found in judge(View(ONE, {"node1": {"reserved_ports": fact}}))]
    expected = f"`sysctl -w net.ipv4.ip_local_reserved_ports={told}`"
    assert remedies == ([] if told is None else [expected])


def test_each_host_is_asked_for_itself() -> None:
    asked = ask.requests(replace(TWO, master_port=29400), "/runs", ())["node2"]
    assert (asked.address, asked.master_port, asked.ping[0]) == ("10.0.0.2", 29400, "192.1.27.6")


def test_data_are_the_files_of_a_set_each_opened(tmp_path: Any) -> None:
    for name in ("x.mindrecord0", "x.mindrecord0.db", "x.mindrecord.json", "other"):
        (tmp_path / name).write_text(name)
    data = (f"{tmp_path}/x.mindrecord", str(tmp_path), f"{tmp_path}/absent")
    found = host.gather_data(Request(data=data))
    assert list(found[data[0]]["files"]) == ["x.mindrecord.json", "x.mindrecord0", "x.mindrecord0.db"]
    assert found[data[1]] == {"files": {tmp_path.name: None}}
    assert found[data[2]] == {"error": "No such file or directory"}


def test_this_host_tells_every_fact() -> None:
    lock, facts = threading.Lock(), []

    def tell(message: Dict[str, Any]) -> None:
        with lock:
            facts.append(message)

    gather.examine(Request(address="127.0.0.1", folder="/tmp"), [c for c in CHECKS if not c.ascend], tell)
    unknown = [fact for fact in facts if "unknown" in fact]
    assert unknown == [] and len(facts) == sum(not check.ascend for check in CHECKS)
    versions = next(fact["value"] for fact in facts if fact["name"] == "versions")
    assert versions["mindspore"].startswith("2.10") and versions["driver"] is None


def test_what_hangs_is_unknown_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "LIMIT_S", 0.2)
    over = threading.Event()
    told: List[Dict[str, Any]] = []
    stuck = Check("data", lambda request: over.wait(60), lambda view: iter(()))
    gather.examine(Request(), [stuck, *(check for check in CHECKS if check.name == "hostname")], told.append)
    over.set()
    unknown = {fact["name"]: fact["unknown"] for fact in told if "unknown" in fact}
    assert unknown == {"data": "no answer within 0.2 s"}


def test_cann_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    home = tmp_path / "cann"
    (home / "aarch64-linux").mkdir(parents=True)
    (home / "aarch64-linux" / "ascend_toolkit_install.info").write_text(
        "version=8.5.0\ninnerversion=V100R001C25SPC001B212\ncompatible_version=[V100R001C15],[V100R001C18]\n"
    )
    driver = tmp_path / "version.info"
    driver.write_text("Version=24.1.rc1\nInnerversion=V100R001C15SPC006B220\n")
    monkeypatch.setattr(software, "DRIVER_INFO", driver)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(home))
    found = software.gather_versions(Request())
    assert (found["cann"], found["driver"]) == ("8.5.0", "24.1.rc1")
    assert found["cann_fits"] == ["V100R001C15", "V100R001C18"]
    assert software.gather_environment(Request())["home"] == str(home)


def test_the_code_is_a_digest_of_its_files() -> None:
    assert software.gather_code(Request()) == software.gather_code(Request())


def test_the_owner_of_a_process_on_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    server = Server(tmp_path, "ascend910")
    own = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    server.npus[2].processes = [
        (os.getpid(), own[:4], 300),
        (os.getpid(), "other", 1),
        (999999999, own, 1),
    ]
    server.tell()
    monkeypatch.setattr(devices, "DEV", server.dev)
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    facts, unknown = gather.quick(Request(devices=tuple(range(8))))
    assert unknown == {}
    mine, of_a_container, gone = facts["npus"]["processes"]
    assert mine["owner"] is not None and of_a_container["owner"] is gone["owner"] is None
    assert facts["links"]["3"] == {"link": True, "net_health": "Success", "tls": False}


def test_a_host_that_does_not_answer_in_time_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ask, "LIMIT_S", 0.3)
    stuck = {"name": "h1", "address": "127.0.0.1", "prefix": ["sh", "-c", "exec sleep 60"], "devices": 1}
    cluster = cluster_from({"device_kind": "cpu", "engine": "exec", "hosts": [stuck]}, "test.yaml")
    view = ask.ask(cluster, ask.requests(cluster, str(tmp_path), ()), ["code", "disk"])
    (found,) = judge(view)
    assert (found.culprit, found.fatal) == ("h1", True)
    assert found.what.startswith("no answer within 0.3 s; try the command by hand: sh -c ")
