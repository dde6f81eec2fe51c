"""A crash, a stop, a preemption: does the launcher end within the grace period and a second?"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Callable

from launching import FOREVER
from programs import OURS, PEERS, Deaths, job, kill
from row import Broken, Figures, Row

RANKS = 4
FAULTS = ("crash", "oom", "segv", "worker-grandchild", "disk-full")
SIGNALS = {"stop": signal.SIGINT, "preempt": signal.SIGTERM}
CODES = {"crash": (4, 5), "stop": (130,), "preempt": (75,), "preempt, crash": (75,), "preempt, stop": (130,)}
WORKERS = (("term=exit",), ("term=ignore",), ("term=ignore", "children=1"), ("save_s=600",))


def case(dice: Random, folder: Path) -> Figures:
    way, grace_s = dice.choice(list(CODES)), dice.choice((0.3, 0.7, 1.5))
    first, _, second = way.partition(", ")
    settings = [*FOREVER, *(("save_s=600", "term=ignore") if second else dice.choice(WORKERS))]
    if way == "crash":
        settings.append(f"inject={dice.choice(FAULTS)}@{dice.randint(3, 30)}:{dice.randrange(RANKS)}")
    with job(OURS, folder, RANKS, *settings, grace_s=grace_s) as one:
        if first in SIGNALS:
            started = one.until_running()
            time.sleep(dice.uniform(0, 0.1))
            began_ns = time.time_ns()
            one.process.send_signal(SIGNALS[first])
        if second:  # in the same grace period
            one.until(lambda: bool(one.events("decision")), "no preemption")
            time.sleep(dice.uniform(0, grace_s / 2))
            if second == "crash":
                kill(started[dice.randrange(RANKS)][0])
            else:
                one.process.send_signal(SIGNALS[second])
        code = one.wait()
        ended_ns = time.time_ns()
        if way == "crash":
            began_ns = one.events("exit")[0]["exit_ns"]
        if code not in CODES[way]:
            raise Broken(f"{way}, {settings}: code {code}")
        return {"beyond_grace_s": (ended_ns - began_ns) / 1e9 - grace_s}


def of_a_peer(launcher: str) -> Callable[[Random, Path], Figures]:
    """One rank crashes, the others ignore SIGTERM."""

    def case(dice: Random, folder: Path) -> Figures:
        settings = [*FOREVER, "term=ignore", f"faults=crash@20:{dice.randrange(RANKS)}"]
        with job(launcher, folder, RANKS, *settings) as one:
            crashed = Deaths([pid for pid, _ in one.until_running().values()])
            crashed_ns = crashed.first_ns()
            one.wait()
            return {"crash_to_end_s": (time.time_ns() - crashed_ns) / 1e9}

    return case


ROWS = [
    Row(
        "endings",
        "crash, stop, preemption and one in the other end within one grace period and 1 s",
        case,
        100,
        limits={"beyond_grace_s": 1.0},
    ),
    *(
        Row(f"endings-{peer}", "a peer, for comparison", of_a_peer(peer), 3, quick=0, share=None)
        for peer in PEERS
    ),
]
