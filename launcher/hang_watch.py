"""Watches an attempt for ranks that hang: asks the agents what they see, tells the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Set

from launcher.hangs import Hangs
from launcher.limits import PhaseLimits
from launcher.policy import Hung

if TYPE_CHECKING:
    from launcher.cluster_types import Timeouts
    from launcher.engines.link import AgentLink
    from launcher.loop import Loop
    from launcher.plan_types import Process
    from launcher.reporter import Reporter

CHECK_S = 1.0  # between checks of who is silent
ANSWER_S = 10.0  # for the agents of all hosts to say what they see, or they are asked anew


class HangWatch:
    """The clock and the messages around `Hangs`, which decides.

    An agent answers after all that it had to say before, so that a supervisor that was itself stopped for
    a while, or is behind with its reading, hears of progress before it can take a rank for hung.
    """

    def __init__(
        self,
        timeouts: Timeouts,
        links: Mapping[str, AgentLink],
        reporter: Reporter,
        loop: Loop,
        on_hung: Callable[[Hung], None],
    ) -> None:
        """on_hung: takes the verdict."""
        self._limits = PhaseLimits(timeouts.start_s, timeouts.phase_s, timeouts.hang_s)
        self._hangs = Hangs(self._limits)
        self._check_s = min(CHECK_S, timeouts.hang_s / 4)
        self._links, self._reporter, self._loop, self._on_hung = links, reporter, loop, on_hung
        self._asked_s = 0.0
        self._waiting: Set[str] = set()  # hosts whose answer is still to come
        self._looks: Dict[str, dict] = {}
        self._suspected: Set[str] = set()
        self._over = False
        loop.after(self._check_s, "hangs", self._check)

    def started(self, process: Process, time_ns: int) -> None:
        self._hangs.started(process.name, process.rank, process.host, self._loop.now(), time_ns)

    def heard(self, name: str, data: Mapping[str, Any], time_ns: int) -> None:
        self._hangs.heard(name, data, self._loop.now(), time_ns)

    def ended(self, name: str) -> None:
        self._hangs.ended(name)

    def close(self) -> None:
        """The attempt is being ended: who does not end has its grace period."""
        self._over = True

    def _check(self) -> None:
        if self._over:
            return
        now_s = self._loop.now()
        for told in self._limits.news():
            self._reporter.emit("limit", **vars(told))
        self._tell_of_suspects(now_s)
        if self._waiting and now_s - self._asked_s < ANSWER_S:
            pass
        elif self._hangs.wants_look(now_s):
            self._asked_s, self._looks = now_s, {}
            self._waiting = {host for host, link in self._links.items() if not link.ended}
            for host in self._waiting:
                self._links[host].outbox.put({"op": "probe"})
        self._loop.after(self._check_s, "hangs", self._check)

    def _tell_of_suspects(self, now_s: float) -> None:
        suspects = self._hangs.suspects(now_s)
        names = {one.name for one in suspects}
        if names - self._suspected:
            first = min(suspects, key=lambda one: one.at_s)
            limit_s = round(self._limits.of(first.phase or "init"), 3)
            silent_s = round(now_s - first.at_s, 3)
            known = {"names": sorted(names), "place": first.place, "silent_s": silent_s, "limit_s": limit_s}
            self._reporter.emit("suspect", **known)
        self._suspected = names

    def seen(self, host: str, looks: Mapping[str, dict]) -> None:
        """What an agent sees of the processes of its host."""
        if self._over or host not in self._waiting:
            return
        self._waiting.remove(host)
        self._looks.update(looks)
        if self._waiting:
            return
        hung = self._hangs.seen(self._looks, self._loop.now())
        if hung is not None:
            known = {**hung._asdict(), "since_ns": hung.time_ns, "processes": self._looks}
            self._reporter.emit("hung", **known)
            self._on_hung(hung)
