"""What a row of the campaign is: a promise, and cases that show whether it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Callable, Dict, Optional

Figures = Dict[str, float]
# Plays a case, drawn by the dice, in an empty folder; returns its figures, or raises Broken.
Case = Callable[[Random, Path], Figures]


class Broken(Exception):
    """A case in which the promise was not kept; its text says what was seen."""


class NotHere(Exception):
    """A row that this machine can not show; its text says what it lacks."""


@dataclass(frozen=True)
class Row:
    """must: the promise, for people. full, quick: numbers of cases of `make faults-full` and `make faults`.

    share: of the cases that must go well; None: a peer, which promises nothing. limits: the most that figures
    may be in a case. medians: the most that medians of figures may be.
    """

    name: str
    must: str
    case: Case
    full: int
    quick: int = 20
    share: Optional[float] = 1.0
    limits: Dict[str, float] = field(default_factory=dict)
    medians: Dict[str, float] = field(default_factory=dict)
