"""Threads for what may block: a disk, a terminal, a pipe that nobody reads. Standard library only."""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, List, TypeVar

Result = TypeVar("Result")


class Background:
    """Calls what it is given, one after the other, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many calls are still to be made."""
        return self._calls.qsize()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def close(self) -> None:
        """Waits until all calls are made."""
        self._calls.put(None)
        self._thread.join()

    def _work(self) -> None:
        for function, arguments in iter(self._calls.get, None):
            try:
                function(*arguments)
            except Exception:  # the calls after it are made all the same
                import traceback

                traceback.print_exc()


def within(limit_s: float, function: Callable[[], Result], otherwise: Result) -> Result:
    """What the function returns; `otherwise` where it takes longer, and goes on in its thread."""
    found: List[Result] = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else otherwise
