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
    history_of,
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


def event(kind, **fields):
    """An event as it comes back from the journal."""
    return json.loads(json.dumps({"event": kind, "time_ns": 1, "attempt": 1, **fields}))


def outcome(*args, **more):
    return event("outcome", **failed(*args, **more).fields())


def excluded(place):
    return event("exclude", **place._asdict(), who=str(place), reason="")


def after(*outcomes):
    return reduce(fold, (event("outcome", **outcome.fields()) for outcome in outcomes), History())


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
    decision = decided(failed(code))
    assert (type(decision), decision.exit_code) == (End, code)
    assert bool(decision.reason) == (code is ExitCode.TRAINING_CODE)  # the others say it all themselves


def test_other_events_of_the_journal_change_nothing():
    assert fold(after(failed()), {"event": "verdict", "host": "h1"}) == after(failed())


def test_the_waits_double_to_a_limit_and_the_dice_take_up_to_half_of_them():
    waits = [decided(*climbing(n), dice=0.999999).after_s for n in range(1, 9)]
    assert waits == pytest.approx([FIRST_WAIT_S * 2**n for n in range(6)] + [LONGEST_WAIT_S] * 2, rel=1e-3)
    assert [decided(*climbing(n)).after_s for n in (1, 8)] == [FIRST_WAIT_S / 2, LONGEST_WAIT_S / 2]
    assert decided(*climbing(2000), limits=Limits(9999)).after_s == LONGEST_WAIT_S / 2


def test_the_budget_ends():
    assert isinstance(decided(*climbing(10)), Retry)
    advice = "repair what failed first in them"
    assert decided(*climbing(11)) == End(ExitCode.INFRASTRUCTURE, f"all 10 restarts are used up; {advice}")
    only = End(ExitCode.INFRASTRUCTURE, f"its only restart is used up; {advice}")
    assert decided(*climbing(2), limits=Limits(1)) == only


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
    reason = "3 attempts in a row got no further than the start; repair what failed first in them"
    assert decided(failed(), failed(), failed(ExitCode.HANG)) == End(ExitCode.NO_PROGRESS, reason)
    reason = "3 attempts in a row got no further than step 7; repair what failed first in them"
    assert decided(*[failed(step=7)] * 4) == End(ExitCode.NO_PROGRESS, reason)
    assert isinstance(decided(failed(), failed(), failed(step=1), failed(), failed()), Retry)


def test_a_device_that_fails_first_twice_is_a_suspect():
    assert after(failed(culprit=DEVICE)).suspect is None
    history = after(failed(culprit=DEVICE), failed(culprit=DEVICE))
    assert (history.suspect, history.charge) == (DEVICE, "failed first in 2 of the last 2 attempts")


def test_two_of_the_last_three_are_enough_and_two_of_four_are_not():
    assert after(failed(culprit=DEVICE), failed(culprit=OTHER), failed(culprit=DEVICE)).suspect == DEVICE
    rare = (failed(culprit=DEVICE), failed(culprit=OTHER), failed(step=1), failed(culprit=DEVICE))
    assert after(*rare).suspect is None


@pytest.mark.parametrize("code", FATAL)
def test_who_ends_what_is_not_tried_again_is_no_suspect(code):
    history = after(failed(culprit=DEVICE), failed(code, culprit=DEVICE))
    assert history.suspect == (DEVICE if code is ExitCode.PREFLIGHT else None)  # the machines were ready once


def test_an_exclusion_stands_and_gives_the_others_their_own_chances():
    history = fold(after(failed(), failed(culprit=DEVICE), failed(culprit=DEVICE)), excluded(DEVICE))
    assert (history.excluded, history.idle, history.suspect) == ({DEVICE}, 0, None)
    assert decide(TEN, history, 0).reason == "device 3 of h1 failed"
    history = fold(history, outcome(culprit=OTHER))
    assert decide(TEN, history, 0).reason == "device 4 of h1 failed"


def test_a_suspect_that_nothing_replaces_is_restarted_as_long_as_there_is_progress():
    twice = [failed(culprit=DEVICE, step=step) for step in (1, 2)]
    shortage = "7 of 8 devices are left"
    decision = decide(TEN, after(*twice), 0, shortage)
    assert decision.reason == (
        "device 3 of h1 failed first in 2 of the last 2 attempts, and nothing can take its place"
    )
    end = decide(TEN, after(*twice, *[failed(culprit=DEVICE, step=2)] * 3), 0, shortage)
    assert end == End(
        ExitCode.NO_PROGRESS,
        "3 attempts in a row got no further than step 2; "
        "device 3 of h1 failed first in 3 of the last 3 attempts; without it 7 of 8 devices are left",
    )


