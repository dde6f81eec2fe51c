"""Events of an attempt of three ranks, and what becomes of them."""

from __future__ import annotations

import signal

from launcher.policy import (
    Decision,
    Exited,
    Raised,
    Signalled,
    Started,
    State,
    decide,
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
