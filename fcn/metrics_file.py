"""`metrics.jsonl` of a run: a line for each step and each evaluation, written by rank 0.

The worker writes it, not the launcher that hears of the same events: a step that a checkpoint holds is never
done again, so its line must be there before, whoever is killed. A step that is done again after an
interruption is there again, with the same loss: who reads it takes the last line of each step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends to the file; a disk that is full costs lines, is said once and does not end the training."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / NAME
        self._attempt = int(os.environ.get("FCN_ATTEMPT", "1"))
        self._is_torn = True  # as far as is known: a kill may have cut the last line short
        self._said = False
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def append(self, event: str, **fields: Any) -> None:
        """Write a line, with one write."""
        ours = {"event": event, "time_ns": time.time_ns(), "attempt": self._attempt}
        line = json.dumps({**ours, **fields}).encode() + b"\n"
        try:
            if self._is_torn:
                self._close_last_line()
            self._is_torn = os.write(self._file, line) != len(line)
            reason = "no room for the whole line"
        except OSError as error:
            self._is_torn, reason = True, str(error.strerror)
        if self._is_torn and not self._said:
            print(f"warning: {self._path}: {reason}; lines are lost until there is room", file=sys.stderr)
        self._said = self._is_torn

    def sync(self) -> None:
        """Have the disk hold the lines so far."""
        with suppress(OSError):  # who cannot have it written is told of the lines themselves
            os.fsync(self._file)

    def _close_last_line(self) -> None:
        """One that was cut short must not swallow the next."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")
