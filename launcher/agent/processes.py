"""Processes as /proc shows them: who descends from whom, who carries a run's token; and how to end them.

A process is (id, start time): an id alone may belong to somebody else by the time that it is killed.
"""

from __future__ import annotations

import collections
import ctypes
import os
import signal
import time

TOKEN = "FCN_RUN_TOKEN"  # in the environment of every process of a run
KILL_LIMIT_S = 5.0  # a process that outlives SIGKILL so long is blocked in the kernel
KILL_ROUND_S = 0.005

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

Process = collections.namedtuple("Process", "pid parent state start")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def become_subreaper() -> None:
    """Orphans among our descendants become our children, also those that made a session of their own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when the thread that forked it ends; for the first lines of a child.

    The check closes the race with a parent that died before the call.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def look(pid: int) -> Process | None:
    """The process with this id, None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # the name, in brackets, may itself hold blanks and brackets
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), fields[0].decode(), int(fields[19]))


def _all() -> list[Process]:
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return [process for process in found if process is not None]


def descendants(root: int) -> list[Process]:
    """Every living process below `root`; zombies are dead."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    result, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        result += below
        queue += [process.pid for process in below]
    return [process for process in result if process.state not in "ZX"]


def tagged(token: str) -> list[Process]:
    """Every living process, ourselves excepted, that carries the run's token and may be read by this user."""
    entry = f"{TOKEN}={token}".encode()
    result = []
    for process in _all():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:  # noqa: PTH123
                if process.pid != os.getpid() and entry in file.read().split(b"\0"):
                    result.append(process)
        except OSError:
            continue
    return [process for process in result if process.state not in "ZX"]


def send(process: Process, number: int) -> None:
    """A signal, unless the id belongs to another process by now."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # Linux before 5.3, or a Python built for one: the check alone must do
        handle = -1
    try:
        now = look(process.pid)
        if now is None or now.start != process.start:
            return
        if handle < 0:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        if handle >= 0:
            os.close(handle)


def _kill_until_none(find) -> list[int]:  # type: ignore[no-untyped-def]
    """Kills what `find` finds until it finds nothing: what is forked meanwhile is found the next time."""
    end = time.monotonic() + KILL_LIMIT_S
    while True:
        alive = find()
        if not alive or time.monotonic() > end:
            return [process.pid for process in alive]
        for process in alive:
            send(process, signal.SIGKILL)
        time.sleep(KILL_ROUND_S)


def kill_descendants() -> list[int]:
    """Ends every process below this one and returns the ids of those that SIGKILL could not end."""
    return _kill_until_none(lambda: descendants(os.getpid()))


def sweep(token: str) -> list[int]:
    """Ends every process of a run on this host, for what outlived its guard; returns what remains."""
    return _kill_until_none(lambda: tagged(token))
