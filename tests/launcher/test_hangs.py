from __future__ import annotations

import pytest
from told_run import DISK, HANG_S, PHASE_S, RUNNING, SECOND, START_S, STOPPED, TRACED, Run, at_data

from launcher.hangs import LOOK_S
from launcher.limits import FACTOR, UNEVEN_SHARE


@pytest.mark.parametrize(
    ("seen", "kind", "words"),
    [
        ({}, "blocked", "asleep, without processor time"),
        ({"wchan": "hrtimer_nanosleep"}, "blocked", "asleep in hrtimer_nanosleep"),
        ({"busy": [1]}, "spinning", "spins"),
        ({"stopped": [77]}, "stopped", "its process 77 is stopped by a signal"),
    ],
)
def test_who_is_not_in_the_collective_is_named_with_what_it_does(seen, kind, words):
    hung = at_data(1).judge(**seen)
    assert (hung.name, hung.rank, hung.host, hung.kind) == ("rank-01", 1, "h1", kind)
    assert words in hung.what
    assert "in phase train, data of step 6" in hung.what
    assert hung.what.endswith("; ranks 0, 2 wait in phase train, step 6")
    assert hung.time_ns == 26 * SECOND  # of its last sign of progress


def test_those_who_wait_may_spin_and_are_not_to_blame_for_it():
    hung = at_data(1).judge(busy=[0, 2])
    assert (hung.rank, hung.kind) == (1, "blocked")


def test_a_spinner_that_gets_no_core_is_one_nevertheless():
    hung = at_data(1).judge(states={1: RUNNING})
    assert hung.kind == "spinning"


def test_children_that_compute_are_told():
    run = at_data(0)
    run.now += HANG_S + 1
    assert run.look(group_cpu_s=5.0) is None
    assert "while its child processes compute" in run.look(after=1.0, group_cpu_s=6.0).what


def test_a_disk_that_never_answers_is_told():
    hung = at_data(1).judge(after=PHASE_S + 1, states={1: DISK}, wchan="nfs_wait")
    assert hung.rank == 1 and "blocked in the kernel in nfs_wait (state D)" in hung.what


def test_who_has_not_left_the_collective_before_is_named():
    run = Run().trained(5)
    run.enter("data", 6)
    run.enter("step", 6)
    run.say("step", 0, 1, step=6)
    run.enter("data", 7, 0, 1)
    run.enter("step", 7, 0, 1)
    hung = run.judge()
    assert hung.rank == 2 and "phase train, step 6: blocked" in hung.what


def test_an_earlier_sum_is_behind_a_later_one_of_the_same_step():
    run = Run().trained(5)
    run.say("phase", phase="eval")
    run.say("enter", what="gather", step=5, count=1)
    run.say("enter", 0, 2, what="gather", step=5, count=2)
    assert run.judge(after=PHASE_S + 1).rank == 1


def test_all_in_the_collective_is_nobodys_fault_that_can_be_named():
    run = Run().trained(5)
    run.enter("data", 6)
    run.enter("step", 6)
    hung = run.judge()
    assert (hung.name, hung.rank, hung.host, hung.kind) == (None, None, None, "interconnect")
    assert "phase train, step 6: all wait for each other" in hung.what


@pytest.mark.parametrize(("busy", "rank", "kind"), [([2], 2, "spinning"), ([0, 1], 2, "blocked")])
def test_a_single_one_that_differs_in_the_collective_is_not_waiting(busy, rank, kind):
    run = Run().trained(5)
    run.enter("step", 6)
    hung = run.judge(busy=busy)
    assert (hung.rank, hung.kind) == (rank, kind)


def test_of_two_that_differ_it_can_not_be_said_which_waits():
    run = Run(2).trained(5)
    run.enter("step", 6)
    assert run.judge(busy=[0]).rank is None


def test_a_storage_that_does_not_answer_is_no_single_ranks_fault():
    run = Run().trained(5)
    for rank in run.ranks:
        run.enter("data", 6, rank, after=0.3)
    hung = run.judge()
    assert (hung.rank, hung.kind) == (None, "shared")


def test_one_rank_alone_has_nobody_to_wait_for():
    run = Run(1).trained(5)
    run.enter("step", 6)
    hung = run.judge()
    assert (hung.rank, hung.kind) == (0, "blocked") and "wait in" not in hung.what


