"""Nothing is left behind, whoever dies. These workers ignore SIGTERM; each has a child in its own session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from launching import (
    FOREVER,
    STUBBORN,
    AgentProcess,
    closing,
    environment,
    light,
    only_child,
    until_gone,
    wait_dead,
)

from launcher.agent import processes
from launcher.protocol import FROZEN_S


@pytest.fixture
def agent(tmp_path):
    with closing() as made:
        agent = AgentProcess()
        made.append(agent)
        agent.until("hello")
        agent.start(tmp_path, light(0, *STUBBORN), light(1, *STUBBORN))
        agent.until_training(2)
        assert len(processes.tagged(agent.token)) == 8  # guard, agent, and two workers with two children each
        yield agent


def test_the_supervisor_dies(agent):
    agent.hang_up()
    until_gone(agent.token)


def test_the_guard_dies(agent):
    agent.process.kill()
    until_gone(agent.token)


def test_the_guard_dies_after_a_worker_has_left_orphans(agent):
    os.kill(agent.all("started")[0]["pid"], signal.SIGKILL)
    agent.until("exit", name="rank-00")
    agent.process.kill()
    until_gone(agent.token)


def test_the_agent_dies(agent):
    os.kill(only_child(agent.process.pid), signal.SIGKILL)
    until_gone(agent.token)


def test_the_guard_and_the_supervisor_die(agent):
    agent.process.kill()
    agent.hang_up()
    until_gone(agent.token)


def test_the_supervisor_dies_while_the_agent_is_stopped(agent):
    os.kill(only_child(agent.process.pid), signal.SIGSTOP)
    agent.hang_up()
    until_gone(agent.token)


def test_the_supervisor_dies_while_the_guard_is_stopped(agent):
    agent.process.send_signal(signal.SIGSTOP)
    agent.hang_up()
    for process in processes.tagged(agent.token):
        if process.pid != agent.process.pid:
            wait_dead(process)
    agent.process.send_signal(signal.SIGCONT)
    until_gone(agent.token)


@pytest.fixture
def leased(tmp_path):
    """An agent as on another host: silence ends its lease. It has heard nothing since its start."""
    with closing() as made:
        agent = AgentProcess("--lease", "3")
        made.append(agent)
        agent.until("hello")
        agent.start(tmp_path, light(0, *STUBBORN))
        agent.until_training(1)
        yield agent


def test_facts_may_take_longer_than_the_lease(tmp_path):
    tool = tmp_path / "hccn_tool"
    tool.write_text("#!/bin/sh\nsleep 1\necho ipaddr:10.0.0.1\necho netmask:255.0.0.0\n")
    tool.chmod(0o755)
    with closing() as made:
        made.append(AgentProcess("--lease", "0.1", "--devices", "0", PATH=f"{tmp_path}:{os.environ['PATH']}"))
        assert made[0].until("hello")["facts"]["device_ips"] == {"0": "10.0.0.1"}


def test_the_supervisor_is_silent(leased):
    until_gone(leased.token)
    assert {"event": "done", "left": []} in leased.rest()


def test_who_was_frozen_listens_before_it_counts_the_silence(tmp_path):
    with closing() as made:
        agent = AgentProcess("--lease", "1")
        made.append(agent)
        agent.until("hello")
        agent.start(tmp_path, light(0, *FOREVER))
        while not agent.all("started") or agent.seen[-1]["event"] != "pong":
            agent.send("ping", id=0)  # a busy machine may take longer than the lease
            agent.next()
        frozen = [only_child(agent.process.pid), agent.process.pid]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1 + FROZEN_S + 0.6)  # also of the guard, whose lease is a little longer
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)  # a launcher that was frozen too speaks a moment later
        agent.send("ping", id=1)
        agent.until("pong", id=1)
        assert processes.look(agent.all("started")[0]["pid"]).state in "RS"


def test_the_supervisor_is_silent_while_the_agent_is_stopped(leased):
    os.kill(only_child(leased.process.pid), signal.SIGSTOP)
    until_gone(leased.token)


def test_the_supervisor_is_silent_while_the_guard_is_stopped(leased):
    leased.process.send_signal(signal.SIGSTOP)
    for process in processes.tagged(leased.token):
        if process.pid != leased.process.pid:
            wait_dead(process)


def test_the_agent_dies_while_the_guard_is_stopped(agent):
    """The supervisor learns of it, and its sweep ends what the guard does not."""
    agent.process.send_signal(signal.SIGSTOP)
    os.kill(only_child(agent.process.pid), signal.SIGKILL)
    assert "done" not in [event["event"] for event in agent.rest()]


def kill_guard_and_agent(agent):
    inner = only_child(agent.process.pid)
    agent.process.send_signal(signal.SIGSTOP)
    os.kill(inner, signal.SIGSTOP)
    os.kill(inner, signal.SIGKILL)
    agent.process.kill()
    agent.process.wait()


def test_what_outlives_guard_agent_and_supervisor_ends_when_the_host_is_next_used(agent):
    kill_guard_and_agent(agent)
    agent.hang_up()
    for started in agent.all("started"):
        process = processes.look(started["pid"])
        if process is not None:
            wait_dead(process)
    left = [process.pid for process in processes.tagged(agent.token)]
    assert left
    with closing() as made:
        made.append(AgentProcess())
        assert set(made[0].until("abandoned")["pids"]) >= set(left)
    until_gone(agent.token)


def test_what_is_watched_over_is_not_taken_for_abandoned(agent):
    assert not {p.pid for p in processes.abandoned()} & {p.pid for p in processes.tagged(agent.token)}


def test_guard_and_agent_die_together_then_the_workers_die_and_the_sweep_finds_the_rest(agent):
    """What the kernel does by itself: the workers; their children in other sessions carry the token."""
    workers = [started["pid"] for started in agent.all("started")]
    kill_guard_and_agent(agent)
    left = processes.tagged(agent.token)
    command = [sys.executable, "-S", "-m", "launcher.agent", "--sweep", agent.token]
    assert subprocess.run(command, env=environment()).returncode == 0
    until_gone(agent.token)
    assert left
    assert not {process.pid for process in left} & set(workers)


def test_the_sweep_leaves_other_runs_alone(agent):
    command = [sys.executable, "-S", "-m", "launcher.agent", "--sweep", "0" * 16]
    assert subprocess.run(command, env=environment()).returncode == 0
    assert len(processes.tagged(agent.token)) == 8


def test_a_process_that_got_a_dead_ones_id_is_not_killed():
    child = subprocess.Popen(["sleep", "600"])
    try:
        found = processes.look(child.pid)
        processes.send(found._replace(start=found.start - 1), signal.SIGKILL)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        processes.send(found, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_a_process_whose_name_looks_like_fields_is_read_right(tmp_path):
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "600"])
    try:
        assert processes.look(child.pid).parent == os.getpid()
    finally:
        child.kill()
        child.wait()
