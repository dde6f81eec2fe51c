"""What the agent sees of its host and of its workers: times, pings, health, kills for lack of memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from launching import (
    FOREVER,
    AgentProcess,
    light,
    only_child,
    python,
    sitecustomize,
    until_gone,
    wait_dead,
)

from launcher.agent import processes
from launcher.agent.health import SLOW_S


def test_an_error_has_the_workers_own_time_however_late_the_agent_wakes(agent, tmp_path):
    """Rank 1's pipe is readable first, but its error came last."""
    agent.start(tmp_path, light(0, *FOREVER), light(1, *FOREVER))
    agent.until_training(2)
    inner = only_child(agent.process.pid)
    os.kill(inner, signal.SIGSTOP)
    pids = {e["rank"]: e["pid"] for e in agent.all("started")}
    for rank, event in ((1, "note"), (0, "error"), (1, "error")):
        tell(pids[rank], {"event": event, "time_ns": time.time_ns()})
    tell(pids[0], {"event": "error", "time_ns": time.time_ns() + 10**12})  # not a time to believe
    os.kill(inner, signal.SIGCONT)
    heard = told_errors(agent)
    errors = [next(heard) for _ in range(3)]
    first = min(errors, key=lambda e: e["time_ns"])
    assert (first["rank"], first["time_ns"]) == (0, first["data"]["time_ns"])
    assert max(e["time_ns"] for e in errors) <= time.time_ns()


def told_errors(agent):
    return (e for e in iter(agent.next, None) if e["event"] == "status" and e["data"]["event"] == "error")


def tell(pid, data):
    """Writes into a worker's status pipe as itself."""
    (pipe,) = [
        entry.partition(b"=")[2].decode()
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if entry.startswith(b"FCN_STATUS_FD=")
    ]
    with Path(f"/proc/{pid}/fd/{pipe}").open("wb", buffering=0) as file:
        file.write(json.dumps(data).encode() + b"\n")


@pytest.mark.parametrize("waiting", [0, 1], ids=["nothing before it", "an older line before it"])
def test_who_dies_without_a_word_came_before_an_error_that_follows(agent, tmp_path, waiting):
    agent.start(tmp_path, python(0, QUIET), python(1, QUIET))
    while len(agent.all("status")) < 2:
        agent.next()
    pids = {e["rank"]: e["pid"] for e in agent.all("started")}
    inner = only_child(agent.process.pid)
    os.kill(inner, signal.SIGSTOP)
    if waiting:
        tell(pids[0], {"event": "note"})
    dying = processes.look(pids[1])
    os.kill(dying.pid, signal.SIGKILL)
    wait_dead(dying)
    tell(pids[0], {"event": "error", "time_ns": time.time_ns()})
    os.kill(inner, signal.SIGCONT)
    error = next(told_errors(agent))
    (death,) = agent.all("exit") or [agent.until("exit")]
    assert death["time_ns"] < error["time_ns"]


def test_who_dies_after_an_error_does_not_come_before_it(agent, tmp_path):
    agent.start(tmp_path, python(0, QUIET), python(1, QUIET))
    while len(agent.all("status")) < 2:
        agent.next()
    pids = {e["rank"]: e["pid"] for e in agent.all("started")}
    tell(pids[0], {"event": "error", "time_ns": time.time_ns()})
    error = next(told_errors(agent))
    for number in (1, 2):  # it has woken anew since
        agent.send("ping", id=number)
        agent.until("pong", id=number)
    os.kill(pids[1], signal.SIGKILL)
    assert error["time_ns"] < agent.until("exit")["time_ns"]


def test_a_slow_death_begins_where_others_can_see_it(agent, tmp_path):
    """A process closes its connections before it is dead; on a busy machine others have erred by then."""
    code = (
        "import os, time; status = int(os.environ['FCN_STATUS_FD'])\n"
        'os.write(status, b\'{"event": "x"}\\n\')\n'
        "while not os.path.exists('go'): time.sleep(0.005)\n"
        "os.close(status); os.rename('go', 'gone'); time.sleep(0.1); os._exit(3)"
    )
    agent.start(tmp_path, python(0, QUIET), python(1, code))
    while len(agent.all("status")) < 2:
        agent.next()
    (tmp_path / "go").touch()
    while not (tmp_path / "gone").exists():
        time.sleep(0.001)
    tell(agent.all("started")[0]["pid"], {"event": "error", "time_ns": time.time_ns()})
    error = next(told_errors(agent))
    (death,) = agent.all("exit") or [agent.until("exit")]
    assert death["time_ns"] < error["time_ns"]