def test_shares_of_an_evaluation_are_judged_one_by_one():
    run = Run(2).trained(5)
    run.say("phase", phase="eval")
    for done in range(0, 2000, 100):
        run.say("enter", 0, what="eval", step=done, after=100)
    hung = run.judge(after=0)
    assert hung.rank == 1 and hung.kind == "blocked"


# --- no false alarm


def test_a_long_compile_is_none():
    run = Run()
    run.say("phase", phase="compile")
    run.enter("data", 1)
    run.enter("step", 1)
    assert run.is_quiet(after=PHASE_S - 10)


def test_a_long_save_of_rank_0_is_none_and_the_others_wait_as_long():
    run = Run().trained(5)
    run.say("phase", 0, phase="save")
    run.enter("save", 5, 0)
    run.enter("data", 6, 1, 2)
    run.enter("step", 6, 1, 2)
    assert run.is_quiet(after=PHASE_S - 10)


def test_a_long_evaluation_is_none_and_the_next_goes_by_it():
    run = Run().trained(5)
    run.say("phase", phase="eval")
    assert run.is_quiet(after=PHASE_S - 10)
    run.say("phase", phase="train", after=-PHASE_S + 210)  # in truth it took 201 s
    run.say("phase", phase="eval")
    assert run.is_quiet(after=FACTOR * 200)
    assert run.hangs.suspects(run.now + 20)


@pytest.mark.parametrize(("phase", "waiting"), [("save", [1, 2]), ("eval", [])])
def test_a_slow_one_after_quick_ones_is_none(phase, waiting):
    run = Run().trained(5)
    acting = [rank for rank in run.ranks if rank not in waiting]
    for step in (6, 7):
        run.say("phase", *acting, phase=phase)
        run.say("phase", *acting, phase="train", after=0.5)
        run.steps(step, step)
    run.say("phase", *acting, phase=phase)
    for rank in waiting:
        run.enter("step", 8, rank)
    assert run.is_quiet(after=PHASE_S * UNEVEN_SHARE - 10)
    assert run.look(after=20).kind == ("blocked" if waiting else "shared")


@pytest.mark.parametrize("work", [{"moving": [0]}, {"states": {0: DISK}}])
@pytest.mark.parametrize(("phase", "what"), [("save", "save"), ("train", "data")])
def test_who_waits_for_its_storage_is_slow_but_not_for_ever(work, phase, what):
    run = at_data(0)
    run.say("phase", 0, phase=phase)
    run.enter(what, 6, 0)
    silent_since = run.now
    while run.now < silent_since + PHASE_S - 2 * LOOK_S:
        assert run.look(after=LOOK_S, **work) is None and not run.hangs.suspects(run.now)
    assert run.look(after=3 * LOOK_S, **work).rank == 0


def test_who_waited_for_its_storage_and_stopped_is_hung_as_long_after_that():
    run = at_data(1)
    for _ in range(20):
        assert run.look(after=LOOK_S, moving=[1]) is None
    assert run.is_quiet(after=HANG_S - 5)
    assert run.look(after=LOOK_S).rank == 1


def test_a_device_that_blocks_a_rank_in_the_collective_is_no_storage():
    run = Run().trained(5)
    run.enter("step", 6)
    run.say("step", 0, 2, step=6)
    run.enter("step", 7, 0, 2)
    assert run.judge(states={1: DISK}).rank == 1


def test_others_that_are_made_to_wait_do_not_raise_the_limit_of_a_step():
    run = Run().trained(5)
    run.say("phase", 0, phase="save")
    run.enter("step", 6, 1, 2)
    run.say("phase", 0, phase="train", after=500)
    run.enter("step", 6, 0)
    run.say("step", 1, 2, 0, step=6, after=1)
    assert run.hangs.limits.of("train") == HANG_S


def test_limits_are_learnt_and_told_when_they_change_notably():
    run = Run()
    assert run.hangs.limits.of("train") == PHASE_S
    run.trained(3)
    assert run.hangs.limits.of("train") == PHASE_S and not run.hangs.limits.news()
    run.steps(4, 6, 13.0)
    assert run.hangs.limits.of("train") == FACTOR * 13
    (told,) = run.hangs.limits.news()
    assert (told.phase, told.limit_s, told.longest_s) == ("train", 65.0, 13.0)
    run.steps(7, 7, 14.0)
    assert run.hangs.limits.of("train") == 70 and not run.hangs.limits.news()
    run.steps(8, 8, 1000.0)
    assert [told.limit_s for told in run.hangs.limits.news()] == [PHASE_S]  # the collectives' own is above it


