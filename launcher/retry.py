"""Whether a run that has failed is started again, when, and without which devices. Pure: no clock, no dice.

history_of(events) is what a journal tells, fold(history, event) takes in one event more, and
decide(limits, history, dice) says what follows the last attempt. It works on the kind of failure:

    not retried   done, stopped, preempted; usage (2), an error of the training code (4), and machines that
                  are not ready (3) for the first attempt
    retried       the infrastructure (5), a hang (6), machines that are no longer ready
    at once       another program took the port: a few times, at no cost
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, FrozenSet, Iterable, Mapping, NamedTuple, Optional, Tuple, Union

from launcher.diagnosis import Failure, Kind, is_consequence
from launcher.errors import ExitCode
from launcher.evidence import Sign
from launcher.selection import Place

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
RETRIED = (ExitCode.INFRASTRUCTURE, ExitCode.HANG)
REFILL_STEPS = 100  # an attempt that gets so much further has been good: budget and blame begin anew
IDLE_ATTEMPTS = 3  # so many in a row without a new step are the end
BLAMED_TIMES, BLAMED_OF = 2, 3  # who fails first in so many of so many attempts is a suspect
FREE_RESTARTS = 3  # in a row, for a port that was taken


@dataclass(frozen=True)
class Limits:
    """max_restarts: between one good attempt and the next; 0: none. first_wait_s: doubles with each."""

    max_restarts: int
    first_wait_s: float = FIRST_WAIT_S


NO_RESTARTS = Limits(max_restarts=0)


class Outcome(NamedTuple):
    """How an attempt has ended.

    culprit: whom the first failure is held against; None: nobody that is known. step: the furthest that was
    reached or saved; 0: none that is known.
    """

    exit_code: ExitCode
    culprit: Optional[Place] = None
    port_taken: bool = False
    step: int = 0

    def fields(self) -> Mapping[str, Any]:
        """As JSON can hold it, and `fold` reads it."""
        culprit = None if self.culprit is None else self.culprit._asdict()
        return {**self._asdict(), "exit_code": int(self.exit_code), "culprit": culprit}

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Outcome:
        """The outcome that an event of the journal records."""
        values = {name: event[name] for name in cls._fields}
        culprit = None if values["culprit"] is None else Place(**values["culprit"])
        return cls(**{**values, "exit_code": ExitCode(values["exit_code"]), "culprit": culprit})


@dataclass(frozen=True)
class History:
    """What the attempts of a run have come to.

    step: the furthest of all. idle: attempts in a row that began and got no further. spent: restarts since
    the budget was full, the next one included. ports: attempts in a row whose port was taken. blamed: the
    culprits of the last attempts. excluded: whom no attempt uses again. saved: the furthest checkpoint of
    the attempt that is under way; None: none is.
    """

    last: Optional[Outcome] = None
    attempts: int = 0
    step: int = 0
    idle: int = 0
    spent: int = 0
    ports: int = 0
    blamed: Tuple[Optional[Place], ...] = ()
    excluded: FrozenSet[Place] = frozenset()
    saved: Optional[int] = None

    def for_new_launcher(self) -> History:
        """What another launcher goes on with. Somebody has started it, so that its budget is full."""
        return History(step=self.step, blamed=self.blamed, excluded=self.excluded)

    @property
    def exit_code(self) -> ExitCode:
        """The launcher's, if no other attempt follows the last one."""
        assert self.last is not None
        if self.last.exit_code is ExitCode.PREFLIGHT and self.attempts > 1:
            return ExitCode.INFRASTRUCTURE  # the machines were ready once
        return self.last.exit_code

    @property
    def suspect(self) -> Optional[Place]:
        """Who failed first in the last attempt, and often enough in those before it to be better left out."""
        if self.last is None or self.exit_code not in RETRIED:
            return None
        return self.last.culprit if self.blamed.count(self.last.culprit) >= BLAMED_TIMES else None

    @property
    def charge(self) -> str:
        """What speaks against the suspect."""
        times, of = self.blamed.count(self.suspect), len(self.blamed)
        return f"failed first in {times} of the last {of} attempts"

    @property
    def is_free(self) -> bool:
        """Whether the next restart costs nothing: it is for a port, and one of the first such in a row."""
        return 0 < self.ports <= FREE_RESTARTS


class Retry(NamedTuple):
    """Start again after so many seconds."""

    after_s: float
    reason: str


