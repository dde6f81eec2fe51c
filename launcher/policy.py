"""What to do about what happens: decide(state, event) -> (state, decisions). Pure: no clock, no file."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import Enum
from typing import FrozenSet, NamedTuple, Optional, Sequence, Tuple, Union

from launcher.diagnosis import NOBODY, Failure, Kind, ended_by, exit_code, first_failure
from launcher.errors import ExitCode
from launcher.evidence import last_error, one_line

SAVE_AND_LEAVE = signal.SIGUSR2
PREEMPTING = (signal.SIGTERM, SAVE_AND_LEAVE)  # for the launcher; other signals stop the run
PREEMPTED = int(ExitCode.PREEMPTED)  # what a worker exits with when it has saved and left
DONE = "done"  # the last phase of a worker: its work is done, or saved where it was asked to leave
SHOWN_NAMES = 8


class Started(NamedTuple):
    """Every agent is there and has its plan: names of the ranks, and of helpers (the scheduler)."""

    ranks: FrozenSet[str]
    helpers: FrozenSet[str] = frozenset()


class Exited(NamedTuple):
    """A process has ended, with a code or by a signal; `stopped`: a stop of ours had reached it before;
    `phase`: the last that it has told of; None: it tells of none. `out_of_memory`: whether the kernel killed
    it for that; None: unknown. `error_ns`: by how much `time_ns` may be wrong."""

    name: str
    rank: Optional[int]
    host: str
    time_ns: int
    code: Optional[int] = None
    signal: Optional[int] = None
    stopped: bool = False
    tail: Tuple[str, ...] = ()
    phase: Optional[str] = None
    out_of_memory: Optional[bool] = None
    error_ns: int = 0

    @property
    def had_done_all(self) -> bool:
        """Whether a signal ended it after its work, as when a library crashes in the interpreter's exit."""
        return self.phase == DONE and self.signal is not None


class Raised(NamedTuple):
    """A worker reported the exception that ends it; `tail`: its traceback. `error_ns`: of `time_ns`."""

    name: str
    rank: Optional[int]
    host: str
    time_ns: int
    what: str
    tail: Tuple[str, ...] = ()
    error_ns: int = 0


class AgentLost(NamedTuple):
    """A host's agent is gone before its work was done or cannot do it; `names`, what ran there, has ended."""

    host: str
    time_ns: int
    reason: str
    names: FrozenSet[str] = frozenset()


class Hung(NamedTuple):
    """No progress for longer than there is reason for. name, rank, host: None where nobody can be named.

    kind: stopped, spinning or blocked; with nobody named, interconnect (all wait for each other) or shared
    (none does). what: "hung since" when, in which phase and step, how. time_ns: of the last sign of progress.
    """

    name: Optional[str]
    rank: Optional[int]
    host: Optional[str]
    kind: str
    what: str
    time_ns: int


class StacksTaken(NamedTuple):
    """The stacks are in the logs, but for those of the processes `missing`, or the time for it is over."""

    missing: Tuple[str, ...] = ()


class Signalled(NamedTuple):
    """The launcher itself got a signal."""

    number: int


class TimeOver(NamedTuple):
    """What the last decision gave time for has not happened: an end by itself, or within the grace period."""


Event = Union[Started, Exited, Raised, AgentLost, Hung, StacksTaken, Signalled, TimeOver]


class Ending(Enum):
    """Why an attempt is being brought to its end; the first reason stands."""

    FINISHED = "finished"
    FAILED = "failed"
    PREEMPTED = "preempted"
    STOPPED = "stopped"


class Action(Enum):
    """What the supervisor can do."""

    STOP = "stop"  # SIGTERM, the grace, SIGKILL
    KILL = "kill"  # SIGKILL
    PREEMPT = "preempt"  # SIGUSR2: save and leave
    STACKS = "stacks"  # of all ranks, to their logs
    WAIT = "wait"  # for the end of a worker that reported an error: its traceback is still to reach its log


class Decision(NamedTuple):
    """An action and the reason that goes into the journal."""

    action: Action
    reason: str


