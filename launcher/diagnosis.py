"""Which process failed first and why: causes told apart from their consequences. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence, Tuple

from launcher.errors import ExitCode
from launcher.evidence import HEADER, Sign, one_line, sign

if TYPE_CHECKING:
    from launcher.catalogue import Signature


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
    the process before. error: the lines of the error that ended it, as it reported them, else those in its
    log. tail: the last lines of its log; its traceback where it has reported one and not ended.
    """

    name: str
    rank: Optional[int]
    host: str
    kind: Kind
    what: str
    time_ns: int
    signal: Optional[int] = None
    stopped: bool = False
    error: Tuple[str, ...] = ()
    tail: Tuple[str, ...] = field(default=(), compare=False)  # the same failure, more of the log
    error_ns: int = 0

    @property
    def sign(self) -> Optional[Sign]:
        """What its error is a sign of; None: of a fault of the code, or it has told of none."""
        if self.kind not in (Kind.RAISED, Kind.EXIT_CODE):
            return None
        return sign(self.error or self.tail[-1:], self.tail)


# What a signal means, and what to do about it.
SIGNALS: Dict[int, Tuple[str, str]] = {
    signal.SIGKILL: (
        "somebody killed it, or the system ran out of memory",
        "`dmesg` on its host tells which",
    ),
    signal.SIGSEGV: (
        "native code crashed",
        "the end of its log has the stack; if it comes again, see whether the versions of MindSpore and CANN"
        " fit together, or, if it comes on one device alone, leave that one out",
    ),
    signal.SIGBUS: (
        "memory was not there when it was used",
        "see whether /dev/shm or a disk is full: `df -h`; a file that it reads may have been cut",
    ),
    signal.SIGABRT: ("native code gave up", "the end of its log tells why"),
    signal.SIGFPE: ("native code divided by zero", "the end of its log has the stack"),
    signal.SIGILL: (
        "an instruction that this processor does not have",
        "install what was built for this processor, or lower ONEDNN_MAX_CPU_ISA",
    ),
    signal.SIGTERM: ("somebody ended it; MindSpore does so itself when it has lost another rank", ""),
    signal.SIGXCPU: ("its CPU time is used up", "raise the limit: `ulimit -t`"),
    signal.SIGXFSZ: ("a file grew over the limit", "raise the limit: `ulimit -f`"),
}


EARLY_EXIT = "exit code 0, before its work was done"
SOMEBODY = "somebody killed it; the system did not, there was memory"
SHOWN_LINES = 20  # of the log of who failed first
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
    if failure.kind is Kind.EXIT_CODE and failure.name == "scheduler":
        return failure.sign is not Sign.PORT_TAKEN  # it gives up when its nodes do
    return failure.sign is Sign.LOST_PEER


def exit_code(failure: Failure) -> ExitCode:
    """The launcher's exit code when this failure came first."""
    if failure.kind is Kind.NOT_STARTED or failure.sign is Sign.MISPLACED:
        return ExitCode.PREFLIGHT  # the machines are not as the cluster file says
    if failure.kind is Kind.HUNG:
        return ExitCode.HANG
    has_erred = failure.kind in (Kind.RAISED, Kind.EXIT_CODE)
    if has_erred and failure.sign is None and not is_consequence(failure):
        return ExitCode.TRAINING_CODE
    return ExitCode.INFRASTRUCTURE


def ended_by(
    code: Optional[int], number: Optional[int], out_of_memory: Optional[bool], error: Sequence[str] = ()
) -> Tuple[Kind, str]:
    """How a process has failed that ended with this exit code, or by this signal, and said this error."""
    if code == 0:
        return Kind.EXIT_CODE, EARLY_EXIT
    if number is None:
        return Kind.EXIT_CODE, ": ".join(filter(None, [f"exit code {code}", one_line("\n".join(error))]))
    if out_of_memory:
        return Kind.OUT_OF_MEMORY, "out of memory: killed by the kernel, which had none left for it"
    hint = SIGNALS.get(number, ("", ""))[0]
    if number == signal.SIGKILL and out_of_memory is False:
        hint = SOMEBODY
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return Kind.SIGNAL, f"killed by {name} ({hint})" if hint else f"killed by {name}"


