"""Whether a run that has failed is started again, when, and without which devices. Pure: no clock, no dice.

fold(history, event) takes in how an attempt has ended, also from the journal of an earlier launcher;
decide(limits, history, dice) says what follows. It works on the kind of failure:

    not retried   done, stopped, preempted; usage (2), an error of the training code (4), and machines that
                  are not ready (3) for the first attempt
    retried       the infrastructure (5), a hang (6), machines that are no longer ready
    at once       another program took the port: a few times, at no cost
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, FrozenSet, Mapping, NamedTuple, Optional, Tuple, Union

from launcher.diagnosis import Failure, Kind, is_consequence
from launcher.errors import ExitCode
from launcher.selection import Place

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
REFILL_STEPS = 100  # an attempt that gets so much further has been good: budget and blame begin anew
IDLE_ATTEMPTS = 3  # so many in a row without a new step are the end
BLAMED_TIMES, BLAMED_OF = 2, 3  # who fails first in so many of so many attempts is excluded
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

    step: the furthest of all. idle: attempts in a row that got no further. spent: restarts since the budget
    was full, the next one included. ports: attempts in a row whose port was taken. blamed: culprits of the
    last attempts. excluded: whom no attempt uses again. newly: whom the last outcome has excluded.
    """

    last: Optional[Outcome] = None
    attempts: int = 0
    step: int = 0
    idle: int = 0
    spent: int = 0
    ports: int = 0
    blamed: Tuple[Optional[Place], ...] = ()
    excluded: FrozenSet[Place] = frozenset()
    newly: Optional[Place] = None

    @property
    def is_free(self) -> bool:
        """Whether the next restart costs nothing: it is for a port, and one of the first such in a row."""
        return 0 < self.ports <= FREE_RESTARTS


class Retry(NamedTuple):
    """Start again after so many seconds; where nothing is left to start on, end with this exit code."""

    after_s: float
    reason: str
    exit_code: ExitCode


class End(NamedTuple):
    """The run ends with this exit code. `reason` is empty where the failure alone says enough."""

    exit_code: ExitCode
    reason: str = ""


def blame(failure: Optional[Failure], device: Optional[int]) -> Optional[Place]:
    """Whom the first failure of an attempt is held against; device: that of its rank.

    None where only an effect of it was seen, where it was the port or a disk, and for memory, which the
    kernel takes from whom it likes.
    """
    if failure is None or failure.sign is not None or is_consequence(failure):
        return None
    if failure.kind is Kind.OUT_OF_MEMORY:
        return None
    if failure.kind in (Kind.AGENT_LOST, Kind.NOT_STARTED):
        return Place(failure.host)
    return None if device is None else Place(failure.host, device)


def fold(history: History, event: Mapping[str, Any]) -> History:
    """The history with one event of the journal; all but `outcome` change nothing."""
    if event["event"] != "outcome":
        return history
    outcome = Outcome.of(event)
    ports = history.ports + 1 if outcome.port_taken else 0
    history = replace(history, last=outcome, attempts=history.attempts + 1, ports=ports, newly=None)
    if history.is_free:
        return history
    gained = outcome.step - history.step
    spent, blamed = (0, ()) if gained >= REFILL_STEPS else (history.spent, history.blamed)
    blamed = (*blamed, outcome.culprit)[-BLAMED_OF:]
    is_new = outcome.culprit is not None and blamed.count(outcome.culprit) >= BLAMED_TIMES
    newly = outcome.culprit if is_new else None
    return replace(
        history,
        step=max(history.step, outcome.step),
        idle=0 if gained > 0 or newly else history.idle + 1,  # other devices have their own chances
        spent=spent + 1,
        blamed=blamed,
        excluded=history.excluded | ({newly} if newly else set()),
        newly=newly,
    )


def decide(limits: Limits, history: History, dice: float) -> Union[Retry, End]:
    """What follows the last outcome of the history. dice: a random number in [0, 1), for the jitter."""
    outcome = history.last
    assert outcome is not None
    code = outcome.exit_code
    if code is ExitCode.PREFLIGHT and history.attempts > 1:
        code = ExitCode.INFRASTRUCTURE  # the machines were ready once
    if code not in (ExitCode.INFRASTRUCTURE, ExitCode.HANG) or limits.max_restarts == 0:
        return End(code)
    if history.is_free:
        return Retry(0, "another program took the port at which the ranks were to meet", code)
    if history.idle >= IDLE_ATTEMPTS:
        return End(
            ExitCode.NO_PROGRESS, f"{history.idle} attempts in a row got no further than {_step(history)}"
        )
    if history.spent > limits.max_restarts:
        return End(code, f"all {limits.max_restarts} restarts are used up")
    doublings = min(history.spent - 1, 60)  # more are too many for a float
    longest = min(limits.first_wait_s * 2**doublings, LONGEST_WAIT_S)
    return Retry(longest * (1 + dice) / 2, _reason(history, outcome), code)


def _step(history: History) -> str:
    return f"step {history.step}" if history.step else "the start"


def _reason(history: History, outcome: Outcome) -> str:
    if outcome.culprit is None:
        return "no device or host is known to be at fault"
    who = f"{outcome.culprit} failed"
    if history.newly is None:
        return who
    attempts = len(history.blamed)
    return f"{who} first in {BLAMED_TIMES} of the last {attempts} attempts and is excluded from now on"