QUIET = (
    "import os, time; os.write(int(os.environ['FCN_STATUS_FD']), b'{\"event\": \"x\"}\\n'); time.sleep(600)"
)


def test_a_ping_is_answered_with_the_hosts_time_and_now_and_then_with_its_health(agent, tmp_path):
    before = time.time_ns()
    agent.send("ping", id=1)
    first = agent.until("pong")
    assert before <= first["time_ns"] <= time.time_ns()
    assert "health" not in first  # it does not know yet whose disk matters
    agent.start(tmp_path, light(0, *FOREVER))
    agent.until_training(1)
    agent.send("ping", id=2)
    health = agent.until("pong", id=2)["health"]
    disk = shutil.disk_usage(tmp_path)
    assert abs(health["disk_mb"] - disk.total // 10**6) <= 1
    assert 0 < health["memory_free_mb"] <= health["memory_mb"]
    assert 0 <= health["cpu"] <= 1
    agent.send("ping", id=3)
    assert "health" not in agent.until("pong", id=3)


@pytest.mark.skipif(any(Path("/dev").glob("davinci*")), reason="this machine has Ascend devices")
def test_devices_that_are_not_there_are_in_the_health(agents, tmp_path):
    agents.append(AgentProcess("--devices", "0,3"))
    agents[0].until("hello")
    agents[0].start(tmp_path, light(0, *FOREVER))
    agents[0].until_training(1)
    agents[0].send("ping", id=1)
    assert agents[0].until("pong")["health"]["devices_missing"] == [0, 3]


def test_a_file_system_that_hangs_holds_up_no_ping_and_is_told(agents, tmp_path):
    site = sitecustomize(tmp_path, "import os, time; os.statvfs = lambda path: time.sleep(3600)")
    agents.append(AgentProcess(flags=(), PYTHONPATH=site))
    agent = agents[0]
    agent.until("hello")
    agent.start(tmp_path, light(0, *FOREVER))
    agent.until_training(1)
    health = None
    while health is None:
        agent.send("ping", id=1)
        health = agent.until("pong").get("health")
        time.sleep(0.1)
    assert health["disk_silent_s"] >= SLOW_S


def test_a_ping_is_answered_while_many_processes_start(agent, tmp_path):
    agent.start(tmp_path, *(light(rank, *FOREVER) for rank in range(30)))
    agent.send("ping", id=1)
    agent.until("pong")
    assert len(agent.all("started")) < 30


def test_a_stop_ends_the_start_of_many(agent, tmp_path):
    agent.start(tmp_path, *(light(rank, *FOREVER) for rank in range(30)))
    agent.send("stop", grace_s=0)
    agent.rest()
    assert len(agent.all("started")) < 30
    assert len(agent.all("exit")) == len(agent.all("started"))
    until_gone(agent.token)


def test_a_kill_that_the_kernel_did_not_do_is_told_apart(agent, tmp_path):
    agent.start(tmp_path, python(0, "import os; os.kill(os.getpid(), 9)"))
    assert agent.until("exit")["out_of_memory"] is False


def test_a_worker_that_the_kernel_killed_for_its_memory(agents, tmp_path, small_memory):
    agents.append(
        AgentProcess(before=("sh", "-c", f'echo $$ > {small_memory}/cgroup.procs; exec "$@"', "sh"))
    )
    agents[0].until("hello")
    agents[0].start(tmp_path, python(0, "bytearray(10**9)"), light(1, *FOREVER))
    ended = agents[0].until("exit")
    assert (ended["name"], ended["signal"], ended["out_of_memory"]) == ("rank-00", signal.SIGKILL, True)
    agents[0].until_training(1)
    os.kill(agents[0].all("started")[1]["pid"], signal.SIGKILL)
    assert agents[0].until("exit", name="rank-01")["out_of_memory"] is False  # one kill explains one death


@pytest.fixture
def small_memory():
    """A control group of 200 MB, as a container has."""
    for mount, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        folder = Path(mount, f"fcn-launch-test-{os.getpid()}")
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / limit).exists():
            break
        folder.rmdir()
    else:
        pytest.skip("needs the right to make a control group with a memory limit")
    (folder / limit).write_text("200000000")
    yield folder
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            folder.rmdir()
            break
        except OSError:  # its last process is still on its way out
            time.sleep(0.05)
