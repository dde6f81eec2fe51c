"""Which process failed first and why: causes told apart from their consequences. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import Enum
from typing import Iterable, Optional, Tuple

from launcher.errors import ExitCode


class Kind(Enum):
    """What was seen of a failure."""

    RAISED = "raised"  # the worker itself reported an exception
    EXIT_CODE = "exit code"
    SIGNAL = "signal"
    AGENT_LOST = "agent lost"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong, as its host saw it.

    name: "rank-00", "scheduler", or "agent" for a whole host. rank: None unless a rank. time_ns: the clock of
    that host. stopped: a stop of ours had reached the process before. tail: last lines of its log.
    """

    name: str
    rank: Optional[int]
    host: str
    kind: Kind
    what: str
    time_ns: int
    signal: Optional[int] = None
    stopped: bool = False
    tail: Tuple[str, ...] = ()


# What a rank says when another one is gone: MindSpore's CPU ring, its scheduler, HCCL, sockets.
CONSEQUENCE_TEXTS = (
    "AllReduceCPUKernelMod launch failed",
    "ReduceScatter wait receiving",
    "total number of timed out node",
    "is timed out. It may exit with exception",
    "EI0002",  # HCCL: notify wait timed out, another rank is missing
    "EI0006",  # HCCL: socket to a peer timed out
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
)

# Between the agent's look for a free port and rank 0's bind somebody else may take it. No fault of the code.
PORT_TAKEN = re.compile(r"Address already in use|Failed to bind|\bbind\b.*failed")

HINTS = {
    signal.SIGKILL: "somebody killed it, or the system ran out of memory: see `dmesg`",
    signal.SIGSEGV: "crashed in native code",
    signal.SIGBUS: "crashed in native code; is /dev/shm full?",
    signal.SIGABRT: "native code gave up: see its last lines",
    signal.SIGTERM: "somebody ended it; MindSpore does so itself when it has lost another rank",
}


def first_failure(failures: Iterable[Failure]) -> Optional[Failure]:
    """The failure that explains the others: the earliest cause, or without one the earliest of all."""
    return min(failures, key=lambda failure: (_distance(failure), failure.time_ns), default=None)


def _distance(failure: Failure) -> int:
    """How far from a cause: 0 a cause, 1 what follows from another's failure, 2 what follows from a stop."""
    if failure.stopped and failure.kind is not Kind.RAISED:
        return 2
    return 1 if is_consequence(failure) else 0


def is_consequence(failure: Failure) -> bool:
    """Whether this looks like the effect of another rank's failure."""
    if failure.kind is Kind.SIGNAL:
        return failure.signal == signal.SIGTERM
    if port_was_taken(failure):
        return False
    if failure.kind is Kind.EXIT_CODE and failure.name == "scheduler":
        return True  # it gives up when its nodes do
    if failure.kind not in (Kind.RAISED, Kind.EXIT_CODE):
        return False
    text = _said(failure)
    return any(consequence in text for consequence in CONSEQUENCE_TEXTS)


def port_was_taken(failure: Failure) -> bool:
    """Whether a process could not listen on the port that was planned for it."""
    return failure.kind in (Kind.RAISED, Kind.EXIT_CODE) and bool(PORT_TAKEN.search(_said(failure)))


def _said(failure: Failure) -> str:
    return "\n".join((failure.what, *failure.tail))


def exit_code(failure: Failure) -> ExitCode:
    """The launcher's exit code when this failure came first."""
    if failure.kind is Kind.NOT_STARTED:
        return ExitCode.PREFLIGHT
    blameless = is_consequence(failure) or port_was_taken(failure)
    if failure.kind in (Kind.RAISED, Kind.EXIT_CODE) and not blameless:
        return ExitCode.TRAINING_CODE
    return ExitCode.INFRASTRUCTURE


def signal_text(number: int) -> str:
    """A signal as people know it, with what usually sends it."""
    try:
        known = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    hint = HINTS.get(known)
    return f"{known.name} ({hint})" if hint else known.name


def sentence(failure: Failure, device: Optional[int] = None, log: Optional[str] = None) -> str:
    """The verdict: who failed first, where, why, and where to read more."""
    if failure.name == "agent":
        return f"host {failure.host} failed first: {failure.what}"
    who = failure.name if failure.rank is None else f"rank {failure.rank}"
    where = f"host {failure.host}" if device is None else f"host {failure.host}, device {device}"
    text = f"{who} ({where}) failed first: {failure.what}"
    if is_consequence(failure):
        text += "; this looks like the effect of a lost connection, and no cause of it was seen"
    if port_was_taken(failure):
        text += "; another program took its port meanwhile: start again, which takes another one"
    return f"{text}; log: {log}" if log else text
