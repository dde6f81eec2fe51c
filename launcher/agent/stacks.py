"""Where every process of a host is, as stacks at the end of its log: the last thing before a stop.

Python stacks by SIGUSR1 to those that catch it (the trainer's faulthandler answers even inside a collective);
native ones by py-spy where it is installed and may look.
"""

from __future__ import annotations

import collections
import os
import shutil
import signal
import subprocess
import sys
import time

from launcher.agent import probe, processes

SPY_LIMIT_S = 10.0  # for all of py-spy: large native libraries take it seconds
ANSWER_S = 2.0  # for the answers to a SIGUSR1
ROUND_S = 0.05

Target = collections.namedtuple("Target", "process log")  # of processes.look; path of its log


def start(targets: list[Target]) -> int:
    """Does `dump` in a child process, which ends with this one; returns its id, for the caller to reap."""
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            processes.die_with_parent(parent)
            dump(targets)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def dump(targets: list[Target]) -> None:
    """Appends stacks to the logs, in this order where time does not do for all; bounded by the limits above.

    A stopped process can not answer: py-spy reads it as it stands. Only where that is not to be had is it
    woken, and its answer then comes before it goes on.
    """
    stopped = [target for target in targets if _is_stopped(target)]
    _ask([target for target in targets if target not in stopped])
    seen = _spy(targets, stopped)
    asleep = [target for target in stopped if target not in seen]
    _ask(asleep)
    for target in asleep:
        processes.send(target.process, signal.SIGCONT)
    _await_answers(asleep)


def _is_stopped(target: Target) -> bool:
    now = processes.look(target.process.pid)
    return now is not None and now.state == "T"


def _ask(targets: list[Target]) -> None:
    """SIGUSR1 to those that catch it; the others would die of it."""
    for target in targets:
        if probe.has_signal(target.process.pid, "SigCgt", signal.SIGUSR1):
            processes.send(target.process, signal.SIGUSR1)
    _await_answers([target for target in targets if not _is_stopped(target)])


def _await_answers(targets: list[Target]) -> None:
    """Until every signal is delivered and the logs have stopped growing."""
    end = time.monotonic() + ANSWER_S
    before = None
    while time.monotonic() < end:
        waiting = any(probe.has_signal(t.process.pid, "ShdPnd", signal.SIGUSR1) for t in targets)
        now = [_size(target.log) for target in targets]
        if not waiting and now == before:
            return
        before = now
        time.sleep(ROUND_S)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def spy_program() -> str | None:
    """py-spy's path, None where it is not installed."""
    own = os.path.dirname(sys.executable)  # noqa: PTH120  a virtual environment need not be on PATH
    return shutil.which("py-spy", path=os.pathsep.join([os.environ.get("PATH", ""), own]))


def _spy(targets: list[Target], stopped: list[Target]) -> list[Target]:
    """py-spy on as many at a time as there are cores; returns whose stacks it wrote."""
    program = spy_program()
    if program is None:
        return []
    end = time.monotonic() + SPY_LIMIT_S
    todo, seen = list(targets), []
    running: dict[Target, subprocess.Popen] = {}
    while (todo or running) and time.monotonic() < end:
        while todo and len(running) < (os.cpu_count() or 1):
            target = todo.pop(0)
            # it can not trace native frames of what is stopped already
            way = "--nonblocking" if target in stopped else "--native"
            with open(target.log, "ab") as log:  # noqa: PTH123
                argv = [program, "dump", way, "--pid", str(target.process.pid)]
                running[target] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        time.sleep(ROUND_S)
        for target, spy in list(running.items()):
            if spy.poll() is not None:
                del running[target]
                seen += [target] if spy.returncode == 0 else []
    for spy in running.values():
        spy.kill()
        spy.wait()
    return seen
