from __future__ import annotations

import signal

import pytest

from launcher.diagnosis import SIGNALS, Failure, Kind, first_failure, followers, remedy, sentence
from launcher.errors import ExitCode
from launcher.policy import (
    Action,
    AgentLost,
    Decision,
    Exited,
    Hung,
    Raised,
    Signalled,
    StacksTaken,
    Started,
    State,
    TimeOver,
    decide,
    foremost,
    has_saved,
    outcome,
    verdict,
)

RANKS = ("rank-00", "rank-01", "rank-02")
INT, TERM, HUP, USR2 = (Signalled(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2))


def ended(rank, code=None, number=None, at=0, stopped=False, tail=()):
    return Exited(f"rank-{rank:02}", rank, "h1", at, code, number, stopped, tuple(tail))


def scheduler(code=None, number=None, stopped=False):
    return Exited("scheduler", None, "h1", 0, code, number, stopped)


def raised(rank, what="ValueError: no", at=0):
    return Raised(f"rank-{rank:02}", rank, "h1", at, what)


def killed_by_us(rank, number=signal.SIGTERM):
    return ended(rank, number=number, at=99, stopped=True)


def after(*events, helpers=()):
    """State, and what was done, after these events in a started attempt of three ranks."""
    return follow(decide(State(), Started(frozenset(RANKS), frozenset(helpers)))[0], *events)


def follow(state, *events):
    actions = []
    for event in events:
        state, decisions = decide(state, event)
        assert all(isinstance(decision, Decision) and decision.reason for decision in decisions)
        actions += [decision.action for decision in decisions]
    return state, actions


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


@pytest.mark.parametrize(
    ("events", "rank"),
    [
        # a SIGTERM that is not ours: MindSpore ends itself when it has lost another rank
        ([ended(0, number=signal.SIGTERM, at=1), ended(2, number=signal.SIGSEGV, at=2)], 2),
        ([ended(0, 1, at=1, tail=["AllReduceCPUKernelMod launch failed"]), ended(1, 1, at=2)], 1),
        ([raised(0, "RuntimeError: Connection reset by peer", at=1), raised(1, at=2)], 1),
        ([killed_by_us(2), ended(1, 7, at=100)], 1),
        ([ended(2, 1, at=5), ended(1, 1, at=4), ended(0, 1, at=6)], 1),
        ([ended(0, 1, at=5), raised(2, at=4), ended(2, 1, at=8)], 2),
    ],
)
def test_causes_come_before_consequences_then_time_decides(events, rank):
    state, _ = after(*events)
    assert verdict(state).rank == rank


def test_a_scheduler_that_gives_up_is_never_the_cause():
    state, _ = after(scheduler(1), ended(1, number=signal.SIGKILL, at=5), helpers=["scheduler"])
    assert verdict(state).rank == 1


def test_a_scheduler_that_was_killed_is_the_cause():
    state, _ = after(
        scheduler(number=signal.SIGKILL), ended(1, number=signal.SIGTERM, at=5), helpers=["scheduler"]
    )
    assert verdict(state).name == "scheduler"
    assert outcome(state) == ExitCode.INFRASTRUCTURE


@pytest.mark.parametrize(
    "first",
    [
        raised(0, "RuntimeError: Failed to bind to 127.0.0.1:20001", at=1),
        ended(0, 1, at=1, tail=["error: bind to port 20001 failed, errno 98", "bye"]),
        Exited("scheduler", None, "h1", 1, 1, tail=("OSError: [Errno 98] Address already in use",)),
    ],
)
def test_a_port_that_was_taken_meanwhile_is_the_infrastructures(first):
    state, _ = after(first, ended(1, 1, at=0, tail=["Connection refused"]), helpers=["scheduler"])
    assert verdict(state).name == first.name
    assert outcome(state) == ExitCode.INFRASTRUCTURE
    assert sentence(verdict(state)).endswith("start again, which takes another one")


INNOCENT = ["No space left on device: caching is off", "Connection reset by peer, retrying"]


def test_what_a_worker_reports_counts_and_not_the_rest_of_its_log():
    state, _ = after(raised(1, "ValueError: no", at=1), ended(1, 1, at=2, tail=[*INNOCENT, "ValueError: no"]))
    assert (verdict(state).what, outcome(state)) == ("ValueError: no", ExitCode.TRAINING_CODE)
    assert verdict(state).tail[0] == INNOCENT[0]


def test_a_log_without_the_words_does_not_make_a_cause_of_a_reported_effect():
    mindspore = "RuntimeError: \n-----\n- Kernel error:\n-----\nLaunch kernel failed: Default/AllReduce-op0\n"
    state, _ = after(raised(1, mindspore, at=1), ended(1, 1, at=2, tail=["kernel_actor.cc:995"]))
    assert outcome(state) == ExitCode.INFRASTRUCTURE
    assert verdict(state).what == "RuntimeError: Kernel error: Launch kernel failed: Default/AllReduce-op0"


def test_a_worker_that_reports_nothing_is_judged_by_the_last_error_in_its_log():
    state, _ = after(ended(1, 1, tail=[*INNOCENT, "ValueError: no"]))
    assert (verdict(state).what, outcome(state)) == ("exit code 1: ValueError: no", ExitCode.TRAINING_CODE)


