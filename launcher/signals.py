"""The signals that the launcher answers, as bytes on a pipe: nothing happens inside a signal handler."""

from __future__ import annotations

import os
import select
import signal
from typing import Any, Dict, List

ANSWERED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
# Who starts us with these ignored means it: `nohup`, and a script's shell for what it runs with `&`.
MAY_STAY_IGNORED = (signal.SIGHUP, signal.SIGINT)


class Signals:
    """While this context is open, its `fd` is readable when a signal has come. Main thread only.

    SIGHUP and SIGINT stay ignored where they were when this process began. `seen`: what was ever read.
    """

    def __enter__(self) -> Signals:
        self.seen: List[int] = []
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers: Dict[int, Any] = {
            number: signal.signal(number, lambda *_: None)
            for number in ANSWERED
            if number not in MAY_STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)

    def read(self) -> List[int]:
        """The signals that have come since, in order."""
        try:
            new = [number for number in os.read(self.fd, 64) if number in ANSWERED]
        except BlockingIOError:
            new = []
        self.seen += new
        return new

    def wait(self, seconds: float) -> List[int]:
        """Waits so long, or until there is a signal; all that were ever seen."""
        if not self.seen:
            select.select([self.fd], [], [], seconds)
            self.read()
        return self.seen
