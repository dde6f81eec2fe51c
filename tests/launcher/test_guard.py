"""Nothing is left behind, whoever dies. These workers ignore SIGTERM; each has a child in its own session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from launching import FOREVER, AgentProcess, closing, environment, light, only_child, until_gone, wait_dead

from launcher.agent import processes

STUBBORN = (*FOREVER, "term=ignore", "children=1")


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


def test_guard_and_agent_die_together_then_the_workers_die_and_the_sweep_finds_the_rest(agent):
    """What the kernel does by itself: the workers; their children in other sessions carry the token."""
    workers = [started["pid"] for started in agent.all("started")]
    inner = only_child(agent.process.pid)
    agent.process.send_signal(signal.SIGSTOP)
    os.kill(inner, signal.SIGSTOP)
    os.kill(inner, signal.SIGKILL)
    agent.process.kill()
    agent.process.wait()
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
