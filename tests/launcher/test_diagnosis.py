"""Which rank failed first, and what is said of it."""

from __future__ import annotations

import signal

import pytest
from policy_events import after, ended, follow, killed_by_us, raised, scheduler

from launcher.diagnosis import SIGNALS, Failure, Kind, followers, remedy, sentence
from launcher.errors import ExitCode
from launcher.policy import (
    Exited,
    Raised,
    outcome,
    verdict,
)


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
