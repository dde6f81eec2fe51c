"""The restart policy: pure, over the kind of failure, the steps that were made, and who failed."""

from __future__ import annotations

import json
from functools import reduce

import pytest

from launcher.diagnosis import Failure, Kind
from launcher.errors import ExitCode
from launcher.retry import (
    FIRST_WAIT_S,
    FREE_RESTARTS,
    LONGEST_WAIT_S,
    REFILL_STEPS,
    End,
    History,
    Limits,
    Outcome,
    Retry,
    blame,
    decide,
    fold,
)
from launcher.selection import Place

TEN = Limits(max_restarts=10)
DEVICE = Place("h1", 3)
OTHER = Place("h1", 4)
FATAL = (
    ExitCode.DONE,
    ExitCode.USAGE,
    ExitCode.PREFLIGHT,
    ExitCode.TRAINING_CODE,
    ExitCode.PREEMPTED,
    ExitCode.STOPPED,
)


def failed(code=ExitCode.INFRASTRUCTURE, culprit=None, step=0, port_taken=False):
    return Outcome(code, culprit, port_taken, step)


def after(*outcomes):
    events = ({"event": "outcome", "time_ns": 1, "attempt": 1, **outcome.fields()} for outcome in outcomes)
    return reduce(fold, (json.loads(json.dumps(event)) for event in events), History())


def decided(*outcomes, limits=TEN, dice=0.0):
    return decide(limits, after(*outcomes), dice)


def climbing(count, by=1):
    """Failures of nobody in particular, each a little further."""
    return [failed(step=by * number) for number in range(1, count + 1)]


@pytest.mark.parametrize("code", [ExitCode.INFRASTRUCTURE, ExitCode.HANG])
def test_infrastructure_and_hangs_are_retried(code):
    assert isinstance(decided(failed(code)), Retry)
    assert decided(failed(code), limits=Limits(0)) == End(code)


@pytest.mark.parametrize("code", FATAL)
def test_what_would_come_again_or_is_wanted_is_not_retried(code):
    assert decided(failed(code)) == End(code)


def test_other_events_of_the_journal_change_nothing():
    assert fold(after(failed()), {"event": "verdict", "host": "h1"}) == after(failed())


def test_the_waits_double_to_a_limit_and_the_dice_take_up_to_half_of_them():
    waits = [decided(*climbing(n), dice=0.999999).after_s for n in range(1, 9)]
    assert waits == pytest.approx([FIRST_WAIT_S * 2**n for n in range(6)] + [LONGEST_WAIT_S] * 2, rel=1e-3)
    assert [decided(*climbing(n)).after_s for n in (1, 8)] == [FIRST_WAIT_S / 2, LONGEST_WAIT_S / 2]
    assert decided(*climbing(2000), limits=Limits(9999)).after_s == LONGEST_WAIT_S / 2


def test_the_budget_ends():
    assert isinstance(decided(*climbing(10)), Retry)
    assert decided(*climbing(11)) == End(ExitCode.INFRASTRUCTURE, "all 10 restarts are used up")


def test_good_steps_fill_the_budget_again():
    good = failed(step=REFILL_STEPS + 10)
    assert after(*climbing(10), good).spent == 1
    assert decided(*climbing(10), good).after_s == FIRST_WAIT_S / 2


def test_steps_that_were_made_before_are_not_good_ones():
    far = failed(step=5 * REFILL_STEPS)
    assert after(far, failed(step=5 * REFILL_STEPS)).spent == 2
    assert after(far, failed(step=4 * REFILL_STEPS)).step == 5 * REFILL_STEPS


def test_attempts_in_a_row_without_progress_are_the_end():
    assert isinstance(decided(failed(), failed()), Retry)
    reason = "3 attempts in a row got no further than the start"
    assert decided(failed(), failed(), failed(ExitCode.HANG)) == End(ExitCode.NO_PROGRESS, reason)
    reason = "3 attempts in a row got no further than step 7"
    assert decided(*[failed(step=7)] * 4) == End(ExitCode.NO_PROGRESS, reason)
    assert isinstance(decided(failed(), failed(), failed(step=1), failed(), failed()), Retry)


