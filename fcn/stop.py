"""The request to leave, SIGUSR2.

As long as all that was done is saved the signal has its default action: it ends the process at once, also in
MindSpore's import, rendezvous and compilation, where Python runs no handler for minutes. So it is before the
first step, and in an evaluation. Otherwise it is a mark that all ranks hear of in their next step: one that
left alone would hang the others. No rank can end a step while another still leaves at once: it needs both.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import Iterator

PREEMPTED = 75  # exit code: saved and left, start me again


class StopRequest:
    """Whether this rank was asked to leave."""

    def __init__(self) -> None:
        """Leave at once, whatever the starter of this process has made of the signal."""
        self.asked = False
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})

    def agree_with_others(self) -> None:
        """From now on leave when all ranks do. To be called before the first step, on every rank."""
        signal.signal(signal.SIGUSR2, self._mark)

    @contextmanager
    def leaving_at_once(self) -> Iterator[None]:
        """Leave at once inside, as on every rank nothing is left to be saved; otherwise as before."""
        before = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        if self.asked:
            os.kill(os.getpid(), signal.SIGUSR2)
        yield
        signal.signal(signal.SIGUSR2, before)

    def _mark(self, *_: object) -> None:
        self.asked = True
