"""What a worker tells its agent: one JSON object a line on the pipe FCN_STATUS_FD.

Nothing depends on it: without the pipe, with a full one, or with nobody listening the line is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from typing import Any


class Status:
    """The pipe to the agent, or nothing where there is none."""

    def __init__(self) -> None:
        text = os.environ.get("FCN_STATUS_FD")
        self._fd = int(text) if text else None
        if self._fd is not None:
            os.set_blocking(self._fd, False)
            os.set_inheritable(self._fd, False)

    def send(self, event: str, **fields: Any) -> None:
        """Report an event, never waiting. A line below PIPE_BUF is written whole or not at all."""
        if self._fd is None:
            return
        line = json.dumps({"event": event, **fields}) + "\n"
        with contextlib.suppress(OSError):
            os.write(self._fd, line.encode())

    def phase(self, name: str) -> None:
        """Report the phase that begins: init, data, compile, train, eval, save or done."""
        self.send("phase", phase=name)

    def enter(self, what: str, step: int) -> None:
        """Report what this rank is about to wait for: data, step, save or eval."""
        self.send("enter", what=what, step=step)

    def error(self, error: BaseException) -> None:
        """Report the exception that ends this worker."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.send("error", type=type(error).__name__, message=str(error)[:1000], traceback=text[-2500:])
