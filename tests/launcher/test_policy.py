"""What an attempt does next, event by event."""

from __future__ import annotations

import signal

import pytest
from policy_events import HUP, INT, RANKS, TERM, USR2, after, ended, follow, killed_by_us, raised, scheduler

from launcher.diagnosis import first_failure, remedy, sentence
from launcher.errors import ExitCode
from launcher.policy import (
    Action,
    AgentLost,
    Decision,
    Exited,
    Hung,
    Signalled,
    StacksTaken,
    State,
    TimeOver,
    decide,
    foremost,
    has_saved,
    outcome,
    verdict,
)


def test_all_ranks_end_well():
    state, actions = after(ended(1, 0), ended(0, 0), ended(2, 0))
    assert (actions, outcome(state), verdict(state)) == ([], ExitCode.DONE, None)


def test_the_scheduler_is_ended_when_its_ranks_have_ended():
    state, actions = after(ended(0, 0), ended(1, 0), ended(2, 0), helpers=["scheduler"])
    assert actions == [Action.STOP]
    state, actions = follow(state, scheduler(number=signal.SIGTERM, stopped=True))
    assert (actions, outcome(state), verdict(state)) == ([], ExitCode.DONE, None)


def test_a_scheduler_that_ends_with_its_ranks_needs_nothing():
    state, actions = after(ended(0, 0), ended(1, 0), scheduler(0), ended(2, 0), helpers=["scheduler"])
    assert (actions, outcome(state)) == ([], ExitCode.DONE)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (ended(1, 1), ExitCode.TRAINING_CODE),
        (ended(1, 139), ExitCode.TRAINING_CODE),
        (ended(1, number=signal.SIGKILL), ExitCode.INFRASTRUCTURE),
        (AgentLost("h1", 0, "exit code 255", frozenset(RANKS)), ExitCode.INFRASTRUCTURE),
    ],
)
def test_the_first_failure_stops_the_rest_once(first, code):
    state, actions = after(first, killed_by_us(0), killed_by_us(2))
    assert actions == [Action.STOP]
    assert outcome(state) == code
    assert verdict(state).what


def test_a_worker_that_reported_an_error_may_end_by_itself_first():
    state, actions = after(raised(1))
    assert actions == [Action.WAIT]
    state, actions = follow(state, ended(1, 1), killed_by_us(0), killed_by_us(2))
    assert actions == [Action.STOP]
    assert outcome(state) == ExitCode.TRAINING_CODE
    assert verdict(state).what == "ValueError: no"


def test_a_worker_that_reported_an_error_and_hangs_is_stopped_then_killed():
    _, actions = after(raised(1), TimeOver(), TimeOver(), TimeOver())
    assert actions == [Action.WAIT, Action.STOP, Action.KILL]
    _, (stop,) = decide(after(raised(1))[0], TimeOver())
    assert stop.reason == "rank 1: ValueError: no; it does not end by itself"


def test_several_errors_make_one_wait():
    _, actions = after(raised(1), raised(0), raised(2), ended(0, 1), ended(1, 1))
    assert actions == [Action.WAIT, Action.STOP]


def test_what_does_not_end_in_its_grace_is_killed_once():
    _, actions = after(ended(0, 1), TimeOver(), TimeOver())
    assert actions == [Action.STOP, Action.KILL]


@pytest.mark.parametrize("number", [INT, HUP])
def test_the_user_stops(number):
    state, actions = after(number, killed_by_us(0), killed_by_us(1), ended(2, 0))
    assert (actions, outcome(state), verdict(state)) == ([Action.STOP], ExitCode.STOPPED, None)


@pytest.mark.parametrize(
    ("event", "reason"),
    [(INT, "SIGINT: stopped by the user"), (HUP, "SIGHUP: its terminal was closed")],
)
def test_it_is_said_who_stopped_it(event, reason):
    _, (stop,) = decide(after()[0], event)
    assert stop == Decision(Action.STOP, reason)


def test_the_second_ctrl_c_kills_and_the_third_does_nothing():
    state, actions = after(INT, INT, INT, killed_by_us(0, signal.SIGKILL))
    assert (actions, outcome(state)) == ([Action.STOP, Action.KILL], ExitCode.STOPPED)


def test_a_terminal_that_closes_after_ctrl_c_does_not_cut_the_grace_short():
    assert after(INT, HUP)[1] == [Action.STOP]


