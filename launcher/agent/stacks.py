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

Target = collections.namedtuple("Target", "name process log")  # process: of processes.look; log: its path


def start(targets: list[Target]) -> tuple[int, int]:
    """Does `dump` in a child process, which ends with this one.

    Returns its id, for the caller to reap, and a pipe that then holds the names of whose stacks were taken.
    """
    parent = os.getpid()
    answer, own = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            processes.die_with_parent(parent)
            os.write(own, " ".join(dump(targets)).encode())
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(own)
    return child, answer


def dump(targets: list[Target]) -> list[str]:
    """Appends stacks to the logs, in this order where time does not do for all; bounded by the limits above.

    A stopped process can not answer: py-spy reads it as it stands. Only where that is not to be had is it
    woken, and its answer then comes before it goes on. Returns the names of whose stacks there are now.
    """
    stopped = [target for target in targets if _is_stopped(target)]
    taken = _ask([target for target in targets if target not in stopped])
    taken += _spy(targets, stopped)
    taken += _ask([target for target in stopped if target not in taken], wake=True)
    return sorted({target.name for target in taken})


def _is_stopped(target: Target) -> bool:
    now = processes.look(target.process.pid)
    return now is not None and now.state == "T"


def _ask(targets: list[Target], wake: bool = False) -> list[Target]:
    """SIGUSR1 to those that catch it; the others would die of it. Returns whose logs have grown of it."""
    asked = [t for t in targets if probe.has_signal(t.process.pid, "SigCgt", signal.SIGUSR1)]
    before = [_size(target.log) for target in asked]
    for target in asked:
        processes.send(target.process, signal.SIGUSR1)
        if wake:
            processes.send(target.process, signal.SIGCONT)
    _await_answers(asked, before)
    return [target for target, size in zip(asked, before) if _size(target.log) > size]


def _await_answers(targets: list[Target], before: list[int]) -> None:
    """Until every signal is delivered, every log has grown, and none grows any more."""
    end = time.monotonic() + ANSWER_S
    last: list[int] = []
    while time.monotonic() < end:
        waiting = any(probe.has_signal(t.process.pid, "ShdPnd", signal.SIGUSR1) for t in targets)
        now = [_size(target.log) for target in targets]
        if not waiting and now == last and all(size > old for size, old in zip(now, before)):
            return
        last = now
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
