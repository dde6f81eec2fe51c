"""How long a rank may be silent in each phase before it is taken for hung. Pure.

The limit of a phase that comes again and again is learnt: the longest silence that was seen in it, times
FACTOR, and never below a floor. Steps are alike, and their floor is `hang_s`. A save or an evaluation may
take far longer than the one before it, where the storage is busy or images have new sizes: its floor is a
share of the longest time there is. What comes once an attempt (meeting, data, compile) has no precedent
there, and one of an earlier attempt would be of other hosts with other caches: it gets that longest time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Set

FACTOR = 5.0
EVEN, UNEVEN = "train", ("eval", "save")
UNEVEN_SHARE = 1 / 3  # of phase_s
NOTABLE = 1.2  # a limit that has grown by so much is worth a line in the journal


@dataclass(frozen=True)
class Told:
    """A limit for the journal, and the silence that it was learnt from, seconds."""

    phase: str
    limit_s: float
    longest_s: float


class PhaseLimits:
    """start_s: until all ranks have met. phase_s: what is not learnt, and the most that is. hang_s: the
    least that is learnt."""

    def __init__(self, start_s: float, phase_s: float, hang_s: float) -> None:
        self.start_s = start_s
        self.phase_s = max(phase_s, hang_s)
        self.hang_s = hang_s
        self._floors = {EVEN: hang_s, **dict.fromkeys(UNEVEN, max(hang_s, UNEVEN_SHARE * phase_s))}
        self._longest: Dict[str, float] = {}
        self._settled: Set[str] = set()
        self._told: Dict[str, float] = {}

    def of(self, phase: str) -> float:
        """The limit of a phase, seconds."""
        if phase not in self._settled:
            return self.most(phase)
        return min(max(self._floors[phase], FACTOR * self._longest[phase]), self.phase_s)

    def most(self, phase: str) -> float:
        """The limit that no evidence of work extends, seconds."""
        return self.start_s if phase == "init" else self.phase_s

    def learn(self, phase: str, silence_s: float) -> None:
        """Takes a silence into account that has ended well."""
        self._longest[phase] = max(silence_s, self._longest.get(phase, 0.0))

    def settle(self, phase: str) -> None:
        """From now on what was learnt of this phase counts: it has been seen as a whole."""
        if phase in self._floors and phase in self._longest:
            self._settled.add(phase)

    def news(self) -> List[Told]:
        """The limits that are new or have grown notably since the last call."""
        found = []
        for phase in sorted(self._settled):
            limit = self.of(phase)
            if phase not in self._told or limit >= NOTABLE * self._told[phase]:
                self._told[phase] = limit
                found.append(Told(phase, round(limit, 3), round(self._longest[phase], 3)))
        return found