def test_ctrl_c_before_the_start_does_not_wait():
    state, actions = follow(State(), INT)
    assert (actions, outcome(state)) == ([Action.KILL], ExitCode.STOPPED)


def test_ctrl_c_while_a_failed_attempt_ends_kills_and_the_failure_stands():
    state, actions = after(ended(1, 1), INT, killed_by_us(0), killed_by_us(2))
    assert (actions, outcome(state)) == ([Action.STOP, Action.KILL], ExitCode.TRAINING_CODE)


@pytest.mark.parametrize("number", [TERM, USR2])
def test_preemption_lets_the_ranks_save_and_leave(number):
    state, actions = after(number, ended(0, 75), ended(1, 75), ended(2, 75))
    assert (actions, outcome(state), verdict(state)) == ([Action.PREEMPT], ExitCode.PREEMPTED, None)
    assert has_saved(state)


def test_the_end_of_the_scheduler_takes_nothing_from_what_was_saved():
    state, actions = after(TERM, ended(0, 75), ended(1, 75), ended(2, 75), helpers=["scheduler"])
    state, _ = follow(state, scheduler(number=signal.SIGTERM, stopped=True))
    assert (outcome(state), has_saved(state)) == (ExitCode.PREEMPTED, True)


@pytest.mark.parametrize("sent", [[TERM], []], ids=["by us", "by others"])
def test_who_leaves_at_once_has_the_others_stopped(sent):
    state, actions = after(*sent, ended(0, number=signal.SIGUSR2), killed_by_us(1), killed_by_us(2))
    assert actions[len(sent) :] == [Action.STOP]
    assert (outcome(state), verdict(state)) == (ExitCode.PREEMPTED, None)
    assert not has_saved(state)


def test_preemption_at_the_very_end_is_none():
    state, _ = after(TERM, ended(0, 0), ended(1, 0), ended(2, 0))
    assert outcome(state) == ExitCode.DONE
    assert outcome(follow(State(), TERM)[0]) == ExitCode.PREEMPTED  # nothing had begun


def test_preemption_has_one_grace():
    state, actions = after(TERM, TERM, TimeOver(), ended(1, 75), killed_by_us(0, signal.SIGKILL))
    assert (actions, outcome(state)) == ([Action.PREEMPT, Action.KILL], ExitCode.PREEMPTED)
    assert not has_saved(state)


def test_a_host_that_is_lost_in_a_preemption_has_not_saved():
    state, _ = after(TERM, ended(0, 75), AgentLost("h2", 0, "gone", frozenset(RANKS[1:])))
    assert (outcome(state), has_saved(state)) == (ExitCode.PREEMPTED, False)


def test_ctrl_c_in_a_preemption_is_the_users_stop():
    state, actions = after(TERM, HUP, INT, killed_by_us(0), ended(1, 75), killed_by_us(2))
    assert (actions, outcome(state)) == ([Action.PREEMPT, Action.STOP], ExitCode.STOPPED)
    assert after(TERM, INT, INT)[1] == [Action.PREEMPT, Action.STOP, Action.KILL]
    state, actions = after(TERM, ended(0, 1), INT)
    assert (actions, outcome(state)) == ([Action.PREEMPT, Action.STOP, Action.KILL], ExitCode.STOPPED)


@pytest.mark.parametrize(
    ("numbers", "counts"),
    [
        ([signal.SIGTERM, signal.SIGINT], signal.SIGINT),
        ([signal.SIGTERM, signal.SIGHUP], signal.SIGTERM),
        ([signal.SIGHUP, signal.SIGTERM], signal.SIGHUP),
    ],
)
def test_of_several_signals_ctrl_c_counts(numbers, counts):
    assert foremost(numbers) == counts


def test_a_failure_in_a_preemption_stops_the_rest_and_is_named():
    state, actions = after(TERM, ended(0, 1), killed_by_us(1), killed_by_us(2))
    assert actions == [Action.PREEMPT, Action.STOP]
    assert outcome(state) == ExitCode.PREEMPTED
    assert verdict(state).rank == 0


def test_preemption_does_not_disturb_a_stop():
    assert after(INT, TERM)[1] == [Action.STOP]


def test_sigusr2_without_a_launcher_between():
    state, _ = after(ended(0, 75), ended(1, 75), ended(2, 75))
    assert outcome(state) == ExitCode.PREEMPTED