def report(
    failures: Sequence[Failure],
    first: Failure,
    device: Optional[int],
    log: Optional[str],
    known: Optional[Signature] = None,
) -> Dict[str, Any]:
    """The verdict for people and programs. device, log: of the first failure's process, where it has them.

    known: the error of the catalogue that it ended with, whose words then take the place of our advice.
    """
    return {
        "name": first.name,
        "rank": first.rank,
        "host": first.host,
        "device": device,
        "kind": first.kind.value,
        "what": first.what,
        "log": log,
        "text": sentence(first, device, log, known),
        "cause": None if known is None else known.cause,
        "to_do": None if known is None else known.remedy,
        "then": followers(failures, first),
        "tail": list(first.tail[-SHOWN_LINES:]),
    }


def sentence(
    failure: Failure,
    device: Optional[int] = None,
    log: Optional[str] = None,
    known: Optional[Signature] = None,
) -> str:
    """The verdict: who failed first, where, why, what to do (unless `known` tells), where to read more."""
    if failure.name == "agent":
        text = f"host {failure.host} failed first: {failure.what}"
    elif failure.name == NOBODY:
        text = f"the ranks have {failure.what}"
    else:
        who = failure.name if failure.rank is None else f"rank {failure.rank}"
        where = f"host {failure.host}" if device is None else f"host {failure.host}, device {device}"
        verb = "has" if failure.kind is Kind.HUNG else "failed first:"
        text = f"{who} ({where}) {verb} {failure.what}"
    advice = remedy(failure) if known is None else ""
    return "; ".join(filter(None, [text, advice, f"log: {log}" if log else None]))


def remedy(failure: Failure) -> str:
    """What to do about it; empty where what was seen says so itself."""
    if failure.sign is Sign.PORT_TAKEN:
        return "another program took its port meanwhile: start again, which takes another one"
    if failure.sign is Sign.DISK_FULL:
        return "make room on its disk, that of the run directory or what the error names"
    if is_consequence(failure):
        return (
            "this looks like the effect of a lost connection, and no cause of it was seen:"
            " look at the network, and at the ends of the other ranks' logs"
        )
    if failure.kind is Kind.OUT_OF_MEMORY:
        return "use a smaller batch, or fewer workers on a host, or end what else needs its memory"
    if failure.kind is Kind.SIGNAL:
        unknown = ("", "find out who sent it: a person, or a scheduler or container with a limit")
        return unknown[1] if SOMEBODY in failure.what else SIGNALS.get(failure.signal or 0, unknown)[1]
    if failure.what == EARLY_EXIT:
        return "find what ends the program before it says that it is done, such as sys.exit() or os._exit()"
    if failure.kind is Kind.EXIT_CODE and not failure.error:
        log = f"plan/{failure.name}.env beside its log tells how to run it by hand"
        return f"its log names no error: see its last lines; {log}"
    if any(line.endswith(HEADER) for line in failure.tail):
        return "correct what the traceback in its log names"
    return ""


def tied(failures: Iterable[Failure], first: Failure) -> List[Failure]:
    """Failures of other hosts that may have come before the first: the clocks are not known better."""
    rivals = [f for f in failures if f.host != first.host]
    close = [f for f in rivals if f.time_ns - first.time_ns < f.error_ns + first.error_ns]
    return [f for f in close if _distance(f) == _distance(first)]


def followers(failures: Sequence[Failure], first: Failure) -> List[str]:
    """What failed after the first, without our doing: a line for each different thing, with its ranks."""
    close = set(tied(failures, first))
    groups: Dict[Tuple[str, str], List[Failure]] = {}
    seen = {(first.name, first.host)}
    for failure in sorted(failures, key=lambda failure: failure.time_ns):
        who = (failure.name, failure.host)
        if failure.stopped or who in seen:
            continue
        seen.add(who)
        when = "at the same time, as far as the hosts' clocks can tell" if failure in close else "then"
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