def test_consequences_without_a_cause_are_the_infrastructures():
    state, _ = after(ended(0, 1, at=1, tail=["Connection reset by peer"]), killed_by_us(1))
    assert outcome(state) == ExitCode.INFRASTRUCTURE
    assert "no cause of it was seen" in sentence(verdict(state))


def test_the_sentence_says_who_where_why_and_where_to_read():
    failure = Failure("rank-03", 3, "h2", Kind.HUNG, "hung since 14:03", 0)
    assert sentence(failure, device=1, log="runs/x/rank-03.log") == (
        "rank 3 (host h2, device 1) has hung since 14:03; log: runs/x/rank-03.log"
    )


def test_a_process_that_the_kernel_killed_for_its_memory():
    state, _ = after(Exited("rank-01", 1, "h1", 5, signal=signal.SIGKILL, out_of_memory=True))
    assert verdict(state).kind is Kind.OUT_OF_MEMORY
    assert outcome(state) == ExitCode.INFRASTRUCTURE
    assert sentence(verdict(state)).startswith("rank 1 (host h1) failed first: out of memory: killed by the ")
    assert "use a smaller batch" in sentence(verdict(state))


@pytest.mark.parametrize(
    ("known", "text"),
    [(False, "; find out who sent it: a person"), (None, "; `dmesg` on its host tells which")],
)
def test_a_sigkill_of_somebody_is_told_from_one_that_nothing_is_known_of(known, text):
    state, _ = after(Exited("rank-01", 1, "h1", 5, signal=signal.SIGKILL, out_of_memory=known))
    assert verdict(state).kind is Kind.SIGNAL
    assert text in sentence(verdict(state))


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP, 40])
def test_every_signal_has_its_remedy(number):
    state, _ = after(Exited("rank-01", 1, "h1", 5, signal=number))
    assert remedy(verdict(state))


TRACEBACK = ("Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: no")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ended(1, 1, tail=TRACEBACK), "correct what the traceback in its log names"),
        (ended(1, 3, tail=["loading"]), "plan/rank-01.env beside its log tells how to run it by hand"),
        (ended(1, 3), "its log names no error"),
        (Raised("rank-01", 1, "h1", 5, "ValueError: no", TRACEBACK), "correct what the traceback in its log"),
    ],
)
def test_what_to_do_about_an_error_of_the_code(event, text):
    state, _ = after(event)
    assert text in sentence(verdict(state))


def test_a_broken_device_is_the_infrastructures():
    state, _ = after(
        raised(1, "RuntimeError: Init hccl failed.\nEJ0001: Failed to initialize the HCCP process.")
    )
    assert outcome(state) == ExitCode.INFRASTRUCTURE


def test_an_error_that_says_itself_what_to_do_is_left_at_that():
    told = "ConfigError: base_lr: is no number; write for example 0.1"
    state, _ = after(raised(1, told), ended(1, 1, at=2, tail=["error: base_lr: is no number; write ..."]))
    assert sentence(verdict(state)) == f"rank 1 (host h1) failed first: {told}"


def test_a_signal_without_a_name():
    state, _ = after(Exited("rank-01", 1, "h1", 5, signal=40))
    assert verdict(state).what == "killed by signal 40"


def test_equal_errors_are_told_once_with_their_ranks():
    state, _ = after(
        ended(3, number=signal.SIGSEGV, at=1),
        *(raised(r, f"RuntimeError: rank {r} has lost its peer at 0x7f{r}", at=10 + r) for r in (0, 1, 2, 5)),
        *(ended(r, 1, at=20 + r) for r in (0, 1, 2, 5)),
        scheduler(1),
        killed_by_us(4),
    )
    first = verdict(state)
    assert first.rank == 3
    assert followers(state.failures, first) == [
        "scheduler then: exit code 1",
        "ranks 0-2, 5 then: RuntimeError: rank 0 has lost its peer at 0x7f0",
    ]


def test_the_first_one_is_no_follower_of_itself():
    state, _ = after(raised(1), ended(1, 1, at=5), killed_by_us(0))
    assert followers(state.failures, verdict(state)) == []


def on(host, rank, at, error):
    return Exited(f"rank-{rank:02}", rank, host, at, 1, error_ns=error)


@pytest.mark.parametrize(("gap", "tells"), [(29, True), (31, False)])
def test_clocks_that_can_not_tell_who_was_first_are_told_of(gap, tells):
    state, _ = after(on("h1", 0, 100, error=10), on("h2", 1, 100 + gap, error=20))
    (line,) = followers(state.failures, verdict(state))
    assert ("as far as the hosts' clocks can tell" in line) == tells


def test_the_uncertainty_does_not_matter_on_one_host_or_for_what_is_an_effect():
    state, _ = after(on("h1", 0, 100, error=50), on("h1", 1, 101, error=50), on("h2", 2, 500, error=50))
    effect = Exited("rank-03", 3, "h2", 101, 1, tail=("Connection reset by peer",), error_ns=50)
    state, _ = follow(state, effect)
    assert "as far as" not in "".join(followers(state.failures, verdict(state)))


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
