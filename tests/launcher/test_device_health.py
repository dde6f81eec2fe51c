"""Devices while a training runs: their figures, and who suffers when one falls ill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
from launching import FOREVER, LIMIT_S, Launch, closing, environment
from simulated_servers import SimulatedServer, cluster_file

from launcher import device_health
from launcher.agent.device_watch import DeviceWatch
from launcher.device_health import DeviceHealth, changes


def npu(device: int, **values: Any) -> Dict[str, Any]:
    numbers = {"id": device, "card": device, "chip": 0, "codes": []}
    figures = {"temp_c": 46.0, "power_w": 88.4, "hbm_used_mb": 3400, "hbm_mb": 65536, "aicore": 7.0}
    return {**numbers, **figures, "health": "OK", **values}


class Reporter:
    def __init__(self) -> None:
        self.events: List[Dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def warn(self, text: str) -> None:
        self.emit("warning", text=text)

    def names(self) -> List[str]:
        names = [event["event"] for event in self.events]
        self.events.clear()
        return names


class Process:
    def __init__(self, rank: int, device_id: int) -> None:
        self.host, self.rank, self.device_id = "h1", rank, device_id


RANKS = [Process(0, 4), Process(1, 5)]


def test_a_change_is_told_once_and_first_all_are_held_to_be_well() -> None:
    assert changes([], [npu(0), npu(1, health="Warning")]) == [
        {"device": 1, "health": "Warning", "was": "OK", "codes": [], "card": 1, "chip": 0}
    ]
    sick = [npu(0, health="Alarm", codes=["80E0"])]
    assert changes([npu(0)], sick)[0]["codes"] == ["80E0"]
    assert changes(sick, sick) == []
    assert changes(sick, [npu(0)])[0]["was"] == "Alarm"


@pytest.mark.parametrize("said", ["Alarm", "Critical", "UNKNOWN"])
@pytest.mark.parametrize(
    ("device", "rank", "text"),
    [(5, 1, "rank 1 may fail, or hang with all others"), (6, None, "no rank uses it")],
)
def test_the_rank_that_will_suffer_is_named(device: int, rank: Any, text: str, said: str) -> None:
    reporter = Reporter()
    health = DeviceHealth(reporter)
    health.heard("h1", {"devices": [npu(device, health=said, codes=["80E0"])]}, RANKS)
    event, warning, _ = reporter.events
    told = (event["event"], event["host"], event["rank"], event["health"])
    assert told == ("device_health", "h1", rank, said)
    start = f"host h1: npu-smi calls device {device} {said} (error code 80E0), before OK: {text}; leave it"
    assert warning["text"].startswith(start)


def test_figures_reach_the_journal_now_and_then_and_always_when_health_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reporter = Reporter()
    health = DeviceHealth(reporter)
    assert health.figures("h1") == {}
    health.heard("h1", {"devices": [npu(0), npu(1)]}, RANKS)
    assert reporter.events[0]["temp_c"] == [46.0, 46.0] and reporter.names() == ["devices"]
    health.heard("h1", {"devices": [npu(0), npu(1, temp_c=50.0)]}, RANKS)
    assert reporter.names() == [] and health.figures("h1")["devices"]["temp_c"] == [46.0, 50.0]
    health.heard("h1", {"devices": [npu(0), npu(1, health="Warning")]}, RANKS)
    assert reporter.names() == ["device_health", "devices"]
    monkeypatch.setattr(device_health, "JOURNAL_EVERY_S", 0)
    health.heard("h1", {"devices": [npu(0), npu(1, health="Warning")]}, RANKS)
    assert reporter.names() == ["devices"]


def test_why_nothing_is_known_is_told_once() -> None:
    reporter = Reporter()
    health = DeviceHealth(reporter)
    for told in (
        {"unknown": "it hangs"},
        {"unknown": "it hangs"},
        {"devices": [npu(0)]},
        {"unknown": "it hangs"},
    ):
        health.heard("h1", told, RANKS)
    assert reporter.names() == ["warning", "devices", "warning"]


def test_without_devices_nothing_is_asked() -> None:
    watch = DeviceWatch()
    assert watch.news() is None and watch.news() is None


def test_whatever_is_in_the_way_of_a_question_is_told() -> None:
    code = """
import resource
from launcher import devices
from launcher.agent.device_watch import DeviceWatch
watch, told = DeviceWatch((0,)), None
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # no folder can be opened
while told is None:
    told = watch.news()
print("told", *told)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "told unknown\n", done.stderr


@pytest.mark.slow  # the agent is asked every two seconds
def test_a_device_that_falls_ill_in_a_running_attempt_is_an_event_with_its_rank(tmp_path: Path) -> None:
    server = SimulatedServer(tmp_path / "h1", 1, 1)
    server.ips = {3: server.ips[3]}
    path = cluster_file(tmp_path, [server], timeouts={"start_s": 15, "grace_s": 1})
    with closing() as made:
        launch = Launch(tmp_path, path.read_text(), *FOREVER)
        made.append(launch)
        first = launch.until("devices")
        assert (first["device"], first["health"], first["hbm_used_mb"]) == ([3], ["OK"], [3400])
        server.sicken(5, "Alarm", "80E0")  # which nobody here uses
        server.sicken(3, "Critical", "80E01801 80E18402")
        event = launch.until("device_health")
        told = (event["host"], event["device"], event["rank"], event["health"], event["was"])
        assert told == ("h1", 3, 0, "Critical", "OK") and event["codes"] == ["80E01801", "80E18402"]
        assert "rank 0 may fail" in launch.until("warning")["text"]
        launch.until("devices", health=["Critical"])
        end = time.monotonic() + LIMIT_S
        while status(launch).get("devices", {}).get("health") != ["Critical"]:
            assert time.monotonic() < end, status(launch)
            launch.next()
        launch.signal(signal.SIGINT)
        assert launch.finish() == 130
        journal = [json.loads(line) for line in (launch.run / "events.jsonl").read_text().splitlines()]
        assert [e["rank"] for e in journal if e["event"] == "device_health"] == [0]
        assert {"devices", "warning"} <= {e["event"] for e in journal}


def status(launch: Launch) -> Dict[str, Any]:
    return dict(json.loads((launch.run / "status.json").read_text())["hosts"].get("h1", {}))


def test_a_training_does_not_start_on_a_device_that_is_ill(tmp_path: Path) -> None:
    server = SimulatedServer(tmp_path / "h1", 1, 1)
    server.ips = {3: server.ips[3]}
    server.sicken(3, "Alarm", "80E0")
    with closing() as made:
        launch = Launch(tmp_path, cluster_file(tmp_path, [server]).read_text(), *FOREVER)
        made.append(launch)
        assert launch.finish() == 3
        assert launch.all("started") == []
        assert (
            "error: h1 device 3: npu-smi says Alarm (error code 80E0); the worker on it fails"
            in launch.said()
        )
