"""Processes as /proc shows them: who descends from whom, who carries a run's token; and how to end them.

A process is (id, start time): an id alone may belong to somebody else by the time that it is killed.
"""

from __future__ import annotations

import collections
import os
import signal
import time

TOKEN = "FCN_RUN_TOKEN"  # in the environment of every process of a run
GUARD = "FCN_RUN_GUARD"  # in the same: the guard above it, as `identity` writes it
KILL_LIMIT_S = 5.0  # a process that outlives SIGKILL so long is blocked in the kernel
KILL_ROUND_S = 0.005

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

Process = collections.namedtuple("Process", "pid parent state start")


def _prctl(option: int, value: int) -> None:
    import ctypes  # the launcher, which reads processes too, has no use for it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
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
    return [process for process, environ in _environments() if entry in environ]


def abandoned() -> list[Process]:
    """Every living process of a run whose guard has died, of whatever run, that may be read by this user.

    Only of our own PID namespace: in another one the guard's id, which it was given there, means another.
    """
    ours = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    prefix = f"{GUARD}=".encode()
    result = []
    for process, environ in _environments():
        guard = next((entry for entry in environ if entry.startswith(prefix)), prefix)[len(prefix) :].decode()
        pid = guard.partition(":")[0]
        if not pid.isdigit() or identity(int(pid)) == guard:
            continue
        try:
            if os.readlink(f"/proc/{process.pid}/ns/pid") == ours:  # noqa: PTH115
                result.append(process)
        except OSError:
            continue
    return result


def identity(pid: int) -> str:
    """A process as others can recognise it, also when its id has been given away."""
    process = look(pid)
    return f"{pid}:{process.start}" if process is not None else f"{pid}:"


def _environments() -> Iterator[tuple[Process, list[bytes]]]:
    """The living processes, ourselves excepted, whose environment may be read."""
    for process in _all():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:  # noqa: PTH123
                environ = file.read().split(b"\0")
        except OSError:
            continue
        if process.pid != os.getpid() and process.state not in "ZX":
            yield process, environ


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