@dataclass(frozen=True)
class State:
    """What is known of one attempt."""

    started: bool = False
    ranks: FrozenSet[str] = frozenset()  # names of the ranks that run
    helpers: FrozenSet[str] = frozenset()
    ending: Optional[Ending] = None
    dumping: bool = False  # stacks are being taken
    stopping: bool = False  # a stop is under way: at most one for an attempt
    killing: bool = False
    left: bool = False  # a rank has saved and left
    cut: bool = False  # a rank has ended with its work neither done nor saved
    failures: Tuple[Failure, ...] = ()


Result = Tuple[State, Tuple[Decision, ...]]


def decide(state: State, event: Event) -> Result:
    """The next state, and what to do now. The same event twice never does a thing twice."""
    if isinstance(event, Started):
        return replace(state, started=True, ranks=event.ranks, helpers=event.helpers), ()
    if isinstance(event, Exited):
        return _exited(state, event)
    if isinstance(event, Raised):
        return _raised(state, event)
    if isinstance(event, AgentLost):
        kind = Kind.AGENT_LOST if state.started else Kind.NOT_STARTED
        ranks, helpers = state.ranks - event.names, state.helpers - event.names
        state = replace(state, ranks=ranks, helpers=helpers, cut=True)
        return _failed(state, Failure("agent", None, event.host, kind, event.reason, event.time_ns))
    if isinstance(event, Hung):
        return _hung(state, event)
    if isinstance(event, StacksTaken):
        return _stacks_taken(state, event)
    if isinstance(event, Signalled):
        return _signalled(state, event.number)
    return _time_over(state)


def _exited(state: State, event: Exited) -> Result:
    if event.had_done_all:
        code = PREEMPTED if state.ending is Ending.PREEMPTED else 0
        event = event._replace(code=code, signal=None)
    state = replace(state, ranks=state.ranks - {event.name}, helpers=state.helpers - {event.name})
    clean = _is_clean(state, event)
    if event.rank is not None and (not clean or event.signal is not None):
        state = replace(state, cut=True)
    if clean:
        state = replace(state, left=state.left or event.code != 0)
        if event.signal is not None:  # before its first step: the others can make none without it
            return _stop(state, Ending.PREEMPTED, f"{event.name}: left at once, as it had nothing to save")
        if state.helpers and not state.ranks:
            # the scheduler would look around for another five seconds before it sees that its nodes have left
            return _stop(state, Ending.FINISHED, "every rank has ended")
        return state, ()
    told = [f for f in state.failures if f.name == event.name and f.kind is Kind.RAISED]
    if told:  # of why it ended its own report says all, and its log the rest
        failures = (replace(f, tail=event.tail) if f in told else f for f in state.failures)
        return _stop(replace(state, failures=tuple(failures)), Ending.FAILED, _reason(told[0]))
    error = last_error(event.tail)
    kind, what = ended_by(event.code, event.signal, event.out_of_memory, error)
    failure = Failure(
        event.name,
        event.rank,
        event.host,
        kind,
        what,
        event.time_ns,
        event.signal,
        event.stopped,
        error,
        event.tail,
        event.error_ns,
    )
    return _failed(state, failure)


def _raised(state: State, event: Raised) -> Result:
    failure = Failure(
        event.name,
        event.rank,
        event.host,
        Kind.RAISED,
        one_line(event.what),
        event.time_ns,
        error=(*event.what.splitlines(), *last_error(event.tail)),
        tail=event.tail,
        error_ns=event.error_ns,
    )
    waiting = replace(state, failures=(*state.failures, failure), ending=state.ending or Ending.FAILED)
    return waiting, () if state.ending else (Decision(Action.WAIT, _reason(failure)),)


def _is_clean(state: State, event: Exited) -> bool:
    """Whether this end is no failure: done, or told to leave, where SIGUSR2 itself ends who saves nothing."""
    if event.signal is not None:
        return event.signal == SAVE_AND_LEAVE
    if event.code == 0 and event.phase not in (None, DONE) and not event.stopped:
        return False  # the others would wait for it
    return event.code in (0, PREEMPTED)


def _failed(state: State, failure: Failure) -> Result:
    state = replace(state, failures=(*state.failures, failure))
    return _stop(state, Ending.FAILED, _reason(failure))


def _hung(state: State, event: Hung) -> Result:
    if state.ending is not None:
        return state, ()
    who = (event.name or NOBODY, event.rank, event.host or "")
    failure = Failure(*who, Kind.HUNG, event.what, event.time_ns)
    state = replace(state, failures=(*state.failures, failure), ending=Ending.FAILED, dumping=True)
    return state, (Decision(Action.STACKS, _reason(failure)),)


