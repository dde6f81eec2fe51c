"""A loop that waits for descriptors and for times, and calls back. Nothing that it calls may block."""

from __future__ import annotations

import os
import selectors
import threading
import time
from typing import Any, Callable, Dict, List, Set, Tuple

from launcher.protocol import FROZEN_S


class Loop:
    """Callbacks by descriptor and by time; all are called from `wait`."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._timers: Dict[str, Tuple[float, Callable[[], None]]] = {}
        self._ears: Set[int] = set()  # the ends of pipes at which threads are awaited
        self._frozen_s = 0.0

    def now(self) -> float:
        """Seconds, without those in which this process was stopped (Ctrl-Z, a frozen machine, a closed lid).

        What others did not hear or say meanwhile must not be held against them.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self._frozen_s

    def listen(self, fd: int, callback: Callable[[], None]) -> None:
        """Calls back whenever there is something to read."""
        self.selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        self.selector.unregister(fd)

    def after(self, seconds: float, name: str, callback: Callable[[], None]) -> None:
        """Calls back later; a timer of the same name is replaced."""
        self._timers[name] = (self.now() + seconds, callback)

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    def is_due(self, name: str) -> bool:
        """Whether there is a timer of this name."""
        return name in self._timers

    def in_thread(self, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Calls a function that may block in a thread, and `then` with its result.

        What the function raises, `wait` raises. What it finds after `close` is dropped.
        """
        read, write = os.pipe()
        results: List[Any] = []
        errors: List[BaseException] = []

        def work() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            finally:
                os.close(write)

        def ended() -> None:
            self.forget(read)
            self._ears.remove(read)
            os.close(read)
            if errors:
                raise errors[0]
            then(results[0])

        self._ears.add(read)
        self.listen(read, ended)
        threading.Thread(target=work, daemon=True).start()

    def wait(self) -> None:
        """Waits for the first of all, and calls back: who is heard first, then who waits for a time."""
        for key, _ in self._select():
            if self.selector.get_map().get(key.fd) is key:  # not so where an earlier callback has closed it
                key.data()
        for name, (when, callback) in list(self._timers.items()):
            if self.now() >= when and self._timers.get(name) == (when, callback):
                del self._timers[name]
                callback()

    def _select(self) -> List[Tuple[selectors.SelectorKey, int]]:
        before = self.now()
        nearest = min((when for when, _ in self._timers.values()), default=None)
        timeout = None if nearest is None else max(0.0, nearest - before)
        ready = self.selector.select(timeout)
        slept_s = self.now() - before
        if timeout is not None and slept_s > timeout + FROZEN_S:
            self._frozen_s += slept_s  # all of it, as nobody knows when it began
        # After a SIGSTOP over its end it returns without a look at what has come.
        return ready or self.selector.select(0)

    def close(self) -> None:
        self.selector.close()
        for fd in self._ears:
            os.close(fd)