def test_a_good_attempt_clears_the_blame():
    late = failed(culprit=DEVICE, step=REFILL_STEPS)
    assert after(failed(culprit=DEVICE), late).suspect is None


def test_nobody_is_excluded_for_failures_of_nobody():
    assert decided(failed()).reason == "no device or host is to blame, as far as is known"
    assert after(failed(), failed(), failed()).suspect is None


def test_a_host_that_is_gone_in_a_later_attempt_is_retried():
    gone = failed(ExitCode.PREFLIGHT, Place("h2"))
    assert decided(gone) == End(ExitCode.PREFLIGHT)
    assert decided(failed(), gone).reason == "host h2 failed"
    assert after(failed(culprit=Place("h2")), gone).suspect == Place("h2")
    assert after(failed(), failed(ExitCode.PREFLIGHT)).exit_code is ExitCode.INFRASTRUCTURE


def test_a_host_that_takes_long_to_come_back_is_waited_for_until_the_restarts_are_used_up():
    gone = failed(ExitCode.PREFLIGHT, Place("h2"))
    lost = failed(culprit=Place("h2"), step=50)
    assert decided(lost, *[gone] * 9).after_s == LONGEST_WAIT_S / 2
    assert decided(lost, *[gone] * 10).reason.startswith("all 10 restarts are used up; ")
    assert after(lost, lost, gone, lost).idle == 2


def test_a_port_that_was_taken_costs_nothing_a_few_times():
    taken = failed(port_taken=True)
    history = after(*[taken] * FREE_RESTARTS)
    assert (history.spent, history.idle) == (0, 0)
    assert decide(TEN, history, 0.5).after_s == 0
    assert decided(*[taken] * (FREE_RESTARTS + 1), dice=0.5).after_s > 0
    assert decided(*[taken] * (FREE_RESTARTS + 3)).exit_code is ExitCode.NO_PROGRESS


def test_a_journal_tells_what_has_happened():
    history = history_of(
        [
            event("attempt", run="r"),
            event("checkpoint", path="a", step=40),
            outcome(culprit=DEVICE, step=45),
            event("attempt", run="r"),
            outcome(culprit=DEVICE, step=50),
            excluded(DEVICE),
        ]
    )
    assert (history.attempts, history.step, history.excluded, history.spent) == (2, 50, {DEVICE}, 2)


def test_an_attempt_whose_launcher_was_lost_counts_with_what_it_has_saved():
    lost = [event("attempt"), event("checkpoint", path="a", step=40), event("phase", phase="train")]
    history = history_of(lost)
    assert (history.attempts, history.step, history.last) == (1, 40, failed(step=40))
    history = history_of([*lost, event("attempt"), event("checkpoint", path="b"), outcome(step=45)])
    assert (history.attempts, history.step, history.idle) == (2, 45, 0)


def test_a_new_launcher_knows_what_is_broken_and_has_all_its_restarts():
    before = [event("attempt"), outcome(culprit=OTHER, step=7)] * 3
    history = history_of([*before, excluded(DEVICE)]).for_new_launcher()
    assert (history.step, history.excluded) == (7, {DEVICE})
    assert decide(TEN, fold(history, outcome(step=7)), 0).after_s == FIRST_WAIT_S / 2
    assert fold(history, outcome(culprit=OTHER, step=7)).suspect == OTHER
    assert decide(TEN, fold(history, outcome(ExitCode.PREFLIGHT)), 0) == End(ExitCode.PREFLIGHT)


def failure(kind, **more):
    fields = {"name": "rank-03", "rank": 3, "host": "h1", "kind": kind, "what": "", "time_ns": 1, **more}
    return Failure(**fields)


def test_blame_is_for_causes_alone():
    assert blame(failure(Kind.SIGNAL, signal=9), 3) == DEVICE
    assert blame(failure(Kind.SIGNAL, signal=15), 3) is None  # MindSpore ends itself when a peer is gone
    assert blame(failure(Kind.OUT_OF_MEMORY, signal=9), 3) is None
    assert blame(failure(Kind.RAISED, error=("Connection reset by peer",)), 3) is None
    assert blame(failure(Kind.EXIT_CODE, error=("Address already in use",)), 3) is None
    assert blame(failure(Kind.RAISED, error=("EJ0002: the link of the NPU is down",)), 3) == DEVICE
    assert blame(failure(Kind.AGENT_LOST, name="agent", rank=None), None) == Place("h1")
    assert blame(failure(Kind.NOT_STARTED, name="agent", rank=None), None) == Place("h1")
    assert blame(failure(Kind.SIGNAL, name="scheduler", rank=None, signal=9), None) is None
    assert blame(None, None) is None