def test_a_device_that_fails_twice_is_excluded():
    assert after(failed(culprit=DEVICE)).excluded == frozenset()
    assert after(failed(culprit=DEVICE), failed(culprit=DEVICE)).excluded == {DEVICE}
    decision = decided(failed(culprit=DEVICE), failed(culprit=DEVICE))
    assert decision.reason == (
        "device 3 of h1 failed first in 2 of the last 2 attempts and is excluded from now on"
    )


def test_two_of_the_last_three_are_enough_and_two_of_four_are_not():
    twice = (failed(culprit=DEVICE), failed(culprit=OTHER), failed(culprit=DEVICE, step=1))
    assert after(*twice).excluded == {DEVICE}
    rare = (failed(culprit=DEVICE), failed(culprit=OTHER), failed(step=1), failed(culprit=DEVICE))
    assert after(*rare).excluded == frozenset()


def test_an_exclusion_stands_and_is_told_once():
    history = after(failed(culprit=DEVICE), failed(culprit=DEVICE), failed(culprit=OTHER))
    assert (history.excluded, history.newly) == ({DEVICE}, None)
    assert decide(TEN, history, 0).reason == "device 4 of h1 failed"


def test_other_devices_have_their_own_chances():
    assert isinstance(decided(failed(), failed(culprit=DEVICE), failed(culprit=DEVICE)), Retry)


def test_a_good_attempt_clears_the_blame():
    late = failed(culprit=DEVICE, step=REFILL_STEPS)
    assert after(failed(culprit=DEVICE), late).excluded == frozenset()


def test_nobody_is_excluded_for_failures_of_nobody():
    assert decided(failed()).reason == "no device or host is known to be at fault"
    assert after(failed(), failed(), failed()).excluded == frozenset()


def test_a_host_that_is_gone_in_a_later_attempt_is_retried():
    gone = failed(ExitCode.PREFLIGHT, Place("h2"))
    assert decided(gone) == End(ExitCode.PREFLIGHT)
    assert decided(failed(), gone).reason == "host h2 failed"
    assert after(failed(culprit=Place("h2")), gone).excluded == {Place("h2")}
    assert decided(failed(), failed(ExitCode.PREFLIGHT)).exit_code is ExitCode.INFRASTRUCTURE


def test_a_port_that_was_taken_costs_nothing_a_few_times():
    taken = failed(port_taken=True)
    history = after(*[taken] * FREE_RESTARTS)
    assert (history.spent, history.idle) == (0, 0)
    assert decide(TEN, history, 0.5).after_s == 0
    assert decided(*[taken] * (FREE_RESTARTS + 1), dice=0.5).after_s > 0
    assert decided(*[taken] * (FREE_RESTARTS + 3)).exit_code is ExitCode.NO_PROGRESS


def failure(kind, **more):
    fields = {"name": "rank-03", "rank": 3, "host": "h1", "kind": kind, "what": "", "time_ns": 1, **more}
    return Failure(**fields)


def test_blame_is_for_causes_alone():
    assert blame(failure(Kind.SIGNAL, signal=9), 3) == DEVICE
    assert blame(failure(Kind.SIGNAL, signal=15), 3) is None  # MindSpore ends itself when a peer is gone
    assert blame(failure(Kind.OUT_OF_MEMORY, signal=9), 3) is None
    assert blame(failure(Kind.RAISED, error=("Connection reset by peer",)), 3) is None
    assert blame(failure(Kind.EXIT_CODE, error=("Address already in use",)), 3) is None
    assert blame(failure(Kind.AGENT_LOST, name="agent", rank=None), None) == Place("h1")
    assert blame(failure(Kind.NOT_STARTED, name="agent", rank=None), None) == Place("h1")
    assert blame(failure(Kind.SIGNAL, name="scheduler", rank=None, signal=9), None) is None
    assert blame(None, None) is None
