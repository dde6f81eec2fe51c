"""Somebody dies at any moment, or the launcher is told to end: is anything of the run alive 2 s later?"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random
from typing import Callable

from launching import STUBBORN
from programs import OURS, PEERS, Job, job
from row import Broken, Figures, Row

from launcher.agent import processes

RANKS = 4
LIMIT_S = 2.0
GRACE_S = 0.5
KILLED = ("launcher", "agent", "guard")
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGHUP: 130}  # and the exit code that each has


def case(dice: Random, folder: Path) -> Figures:
    victim = dice.choice((*KILLED, *KILLED, *SIGNALS))
    delay_s = dice.choice((None, dice.uniform(0, 1)))  # None: when all ranks have begun
    with job(OURS, folder, RANKS, *STUBBORN, grace_s=GRACE_S) as one:
        if delay_s is None:
            one.until_running()
        time.sleep(dice.uniform(0, 0.2) if delay_s is None else delay_s)
        if isinstance(victim, signal.Signals):
            one.process.send_signal(victim)
            code = one.wait()
            if delay_s is None and code != SIGNALS[victim]:  # before, Python itself may answer
                raise Broken(f"{victim.name}: code {code}; {one.said()[-600:]}")
        else:
            os.kill(role(victim, one), signal.SIGKILL)
        when = "when all had begun" if delay_s is None else f"{delay_s:.2f} s after the start"
        return {"gone_s": until_gone(one, f"{getattr(victim, 'name', victim)}, {when}")}


def role(name: str, one: Job) -> int:
    """The process of this role as soon as there is one. Broken where the launcher has ended without."""
    while one.process.poll() is None:
        if name == "launcher":
            return one.process.pid
        below = processes.descendants(one.process.pid)
        for guard in (process for process in below if process.parent == one.process.pid):
            agents = [process.pid for process in below if process.parent == guard.pid]
            if name == "guard" or agents:
                return guard.pid if name == "guard" else agents[0]
        time.sleep(0.005)
    raise Broken(f"the launcher has ended by itself: {one.said()[-600:]}")


def until_gone(one: Job, what: str) -> float:
    """Seconds until nothing of the case is alive. Broken where something is after LIMIT_S."""
    began = time.monotonic()
    while True:
        left, passed = one.left(), time.monotonic() - began
        if not left:
            return passed
        if passed > LIMIT_S:
            raise Broken(f"{what}: {len(left)} processes are left, such as {left[0]}")
        time.sleep(0.02)


def of_a_peer(launcher: str) -> Callable[[Random, Path], Figures]:
    def case(dice: Random, folder: Path) -> Figures:
        victim = dice.choice((signal.SIGKILL, signal.SIGTERM))
        with job(launcher, folder, RANKS, *STUBBORN) as one:
            one.until_running()
            one.process.send_signal(victim)
            return {"gone_s": until_gone(one, victim.name)}

    return case


ROWS = [
    Row("left-over", "0 processes 2 s after launcher, agent or guard died, or the launcher ended", case, 200),
    *(
        Row(f"left-over-{peer}", "a peer, for comparison", of_a_peer(peer), 8, quick=1, share=None)
        for peer in PEERS
    ),
]
