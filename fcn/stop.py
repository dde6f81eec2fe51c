"""The request to save and leave, SIGUSR2."""

from __future__ import annotations

import signal

PREEMPTED = 75  # exit code: saved and left, start me again


class StopRequest:
    """Marks that SIGUSR2 has come, from the moment it is made; the trainer acts on it after a step.

    A mark only: Python runs handlers between operations, and a rank that left alone would hang the others.
    """

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGUSR2, self._mark)

    def _mark(self, *_: object) -> None:
        self.asked = True