class End(NamedTuple):
    """The run ends with this exit code. `reason` is empty where the failure alone says enough."""

    exit_code: ExitCode
    reason: str = ""


def blame(failure: Optional[Failure], device: Optional[int]) -> Optional[Place]:
    """Whom the first failure of an attempt is held against; device: that of its rank.

    None where only an effect of it was seen, where it was the port or a disk, and for memory, which the
    kernel takes from whom it likes.
    """
    if failure is None or failure.sign not in (None, Sign.DEVICE) or is_consequence(failure):
        return None
    if failure.kind is Kind.OUT_OF_MEMORY:
        return None
    if failure.kind in (Kind.AGENT_LOST, Kind.NOT_STARTED):
        return Place(failure.host)
    return None if device is None else Place(failure.host, device)


def history_of(events: Iterable[Mapping[str, Any]]) -> History:
    """What the journal of a run tells. An attempt without an outcome has lost its launcher."""
    return _ended_without_a_word(reduce(fold, events, History()))


def fold(history: History, event: Mapping[str, Any]) -> History:
    """The history with one event of the journal more; many kinds change nothing."""
    kind = event.get("event")
    if kind == "attempt":
        return replace(_ended_without_a_word(history), saved=0)
    if kind == "checkpoint" and history.saved is not None and isinstance(event.get("step"), int):
        return replace(history, saved=max(history.saved, event["step"]))
    if kind == "outcome":
        return _ended(history, Outcome.of(event))
    if kind == "exclude":
        place = Place(event["host"], event["device"])
        blamed = tuple(other for other in history.blamed if other != place)
        # the others have their own chances
        return replace(history, excluded=history.excluded | {place}, blamed=blamed, idle=0)
    return history


def _ended_without_a_word(history: History) -> History:
    if history.saved is None:
        return history
    return _ended(history, Outcome(ExitCode.INFRASTRUCTURE, step=history.saved))


def _ended(history: History, outcome: Outcome) -> History:
    ports = history.ports + 1 if outcome.port_taken else 0
    history = replace(history, last=outcome, attempts=history.attempts + 1, ports=ports, saved=None)
    if history.is_free:
        return history
    gained = outcome.step - history.step
    has_begun = outcome.exit_code is not ExitCode.PREFLIGHT  # a host may take a while to come back
    spent, blamed = (0, ()) if gained >= REFILL_STEPS else (history.spent, history.blamed)
    return replace(
        history,
        step=max(history.step, outcome.step),
        idle=0 if gained > 0 else history.idle + has_begun,
        spent=spent + 1,
        blamed=(*blamed, outcome.culprit)[-BLAMED_OF:],
    )


def decide(limits: Limits, history: History, dice: float, shortage: str = "") -> Union[Retry, End]:
    """What follows the last outcome of the history.

    dice: a random number in [0, 1), for the jitter. shortage: why the job can not do without the suspect.
    """
    code = history.exit_code
    if limits.max_restarts == 0:
        return End(code)
    if code not in RETRIED:
        is_error = code is ExitCode.TRAINING_CODE
        return End(code, "an error of the code would come again: it is not tried again" if is_error else "")
    if history.is_free:
        return Retry(0, "another program took the port at which the ranks were to meet")
    advice = "repair what failed first in them"
    if history.suspect is not None:
        advice = f"{history.suspect} {history.charge}; without it {shortage}"
    if history.idle >= IDLE_ATTEMPTS:
        what = f"{history.idle} attempts in a row got no further than {_step(history)}"
        return End(ExitCode.NO_PROGRESS, f"{what}; {advice}")
    if history.spent > limits.max_restarts:
        count = limits.max_restarts
        what = "its only restart is used up" if count == 1 else f"all {count} restarts are used up"
        return End(code, f"{what}; {advice}")
    doublings = min(history.spent - 1, 60)  # more are too many for a float
    longest = min(limits.first_wait_s * 2**doublings, LONGEST_WAIT_S)
    return Retry(longest * (1 + dice) / 2, _reason(history))


def _step(history: History) -> str:
    return f"step {history.step}" if history.step else "the start"


def _reason(history: History) -> str:
    assert history.last is not None
    if history.last.culprit is None:
        return "no device or host is to blame, as far as is known"
    if history.suspect is None:
        return f"{history.last.culprit} failed"
    return f"{history.suspect} {history.charge}, and nothing can take its place"
