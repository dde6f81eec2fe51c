"""The guard: parent of the agent and of every orphan below it. It waits for one thing, and then kills.

It shares the lease with the agent: both watch stdin, so that a stopped or stuck agent loses it too. And each
of the two watches the other through a pipe that only the other holds open: no single death goes unnoticed.
"""

from __future__ import annotations

import os
import select

from launcher.agent import processes


def main(options: dict) -> int:
    """Runs the agent; returns its exit code when it has ended and everything below it too.

    options: keyword arguments of `observe.facts`.
    """
    processes.become_subreaper()
    guard_life, guard_held = os.pipe()
    agent_life, agent_held = os.pipe()
    agent = os.fork()
    if agent == 0:
        os.close(guard_held)
        os.close(agent_life)
        _agent(guard_life, options)
    os.close(guard_life)
    os.close(agent_held)

    poll = select.poll()
    poll.register(0, select.POLLRDHUP)  # the end of a socket; the end of a pipe is reported unasked
    poll.register(agent_life, 0)
    poll.poll()
    processes.kill_descendants()
    return os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) & 0xFF


def _agent(guard_life: int, options: dict) -> None:
    code = 1
    try:
        from launcher.agent import agent  # after the fork: the guard needs none of it

        agent.serve(guard_life, options)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