def test_an_agent_that_never_was_there_is_a_matter_of_preflight():
    state, actions = follow(State(), AgentLost("h2", 0, "exit code 255; no route to host"))
    assert (actions, outcome(state)) == ([Action.STOP], ExitCode.PREFLIGHT)
    assert sentence(verdict(state)) == "host h2 failed first: exit code 255; no route to host"


def hung(rank=1, what="hung since 14:03:12 (121 s) in phase train, data of step 6: blocked"):
    if rank is None:
        return Hung(None, None, None, "interconnect", what, 50)
    return Hung(f"rank-{rank:02}", rank, "h1", "blocked", what, 50)


def test_a_hang_has_its_stacks_taken_before_the_stop_and_its_own_exit_code():
    state, actions = after(hung(), StacksTaken(), killed_by_us(0), killed_by_us(1), killed_by_us(2))
    assert (actions, outcome(state)) == ([Action.STACKS, Action.STOP], ExitCode.HANG)
    assert sentence(verdict(state), device=3) == (
        "rank 1 (host h1, device 3) has hung since 14:03:12 (121 s) in phase train, data of step 6: blocked; "
        "the stacks of all ranks are at the ends of their logs"
    )


def test_a_hang_that_is_nobodys_names_nobody():
    state, _ = after(hung(None, "hung since 14:03:12 (121 s): all wait for each other"), StacksTaken())
    assert verdict(state).rank is None and outcome(state) == ExitCode.HANG
    assert sentence(verdict(state)).startswith("the ranks have hung since 14:03:12 (121 s): all wait")


def test_stacks_that_are_not_there_are_not_claimed():
    state, _ = after(hung(), StacksTaken(("rank-00", "rank-02")))
    assert "there are no stacks of rank-00, rank-02: " in sentence(verdict(state))
    state, _ = after(hung(), StacksTaken(tuple(f"rank-{rank:02}" for rank in range(20))))
    assert "rank-07, 12 others: " in sentence(verdict(state))


def test_stacks_that_come_late_do_not_cut_the_grace_short():
    state, actions = after(hung(), StacksTaken(("rank-01",)), StacksTaken())
    assert actions == [Action.STACKS, Action.STOP]
    assert follow(state, TimeOver())[1] == [Action.KILL]


@pytest.mark.parametrize("ending", [INT, TERM, ended(2, 1)])
def test_what_is_ending_already_does_not_hang(ending):
    before, actions = after(ending)
    assert follow(before, hung()) == (before, [])


def test_a_rank_that_ends_while_stacks_are_taken_ends_the_wait():
    state, actions = after(hung(), ended(0, number=signal.SIGTERM, at=60), StacksTaken())
    assert actions == [Action.STACKS, Action.STOP]
    assert verdict(state).rank == 1 and "stacks" not in sentence(verdict(state))


def test_nothing_failed():
    assert first_failure([]) is None


def test_a_rank_that_leaves_with_code_0_before_its_work_is_done_has_failed():
    state, actions = after(Exited("rank-00", 0, "h1", 1, code=0, phase="train"))
    assert actions == [Action.STOP]
    assert verdict(state).what == "exit code 0, before its work was done"
    assert remedy(verdict(state)).startswith("find what ends the program")


def crashed_at_exit(rank, phase="done"):
    return Exited(f"rank-{rank:02}", rank, "h1", 1, signal=signal.SIGSEGV, phase=phase)


def test_a_rank_that_crashes_after_its_work_is_done_has_done_it():
    state, actions = after(crashed_at_exit(0), ended(1, 0), ended(2, 0))
    assert (actions, outcome(state), verdict(state)) == ([], ExitCode.DONE, None)
    assert verdict(after(crashed_at_exit(0, "train"))[0]).rank == 0


def test_a_rank_that_has_saved_and_crashes_at_its_exit_has_left():
    state, actions = after(TERM, crashed_at_exit(0), ended(1, 75), ended(2, 75))
    assert (actions, outcome(state)) == ([Action.PREEMPT], ExitCode.PREEMPTED)
    assert has_saved(state)


def test_a_rank_that_answers_a_stop_with_code_0_has_not():
    state, _ = after(
        Signalled(signal.SIGINT), Exited("rank-00", 0, "h1", 1, code=0, stopped=True, phase="train")
    )
    assert not state.failures