def _stacks_taken(state: State, event: StacksTaken) -> Result:
    if not state.dumping:
        return state, ()  # they come late: the stop has begun without them
    where = "the stacks of all ranks are at the ends of their logs"
    if event.missing:
        where = (
            f"there are no stacks of {_some(event.missing)}: py-spy, where it is installed, reads those of "
            "programs that do not answer SIGUSR1; the others are at the ends of their logs"
        )
    failures = tuple(
        replace(failure, what=f"{failure.what}; {where}") if failure.kind is Kind.HUNG else failure
        for failure in state.failures
    )
    return _stop(replace(state, failures=failures), Ending.FAILED, where)


def _some(names: Tuple[str, ...]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join([*names[:SHOWN_NAMES], *([f"{more} others"] if more > 0 else [])])


def _reason(failure: Failure) -> str:
    if failure.name == NOBODY:
        return f"the ranks have {failure.what}"
    who = f"{failure.name} of host {failure.host}" if failure.rank is None else f"rank {failure.rank}"
    return f"{who} has {failure.what}" if failure.kind is Kind.HUNG else f"{who}: {failure.what}"


def _time_over(state: State) -> Result:
    if state.ending is Ending.FAILED and not state.stopping:
        return _stop(state, Ending.FAILED, f"{_reason(state.failures[0])}; it does not end by itself")
    return _kill(state, "the grace period is over")


def _stop(state: State, ending: Ending, reason: str) -> Result:
    if state.stopping:
        return state, ()
    state = replace(state, stopping=True, dumping=False, ending=state.ending or ending)
    return state, (Decision(Action.STOP, reason),)


def _kill(state: State, reason: str) -> Result:
    if state.killing:
        return state, ()
    return replace(state, stopping=True, dumping=False, killing=True), (Decision(Action.KILL, reason),)


def _signalled(state: State, number: int) -> Result:
    name = signal.Signals(number).name
    if number in PREEMPTING:
        if state.ending is not None:
            return state, ()
        state = replace(state, ending=Ending.PREEMPTED)
        if not state.started:
            return _kill(state, f"{name}: preempted before the start")
        return state, (Decision(Action.PREEMPT, f"{name}: preempted"),)
    if number == signal.SIGHUP and state.ending is not None:
        return state, ()  # a terminal that closes after Ctrl-C is no second wish
    if state.ending in (None, Ending.PREEMPTED):
        state = replace(state, ending=Ending.STOPPED)
        if state.started and not state.stopping:
            return _stop(state, Ending.STOPPED, stopped_by(number))
    return _kill(state, f"{name}: stop at once")


def stopped_by(number: int) -> str:
    """What a signal that stops a run means, for a person."""
    who = "its terminal was closed" if number == signal.SIGHUP else "stopped by the user"
    return f"{signal.Signals(number).name}: {who}"


def foremost(numbers: Sequence[int]) -> int:
    """The signal that counts of those that have come: Ctrl-C, whatever came before; else the first."""
    return signal.SIGINT if signal.SIGINT in numbers else numbers[0]


def verdict(state: State) -> Optional[Failure]:
    """The failure to name as the first; None where the attempt ends well or by the user's wish."""
    first = first_failure(state.failures)
    if first is None or first.stopped or state.ending in (Ending.STOPPED, Ending.FINISHED):
        return None
    return first


def outcome(state: State) -> ExitCode:
    """The launcher's exit code when every agent has ended."""
    if state.ending is Ending.STOPPED:
        return ExitCode.STOPPED
    if state.ending is Ending.PREEMPTED:
        return ExitCode.DONE if _was_done(state) else ExitCode.PREEMPTED
    first = first_failure(state.failures)
    if first is not None and state.ending is Ending.FAILED:
        return exit_code(first)
    return ExitCode.PREEMPTED if state.left else ExitCode.DONE


def _was_done(state: State) -> bool:
    """Whether the request to save and leave came when every rank was about to end its work anyway."""
    return state.started and not (state.ranks or state.left or state.cut)


def has_saved(state: State) -> bool:
    """Whether every rank of a preempted attempt has saved and left."""
    return state.left and not (state.ranks or state.cut)
