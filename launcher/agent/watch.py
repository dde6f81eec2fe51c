"""Learning of the death of a child process the moment it happens, without asking again and again."""

from __future__ import annotations

import os
import selectors
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable


def has_ended(pid: int) -> bool:
    """Whether this child of ours has ended; it stays a zombie, so that its id is not given away yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class DeathWatch:
    """Calls back once for each child process that has ended, from the selector's loop.

    With a pidfd a child: the kernel then also keeps the order in which children died between two wake-ups.
    Where there are none (Linux 4.19, which Ascend servers still run, or a Python built on such a system)
    SIGCHLD wakes the loop. The callback has to reap the process.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._handles: dict[int, int] = {}
        self._has_pidfd = _has_pidfd()
        if not self._has_pidfd:
            self._wake_on_sigchld()

    def add(self, pid: int, callback: Callable[[], None]) -> None:
        self._callbacks[pid] = callback
        if self._has_pidfd:
            self._handles[pid] = os.pidfd_open(pid)
            self._selector.register(
                self._handles[pid], selectors.EVENT_READ, lambda: self._call_if_ended(pid)
            )

    def check(self) -> None:
        """Looks at all of them now, in any order."""
        for pid in list(self._callbacks):
            self._call_if_ended(pid)

    def reap_orphans(self) -> None:
        """Reaps what we have adopted from processes of ours, and has ended.

        It is told by its process group: those that are watched lead groups of their own, and what else we
        start stays in ours, for whoever started it.
        """
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in self._callbacks or os.getpgid(ended.si_pid) == os.getpgrp():
                return
            os.waitpid(ended.si_pid, 0)

    def _call_if_ended(self, pid: int) -> None:
        if pid not in self._callbacks or not has_ended(pid):
            return
        if pid in self._handles:
            self._selector.unregister(self._handles[pid])
            os.close(self._handles.pop(pid))
        self._callbacks.pop(pid)()

    def _wake_on_sigchld(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

        def woken() -> None:
            os.read(read, 4096)
            self.check()

        self._selector.register(read, selectors.EVENT_READ, woken)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True
