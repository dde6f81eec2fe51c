"""Which process failed first and why: causes told apart from their consequences. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import Enum
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from launcher.errors import ExitCode


class Kind(Enum):
    """What was seen of a failure."""

    RAISED = "raised"  # the worker itself reported an exception
    EXIT_CODE = "exit code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out of memory"  # killed by the kernel, which had none left
    HUNG = "hung"
    AGENT_LOST = "agent lost"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong.

    name: "rank-00", "scheduler", or "agent" for a whole host. rank: None unless a rank. time_ns: by the
    supervisor's clock, wrong by at most error_ns as against other hosts. stopped: a stop of ours had reached
    the process before. tail: last lines of its log.
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
    error_ns: int = 0


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

DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")

HINTS: Dict[int, str] = {
    signal.SIGKILL: "somebody killed it, or the system ran out of memory: see `dmesg`",
    signal.SIGSEGV: "crashed in native code",
    signal.SIGBUS: "crashed in native code; is /dev/shm full?",
    signal.SIGABRT: "native code gave up: see its last lines",
    signal.SIGTERM: "somebody ended it; MindSpore does so itself when it has lost another rank",
}


NOBODY = "ranks"  # the name of a failure that is not one rank's


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


def disk_was_full(failure: Failure) -> bool:
    """Whether a process could not write."""
    return failure.kind in (Kind.RAISED, Kind.EXIT_CODE) and bool(DISK_FULL.search(_said(failure)))


def _said(failure: Failure) -> str:
    return "\n".join((failure.what, *failure.tail))


def exit_code(failure: Failure) -> ExitCode:
    """The launcher's exit code when this failure came first."""
    if failure.kind is Kind.NOT_STARTED:
        return ExitCode.PREFLIGHT
    if failure.kind is Kind.HUNG:
        return ExitCode.HANG
    blameless = is_consequence(failure) or port_was_taken(failure) or disk_was_full(failure)
    if failure.kind in (Kind.RAISED, Kind.EXIT_CODE) and not blameless:
        return ExitCode.TRAINING_CODE
    return ExitCode.INFRASTRUCTURE


def ended_by(code: Optional[int], number: Optional[int], out_of_memory: Optional[bool]) -> Tuple[Kind, str]:
    """How a process has failed that ended with this exit code, or by this signal."""
    if code == 0:
        return Kind.EXIT_CODE, "exit code 0, before its work was done"
    if number is None:
        return Kind.EXIT_CODE, f"exit code {code}"
    if out_of_memory:
        return Kind.OUT_OF_MEMORY, "out of memory: killed by the kernel, which had none left for it"
    hint = HINTS.get(number)
    if number == signal.SIGKILL and out_of_memory is False:
        hint = "somebody killed it; the system did not, there was memory"
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return Kind.SIGNAL, f"killed by {name} ({hint})" if hint else f"killed by {name}"


def report(
    failures: Sequence[Failure], first: Failure, device: Optional[int], log: Optional[str]
) -> Dict[str, Any]:
    """The verdict for people and programs. device, log: of the first failure's process, where it has them.

    `tail` is the end of its log, or the traceback alone while it has not ended.
    """
    ended = (f for f in failures if f.name == first.name and f.kind is not Kind.RAISED and f.tail)
    return {
        "name": first.name,
        "rank": first.rank,
        "host": first.host,
        "device": device,
        "kind": first.kind.value,
        "what": first.what,
        "log": log,
        "text": sentence(first, device, log),
        "then": followers(failures, first),
        "tail": list(next(ended, first).tail),
    }


def sentence(failure: Failure, device: Optional[int] = None, log: Optional[str] = None) -> str:
    """The verdict: who failed first, where, why, and where to read more."""
    if failure.name == "agent":
        text = f"host {failure.host} failed first: {failure.what}"
    elif failure.name == NOBODY:
        text = f"the ranks have {failure.what}"
    else:
        who = failure.name if failure.rank is None else f"rank {failure.rank}"
        where = f"host {failure.host}" if device is None else f"host {failure.host}, device {device}"
        verb = "has" if failure.kind is Kind.HUNG else "failed first:"
        text = f"{who} ({where}) {verb} {failure.what}"
    advice = remedy(failure)
    return "; ".join(filter(None, [text, advice, f"log: {log}" if log else None]))


def remedy(failure: Failure) -> Optional[str]:
    """What to do about it; None where what was seen says so itself."""
    if failure.kind is Kind.HUNG:
        return "the stacks of all ranks are at the ends of their logs"
    if port_was_taken(failure):
        return "another program took its port meanwhile: start again, which takes another one"
    if disk_was_full(failure):
        return "make room on its disk, that of the run directory or what the error names"
    if is_consequence(failure):
        return (
            "this looks like the effect of a lost connection, and no cause of it was seen:"
            " look at the network, and at the ends of the other ranks' logs"
        )
    if failure.kind is Kind.OUT_OF_MEMORY:
        return "use a smaller batch, or fewer workers on a host, or end what else needs its memory"
    return None


def tied(failures: Iterable[Failure], first: Failure) -> List[Failure]:
    """Failures of other hosts that may have come before the first: the clocks are not known better."""
    rivals = (f for f in failures if f.host != first.host and _distance(f) == _distance(first))
    return [f for f in rivals if f.time_ns - first.time_ns < f.error_ns + first.error_ns]


def followers(failures: Sequence[Failure], first: Failure) -> List[str]:
    """What failed after the first, without our doing: a line for each different thing, with its ranks."""
    close = tied(failures, first)
    groups: Dict[Tuple[str, str], List[Failure]] = {}
    for failure in sorted(failures, key=lambda failure: failure.time_ns):
        if failure.stopped or failure.name == first.name and failure.host == first.host:
            continue
        when = "at the same time, as far as the hosts' clocks can tell" if failure in close else "then"
        seen = [f for members in groups.values() for f in members]
        if all(other.name != failure.name or other.host != failure.host for other in seen):
            groups.setdefault((when, _normalised(failure)), []).append(failure)
    return [f"{_who(members)} {when}: {members[0].what}" for (when, _), members in groups.items()]


def _normalised(failure: Failure) -> str:
    """What was seen, without the numbers in which one rank's words differ from another's."""
    return re.sub(r"0x[0-9a-fA-F]+|\d+", "N", failure.what)


def _who(failures: Sequence[Failure]) -> str:
    ranks = sorted(f.rank for f in failures if f.rank is not None)
    others = [f"host {f.host}" if f.name == "agent" else f.name for f in failures if f.rank is None]
    if ranks:
        others.insert(0, f"{'rank' if len(ranks) == 1 else 'ranks'} {spans(ranks)}")
    return ", ".join(others)


def spans(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 4] as "0-2, 4"."""
    spans: List[List[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