def test_a_program_that_says_nothing_is_never_judged_by_its_silence():
    run = Run()
    assert run.is_quiet(after=1e6)
    assert run.hangs.wants_look(run.now + LOOK_S)  # but it is looked after


def test_a_program_that_tells_of_its_steps_alone_hangs_without_a_name():
    run = Run()
    for step in range(1, 7):
        run.say("step", 0, step=step, after=1)
    assert run.is_quiet(after=PHASE_S - 10)
    hung = run.look(after=20)
    assert hung.rank is None


def test_who_does_not_come_to_the_meeting_is_named():
    run = Run()
    run.say("phase", 0, 2, phase="init")
    run.enter("join", 0, 0, 2)
    hung = run.judge(after=START_S + 1)
    assert hung.rank == 1 and hung.what.endswith("ranks 0, 2 wait in phase init, meeting the others")


def test_lines_that_are_no_progress_do_not_help():
    run = at_data(1)
    for _ in range(7):
        run.say("metric", 1, after=10)  # perhaps of a thread
        run.say("no such event", 1)
    assert run.judge(after=0).rank == 1


def test_a_word_between_the_looks_clears_a_suspect():
    run = at_data(1)
    run.now += HANG_S + 1
    assert run.look() is None
    run.enter("step", 6, 1)
    assert run.look(after=1.0) is None and not run.hangs.suspects(run.now)


def test_looks_from_before_a_word_are_no_evidence():
    run = at_data(1)
    assert [run.look(after=LOOK_S, busy=[1]) for _ in range(2)] == [None, None]
    run.enter("data", 6, 1)
    assert run.judge(after=FACTOR * 2 * LOOK_S + 1).kind == "blocked"


def test_of_several_the_first_that_went_silent_is_named():
    run = Run().trained(5)
    run.enter("step", 6, 1)
    run.enter("data", 6, 2)
    run.enter("data", 6, 0, after=5)
    hung = run.judge()
    assert hung.rank == 2 and hung.what.endswith("; rank 1 waits in phase train, step 6")


def test_a_rank_that_a_debugger_holds_is_left_alone():
    run = at_data(1)
    run.now += HANG_S + 1
    assert [run.look(after=10.0, states={1: TRACED}) for _ in range(3)] == [None] * 3


# --- stopped


def test_a_stopped_process_is_named_in_any_phase_long_before_its_limit():
    run = Run()
    run.say("phase", phase="compile")
    begin = run.now
    while (hung := run.look(after=LOOK_S, states={2: STOPPED})) is None:
        assert run.now - begin < 60
    assert (hung.rank, hung.kind) == (2, "stopped") and "phase compile" in hung.what
    assert 20 <= run.now - begin <= 30


def test_a_silent_programs_stop_is_seen_too_and_a_short_one_is_forgiven():
    run = Run()
    assert run.look(after=LOOK_S, states={0: STOPPED}) is None
    assert run.look(after=LOOK_S) is None
    assert run.look(after=LOOK_S, states={0: STOPPED}) is None
    assert run.look(after=2 * LOOK_S, states={0: STOPPED}).rank == 0


def test_a_stopped_rank_is_to_blame_also_within_the_collective():
    run = Run().trained(5)
    run.enter("step", 6)
    looks = [run.look(after=LOOK_S, states={1: STOPPED}) for _ in range(3)]
    assert looks[:2] == [None, None] and looks[2].rank == 1


def test_of_several_stopped_ones_the_first_is_named():
    run = Run().trained(5)
    run.enter("data", 6, 1)
    run.enter("data", 6, 0, after=1)
    looks = [run.look(after=LOOK_S, states={0: STOPPED, 1: STOPPED}) for _ in range(3)]
    assert looks[-1].rank == 1


def test_the_scheduler_is_looked_after_too():
    run = Run()
    run.hangs.started("scheduler", None, "h1", 0.0, 0)
    look = {"state": STOPPED, "cpu_s": 0.0, "blocked": [], "moved_bytes": 0}
    assert run.hangs.seen({"scheduler": look}, 10.0) is None
    assert run.hangs.seen({"scheduler": look}, 30.0).name == "scheduler"


def test_who_has_ended_is_not_looked_for():
    run = at_data(1)
    run.hangs.ended("rank-01")
    run.now += HANG_S + 1
    assert run.look() is None
    assert run.look(after=1.0).rank is None
