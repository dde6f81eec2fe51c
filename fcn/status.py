"""What a worker tells its agent: one JSON object a line on the pipe FCN_STATUS_FD.

Nothing depends on it: without the pipe, with a full one, or with nobody listening the line is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
import traceback
from contextlib import contextmanager
from typing import Any, Iterator


class Status:
    """The pipe to the agent, or nothing where there is none."""

    _phase = "init"
    _step = 0
    _gathers = 0

    def __init__(self) -> None:
        text = os.environ.get("FCN_STATUS_FD")
        self._fd = int(text) if text else None
        if self._fd is not None:
            os.set_blocking(self._fd, False)
            os.set_inheritable(self._fd, False)

    def send(self, event: str, **fields: Any) -> None:
        """Report an event, never waiting. The line is written whole or not at all."""
        if self._fd is None:
            return
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        if len(line) <= select.PIPE_BUF:  # a longer one could be cut, and take the next one with it
            with contextlib.suppress(OSError):
                os.write(self._fd, line)

    def phase(self, name: str) -> None:
        """Report the phase that begins: init, data, compile, train, eval, save or done."""
        self._phase = name
        self.send("phase", phase=name)

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Report a phase that comes between, and the one before it again at its end."""
        before = self._phase
        self.phase(name)
        yield  # an error leaves the phase as it was: that is where it came up
        self.phase(before)

    def enter(self, what: str, step: int) -> None:
        """Report what this rank is about to do, so that one that stops shows where.

        what: data, save or eval, which it does by itself (of eval, `step` counts images); or join or step,
            which no rank leaves before all have entered it. A rank that has entered one of these waits for
            the others, to the launcher: each collective has to be announced, and nothing else as one.
        """
        if what == "step":
            self._step = step
        self.send("enter", what=what, step=step)

    def gather(self) -> None:
        """Report that this rank is about to wait for the others outside of a step."""
        self._gathers += 1
        self.send("enter", what="gather", step=self._step, count=self._gathers)

    def error(self, error: BaseException) -> None:
        """Report the exception that ends this worker, with as much of its traceback as a line holds."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message, trace = str(error)[:800], text[-2000:]
        if not (message + trace).isascii():  # in JSON such a character takes 6 bytes
            message, trace = message[:200], trace[-400:]
        kind = type(error).__name__
        self.send("error", type=kind, message=message, traceback=trace, time_ns=time.time_ns())
