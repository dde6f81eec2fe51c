from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.clocks import KEPT, Clock

MS = 1_000_000
S = 1000 * MS


class Host:
    """A host with a clock of its own, asked by a supervisor whose clock is the true time."""

    def __init__(self, offset_ns=0):
        self.offset_ns = offset_ns
        self.clock = Clock()

    def ask(self, at_ns, there_ns, back_ns):
        self.clock.add(
            at_ns + there_ns + self.offset_ns, at_ns + there_ns + back_ns, round_trip_ns=there_ns + back_ns
        )

    def error(self, at_ns):
        """By how much a time is wrong after correction, and by how much it is said to be wrong at most."""
        corrected = self.clock.correct(at_ns + self.offset_ns)
        return abs(corrected.time_ns - at_ns), corrected.error_ns


def test_the_shortest_round_trip_counts():
    host = Host(offset_ns=-450 * MS)
    for k, there_ns in enumerate((90 * MS, 1 * MS, 70 * MS)):
        host.ask(k * S, there_ns, back_ns=1 * MS)
    wrong_ns, said_ns = host.error(3 * S)
    assert wrong_ns == 0
    assert said_ns <= 1 * MS + S // 1000


def test_before_any_answer_a_time_stays_as_it_is():
    assert Clock().correct(123) == (123, 0)
    assert Clock().best is None


def test_a_clock_that_was_set_is_believed_at_once_and_the_old_answers_are_forgotten():
    host = Host()
    for k in range(10):
        host.ask(k * S, MS, MS)
    host.offset_ns += 300 * MS
    host.ask(10 * S, 20 * MS, 5 * MS)
    wrong_ns, said_ns = host.error(10 * S)
    assert wrong_ns <= said_ns < 15 * MS
    assert host.clock.best.offset_ns > 290 * MS


def test_a_clock_that_drifts_is_followed():
    """100 parts in a million: 60 ms in ten minutes, of which an old answer knows nothing."""
    host = Host()
    host.ask(0, 10_000, 10_000)  # none was quicker than the first
    for k in range(1, 300):
        at_ns = k * 2 * S
        host.offset_ns = at_ns // 10_000
        host.ask(at_ns, MS, MS)
        wrong_ns, said_ns = host.error(at_ns)
        assert wrong_ns <= said_ns
    assert said_ns <= 2 * MS


def test_it_keeps_few():
    host = Host()
    for k in range(10 * KEPT):
        host.ask(k * S, MS, MS)
    assert len(host.clock._trips) == KEPT


delays = st.integers(0, 200 * MS)


@given(st.integers(-3600 * S, 3600 * S), st.lists(st.tuples(delays, delays), min_size=1, max_size=40))
def test_a_time_is_never_wrong_by_more_than_is_said(offset_ns, trips):
    host = Host(offset_ns)
    at_ns = 0
    for there_ns, back_ns in trips:
        host.ask(at_ns, there_ns, back_ns)
        at_ns += there_ns + back_ns + 2 * S
    wrong_ns, said_ns = host.error(at_ns)
    assert wrong_ns <= said_ns + 1  # half a nanosecond is rounded away
    assert len(host.clock._trips) == min(
        len(trips), KEPT
    )  # a steady clock was not taken for one that was set
