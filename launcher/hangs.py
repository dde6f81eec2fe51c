"""Which rank hangs, and how: a fold over what ranks say and what is seen of their processes. Pure: no clock.

In data parallel all ranks stop when one does, at the same step, and how they wait is the platform's choice:
asleep (MindSpore on CPUs) or at full speed. So the last `enter` of each rank comes before its processor time:
who waits in the furthest collective is not to blame for those who have not come there, and /proc says what
these are doing instead.

Times are the supervisor's monotonic clock, seconds, but for `time_ns`, which is the failing host's own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from launcher.diagnosis import spans
from launcher.limits import PhaseLimits
from launcher.policy import Hung

# Collectives, in the order in which a step has them: no rank leaves one before all have entered it.
WAITS = ("join", "step", "gather")
MARKS = ("phase", "enter", "step", "eval", "bench", "checkpoint")  # of the main thread's progress

PROBE_GAP_S = 1.0  # between two looks at a suspect
LOOK_S = 10.0  # between looks at the silent, none of which is a suspect yet: a stop shows in any phase
STOPPED_LOOKS = 2  # that a process is to be seen stopped for, in units of LOOK_S
LEARN_STEPS = 3
BUSY, IDLE = 0.5, 0.1  # share of a core above which a process computes, below which it does not
MOVING_B_S = 1e5  # bytes a second that are data on their way; less may be the chatter of a rank that hangs

Look = Mapping[str, Any]  # see launcher/agent/probe.py
Position = Tuple[float, int, int]


@dataclass
class Watched:
    """One running process. at_s, time_ns: of its last mark, or of its start. phase: None before its first."""

    name: str
    rank: Optional[int]
    host: str
    at_s: float
    time_ns: int
    phase: Optional[str] = None
    what: Optional[str] = None
    step: int = 0
    count: int = 0
    images: int = 0  # of an evaluation, done
    steps: int = 0  # of this phase, announced before
    stopped_s: Optional[float] = None  # since when every look has found it stopped
    storage_s: float = 0.0  # when the last look found its storage at work
    looks: List[Tuple[float, Look]] = field(default_factory=list)  # the last two since at_s

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """Where it is after this mark."""
        if kind == "phase":
            self.phase, self.steps = str(data.get("phase")), 0
        self.phase = self.phase or "train"  # a program that tells of its steps alone
        # Such a one may evaluate between two steps, and not tell: nothing is learnt of it.
        self.steps += kind == "step" and self.what == "step"
        self.what = data.get("what") if kind == "enter" else "eval" if kind == "eval" else None
        if self.what == "eval":
            self.images = _whole(data.get("step", data.get("done")), 0)
        else:
            self.step = _whole(data.get("step"), self.step)
        self.count = _whole(data.get("count"), 0)

    @property
    def waits_in(self) -> Optional[Position]:
        """The collective that it has entered and not left, as a place in the order of all of them."""
        if self.phase == "done":
            return (float("inf"), 0, 0)
        return (self.step, WAITS.index(self.what), self.count) if self.what in WAITS else None

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        places = {
            "join": "meeting the others",
            "data": f"data of step {self.step}",
            "step": f"step {self.step}",
            "gather": f"a sum over all ranks after step {self.step}",
            "eval": f"after {self.images} images",
            "save": f"checkpoint of step {self.step}",
        }
        after = f"after step {self.step}" if self.step else None
        return ", ".join(filter(None, (f"phase {self.phase}", places.get(str(self.what), after))))

    @property
    def is_at_storage(self) -> bool:
        """Whether its data move or wait for a disk, by its last two looks: slow, and no hang yet.

        Not in a collective: there it waits for others, and who is blocked in the kernel for a device.
        """
        if len(self.looks) < 2 or self.waits_in is not None:
            return False
        (before_s, before), (now_s, now) = self.looks
        moved = now["moved_bytes"] - before["moved_bytes"]
        return bool(before["blocked"] and now["blocked"]) or moved >= MOVING_B_S * (now_s - before_s)

    @property
    def is_busy(self) -> Optional[bool]:
        """Whether it computes, by its last two looks; None where that is neither clear nor known."""
        if len(self.looks) < 2:
            return None
        (before_s, before), (now_s, now) = self.looks
        share = (now["cpu_s"] - before["cpu_s"]) / max(now_s - before_s, 1e-3)
        if share >= BUSY or before["state"] == now["state"] == "R":  # or it got no core to compute on
            return True
        return False if share <= IDLE else None


class Hangs:
    """All processes of an attempt, and whether one of them hangs."""

    def __init__(self, limits: PhaseLimits) -> None:
        self.limits = limits
        self._watched: Dict[str, Watched] = {}
        self._newest_s = 0.0  # the last mark of all
        self._looked_s = float("-inf")
        self._look_s = min(LOOK_S, limits.hang_s / 3)

    # --- what is heard

    def started(self, name: str, rank: Optional[int], host: str, now_s: float, time_ns: int) -> None:
        self._watched[name] = Watched(name, rank, host, now_s, time_ns)

    def ended(self, name: str) -> None:
        self._watched.pop(name, None)

    def heard(self, name: str, data: Mapping[str, Any], now_s: float, time_ns: int) -> None:
        """A line of its status pipe. What is not known or not whole is no sign of progress."""
        kind, one = data.get("event"), self._watched.get(name)
        if kind not in MARKS or one is None:
            return
        if one.phase is not None:
            # Who waits for others is silent for as long as they make it: that is not its own time.
            since = one.at_s if one.waits_in is None else self._newest_s
            self.limits.learn(one.phase, now_s - since)
        before = one.phase
        one.hear(kind, data)
        one.at_s, one.time_ns, self._newest_s = now_s, time_ns, now_s
        one.looks, one.stopped_s = [], None
        if one.phase is not None and one.steps == LEARN_STEPS:
            self.limits.settle(one.phase)
        if before not in (None, one.phase) and all(o.phase != before for o in self._watched.values()):
            self.limits.settle(str(before))

    # --- what is seen

    def wants_look(self, now_s: float) -> bool:
        """Whether it is time to look at the processes."""
        since_s = now_s - self._looked_s
        if since_s < PROBE_GAP_S:
            return False
        if self.suspects(now_s):
            return True
        return since_s >= self._look_s and any(
            now_s - one.at_s >= self._look_s for one in self._watched.values()
        )

    def seen(self, looks: Mapping[str, Look], now_s: float) -> Optional[Hung]:
        """Takes a look at all processes into account; the verdict, where there is one now."""
        self._looked_s = now_s
        for name, look in looks.items():
            one = self._watched.get(name)
            if one is None:
                continue
            one.looks = [*one.looks, (now_s, look)][-2:]
            if look["state"] != "T":
                one.stopped_s = None
            elif one.stopped_s is None:
                one.stopped_s = now_s
            if one.is_at_storage:
                one.storage_s = now_s
        return self._stopped(now_s) or self._silent(now_s)

    def suspects(self, now_s: float) -> List[Watched]:
        """Who has been silent for longer than its phase allows and waits for nobody; where all wait for each
        other, all of them."""
        alone = self._not_waiting()
        if alone:
            return [one for one in alone if self._is_late(one, now_s)]
        speaking = self._speaking()
        if speaking and now_s - self._newest_s > max(map(self._limit, speaking)):
            return speaking
        return []

    def _is_late(self, one: Watched, now_s: float) -> bool:
        """Work of its storage counts as a sign of life, but not for ever."""
        since_s = max(one.at_s, one.storage_s)
        return now_s - since_s > self._limit(one) or now_s - one.at_s > self.limits.most(one.phase or "init")

    def _limit(self, one: Watched) -> float:
        return self.limits.of(one.phase or "init")

    def _ranks(self) -> List[Watched]:
        return [one for one in self._watched.values() if one.rank is not None]

    def _speaking(self) -> List[Watched]:
        """A program that says nothing is never judged by its silence."""
        return [one for one in self._ranks() if one.phase is not None]

    def _not_waiting(self) -> List[Watched]:
        """Who is not in the collective that the furthest of those who wait are in."""
        ranks, speaking = self._ranks(), self._speaking()
        positions = [one.waits_in for one in speaking if one.waits_in is not None]
        if len(ranks) == 1 or not positions:
            return speaking
        front = max(positions)
        alone = [one for one in speaking if one.waits_in != front]
        if front[:2] == (0, WAITS.index("join")):  # who has said nothing has not even come to the meeting
            alone += [one for one in ranks if one.phase is None]
        return alone

    # --- the verdict

    def _stopped(self, now_s: float) -> Optional[Hung]:
        """A stopped process makes no progress in any phase, and needs no other evidence."""
        found = [
            one
            for one in self._watched.values()
            if one.stopped_s is not None and now_s - one.stopped_s >= STOPPED_LOOKS * self._look_s
        ]
        if not found:
            return None
        first = min(found, key=_order)
        seen_s = now_s - (first.stopped_s or now_s)
        what = f"stopped by a signal (SIGSTOP, or by a terminal), seen so for {seen_s:.0f} s"
        return self._blame(first, "stopped", what, now_s)

    def _silent(self, now_s: float) -> Optional[Hung]:
        suspects, speaking = self.suspects(now_s), self._speaking()
        known = all(len(one.looks) == 2 for one in suspects)
        if not suspects or not known or any(_state(one) in "tT" for one in self._watched.values()):
            return None  # a debugger holds one of them, or a stop is about to be confirmed
        alone = self._not_waiting()
        if not alone:
            return self._all_wait(speaking, now_s)
        # Others that stopped at the same step reach their limit a moment later.
        stuck = [one for one in speaking if one in alone and now_s - one.at_s > self._limit(one) / 2]
        if len(stuck) == len(speaking) and len(self._ranks()) > 1:
            what = "none has told that it waits for the others; look at what they share, such as the storage"
            return self._nobody(stuck, "shared", what, now_s)
        first = min(suspects, key=_order)
        kind, what = _doing(first)
        return self._blame(first, kind, what, now_s)

    def _all_wait(self, waiting: Sequence[Watched], now_s: float) -> Hung:
        """However a platform waits, all ranks do it alike: a single one that differs is not waiting."""
        busy = [one for one in waiting if one.is_busy is True]
        idle = [one for one in waiting if one.is_busy is False]
        for few, many in ((busy, idle), (idle, busy)):
            if len(few) == 1 and len(many) == len(waiting) - 1 > 1:
                kind, what = _doing(few[0])
                return self._blame(few[0], kind, f"{what}, unlike the others there", now_s)
        what = "all wait for each other: the connections between them are at fault, or a device"
        return self._nobody(waiting, "interconnect", what, now_s)

    def _blame(self, one: Watched, kind: str, what: str, now_s: float) -> Hung:
        """The sentence: since when, in which phase and step, how, and who waits for it."""
        others = [other for other in self._speaking() if other is not one and other.waits_in is not None]
        text = f"hung since {_since(one, now_s)} in {one.place}: {what}" if one.phase else f"hung: {what}"
        if others:
            furthest = max(others, key=lambda other: other.waits_in or (0, 0, 0))
            text += f"; {_who(others)} in {furthest.place}"
        return Hung(one.name, one.rank, one.host, kind, text, one.time_ns)

    def _nobody(self, ranks: Sequence[Watched], kind: str, what: str, now_s: float) -> Hung:
        last = max(ranks, key=lambda one: one.at_s)
        return Hung(
            None, None, None, kind, f"hung since {_since(last, now_s)} in {last.place}: {what}", last.time_ns
        )


def _doing(one: Watched) -> Tuple[str, str]:
    """What a process that should be getting on does instead: kind, and the words for it."""
    (_, before), (_, now) = one.looks
    where = f" in {now['wchan']}" if now["wchan"] else ""
    if now["stopped"]:
        return "stopped", f"its process {now['stopped'][0]} is stopped by a signal"
    if before["blocked"] and now["blocked"]:
        where = where if now["state"] == "D" else ""
        return "blocked", f"blocked in the kernel{where} (state D): a disk, a network file system or a device"
    if one.is_busy:
        return "spinning", "spins: it uses processor time and does not get on"
    children = now["group_cpu_s"] - before["group_cpu_s"]
    if children >= BUSY * (one.looks[1][0] - one.looks[0][0]):
        return "blocked", f"blocked: asleep{where}, while its child processes compute"
    return "blocked", f"blocked: asleep{where}, without processor time"


def _order(one: Watched) -> Tuple[float, int]:
    """Who went silent first; the rank where that is the same moment."""
    return one.at_s, -1 if one.rank is None else one.rank


def _state(one: Watched) -> str:
    return str(one.looks[-1][1]["state"]) if one.looks else "?"


def _since(one: Watched, now_s: float) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(one.time_ns // 10**9))
    return f"{clock} ({now_s - one.at_s:.0f} s)"


def _who(ranks: Sequence[Watched]) -> str:
    numbers = sorted(one.rank for one in ranks if one.rank is not None)
    return f"rank {numbers[0]} waits" if len(numbers) == 1 else f"ranks {spans(numbers)} wait"


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise
