"""The guard: parent of the agent and of every orphan below it. It waits for one thing, and then kills.

It shares the lease with the agent: both watch stdin, so that a stopped or stuck agent loses it too; where the
lease also ends by silence, it listens for the agent's word that somebody was heard. And each of the two
watches the other through a pipe that only the other holds open: no single death goes unnoticed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

from launcher.agent import processes
from launcher.protocol import FROZEN_S, LISTEN_S, encode

AGENT_MARGIN_S = 0.5  # for the agent, which loses the lease with us, to end everything and to say so


def main(options: dict, lease_s: float | None = None) -> int:
    """Runs the agent; returns its exit code when it has ended and everything below it too.

    options: keyword arguments of `observe.facts`. lease_s: silence of the supervisor that ends the lease.
    """
    processes.become_subreaper()
    guard_life, guard_held = os.pipe()
    agent_life, agent_held = os.pipe()
    agent = os.fork()
    if agent == 0:
        os.close(guard_held)
        os.close(agent_life)
        _agent(guard_life, agent_held, lease_s, options)
    os.close(guard_life)
    os.close(agent_held)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the channel is the agent's alone: its end is told even if we are stopped
    os.close(null)
    _end_abandoned(guard_held)

    _await_the_end(agent_life, lease_s)
    processes.kill_descendants()
    code = os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # in a container its first process may reap nothing
            pass
    return code if code >= 0 else 128 - code  # of a signal, as shells have it


def _await_the_end(agent_life: int, lease_s: float | None) -> None:
    """Until the lease is over or the agent has ended, which hears nobody before its facts are complete."""
    poll = select.poll()
    poll.register(0, select.POLLRDHUP)  # the end of a socket; the end of a pipe is reported unasked
    poll.register(agent_life, select.POLLIN)
    wait_s = None  # silence counts from its first word on
    while True:
        limit_s = float("inf") if wait_s is None else wait_s + AGENT_MARGIN_S
        began = time.monotonic()
        # After a SIGSTOP over its end the first returns without a look at what has come.
        ready = poll.poll(None if wait_s is None else limit_s * 1000) or poll.poll(0)
        if ready == [(agent_life, select.POLLIN)]:
            os.read(agent_life, 4096)
            wait_s = lease_s
        elif not ready and time.monotonic() > began + limit_s + FROZEN_S:
            wait_s = LISTEN_S  # we were stopped: the agent may have been too, and is to be heard first
        else:
            return


def _end_abandoned(agent_ear: int) -> None:
    """Ends what a run left here whose guard, agent and supervisor were all killed: nobody else will."""
    found = processes.abandoned()
    for process in found:
        processes.send(process, signal.SIGKILL)
    if found:
        os.write(agent_ear, encode({"event": "abandoned", "pids": [process.pid for process in found]}))


def _agent(guard_life: int, guard_ear: int, lease_s: float | None, options: dict) -> None:
    code = 1
    try:
        from launcher.agent import agent  # after the fork: the guard needs none of it

        agent.serve(guard_life, guard_ear, lease_s, options)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
