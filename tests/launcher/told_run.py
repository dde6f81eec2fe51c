"""A run as a test tells it: what ranks say and when, and how their processes look."""

from __future__ import annotations

from launcher.hangs import MOVING_B_S, PROBE_GAP_S, Hangs
from launcher.limits import PhaseLimits

START_S, PHASE_S, HANG_S = 300.0, 1800.0, 60.0
SECOND = 10**9
ASLEEP, RUNNING, STOPPED, DISK, TRACED = "S", "R", "T", "D", "t"


class Run:
    """Ranks that say what a test says they say, at the times of the test, and a /proc of its making."""

    def __init__(self, ranks=3):
        self.hangs = Hangs(PhaseLimits(START_S, PHASE_S, HANG_S))
        self.ranks = range(ranks)
        self.now = 0.0
        self.cpu = dict.fromkeys(self.ranks, 0.0)
        self.moved = dict.fromkeys(self.ranks, 0.0)
        for rank in self.ranks:
            self.hangs.started(name(rank), rank, "h1", 0.0, 0)

    def say(self, event, *ranks, after=0.0, **fields):
        self.now += after
        for rank in ranks or self.ranks:
            self.hangs.heard(name(rank), {"event": event, **fields}, self.now, int(self.now * SECOND))

    def enter(self, what, step, *ranks, after=0.0):
        self.say("enter", *ranks, after=after, what=what, step=step)

    def steps(self, first, last, step_s=1.0):
        for step in range(first, last + 1):
            self.enter("data", step)
            self.enter("step", step)
            self.say("step", after=step_s, step=step)

    def trained(self, steps=5):
        """Up to a step in which the train limit is known."""
        self.say("phase", phase="init")
        self.say("phase", phase="compile", after=2)
        self.steps(1, 1, 20)
        self.say("phase", phase="train")
        self.steps(2, steps)
        return self

    def look(self, after=0.0, states=None, busy=(), moving=(), **more):
        self.now += after
        looks = {}
        for rank in self.ranks:
            self.cpu[rank] += after * (rank in busy)
            self.moved[rank] += after * MOVING_B_S * (rank in moving)
            state = (states or {}).get(rank, RUNNING if rank in busy else ASLEEP)
            looks[name(rank)] = {
                "state": state,
                "cpu_s": self.cpu[rank],
                "group_cpu_s": 0.0,
                "stopped": [],
                "blocked": [rank] * (state == DISK),
                "moved_bytes": self.moved[rank],
                "wchan": None,
                **more,
            }
        return self.hangs.seen(looks, self.now)

    def judge(self, after=HANG_S + 1, **seen):
        """The verdict after a time without a word and two looks; the first look alone says nothing."""
        self.now += after
        assert self.hangs.wants_look(self.now)
        assert self.look(**seen) is None
        assert not self.hangs.wants_look(self.now)
        assert self.hangs.wants_look(self.now + PROBE_GAP_S)
        return self.look(after=PROBE_GAP_S, **seen)

    def is_quiet(self, after):
        """Nobody is suspected after so long, however it looks."""
        self.now += after
        return not self.hangs.suspects(self.now) and self.look() is None and self.look(after=1.0) is None


def name(rank):
    return f"rank-{rank:02}"


def at_data(culprit, steps=5):
    """One rank has not come out of its data; the others wait for it in the step."""
    run = Run().trained(steps)
    run.enter("data", steps + 1)
    run.enter("step", steps + 1, *(rank for rank in run.ranks if rank != culprit))
    return run
