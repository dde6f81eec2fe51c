"""How far a host's clock is from the supervisor's, learnt from the messages between them. Pure: no clock.

Cristian's algorithm (1989): of a question and its answer with the other clock's time in it only the round
trip is known; the answer was made somewhere within, so the middle is wrong by at most the half of it.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, NamedTuple, Optional

KEPT = 64  # round trips, two minutes of them
DRIFT = 200e-6  # by which two clocks may move apart, in seconds a second: crystals, and what NTP corrects


class RoundTrip(NamedTuple):
    """offset_ns: the other clock minus ours, known to error_ns; at_ns: our clock when the answer came."""

    offset_ns: int
    error_ns: int
    at_ns: int


class Corrected(NamedTuple):
    """A time by the supervisor's clock, and by how much it may be wrong."""

    time_ns: int
    error_ns: int


class Clock:
    """The clock of one host as the supervisor knows it."""

    def __init__(self) -> None:
        self._trips: Deque[RoundTrip] = deque(maxlen=KEPT)

    def add(self, remote_ns: int, received_ns: int, round_trip_ns: int) -> None:
        """Takes an answer into account.

        remote_ns: the host's CLOCK_REALTIME in it. received_ns: the supervisor's when it came. round_trip_ns:
        since the question was sent, by a clock that is never set.
        """
        half_ns = max(0, round_trip_ns) // 2
        new = RoundTrip(remote_ns - (received_ns - half_ns), half_ns, received_ns)
        if self._trips and not all(_agree(old, new) for old in self._trips):
            self._trips.clear()  # one of the two clocks was set
        self._trips.append(new)

    @property
    def best(self) -> Optional[RoundTrip]:
        """The round trip that says most: a short one, or a recent one as clocks drift; None without any."""
        if not self._trips:
            return None
        now_ns = self._trips[-1].at_ns
        return min(
            (trip._replace(error_ns=_error_ns(trip, now_ns)) for trip in self._trips),
            key=lambda trip: trip.error_ns,
        )

    def correct(self, time_ns: int) -> Corrected:
        """A time of the host's clock by the supervisor's; as it is while nothing is known of the host's."""
        best = self.best
        return Corrected(time_ns, 0) if best is None else Corrected(time_ns - best.offset_ns, best.error_ns)


def _error_ns(trip: RoundTrip, now_ns: int) -> int:
    return trip.error_ns + int(abs(now_ns - trip.at_ns) * DRIFT)


def _agree(old: RoundTrip, new: RoundTrip) -> bool:
    """Whether one offset, with the drift since, explains both."""
    return abs(old.offset_ns - new.offset_ns) <= _error_ns(old, new.at_ns) + new.error_ns
