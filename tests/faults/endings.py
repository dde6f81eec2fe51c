"""A crash, a stop, a preemption: does the launcher end within the grace period and a second?"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Callable

from launching import FOREVER
from programs import OURS, PEERS, Deaths, job
from row import Broken, Figures, Row

RANKS = 4
MARGIN_S = 1.0
FAULTS = ("crash", "oom", "segv", "worker-grandchild", "disk-full")
SIGNALS = {"stop": signal.SIGINT, "preempt": signal.SIGTERM}
CODES = {"crash": (4, 5), "stop": (130,), "preempt": (75,)}
WORKERS = (("term=exit",), ("term=ignore",), ("term=ignore", "children=1"), ("save_s=600",))


def case(dice: Random, folder: Path) -> Figures:
    way, grace_s = dice.choice(("crash", "stop", "preempt")), dice.choice((0.3, 0.7, 1.5))
    settings = [*FOREVER, *dice.choice(WORKERS)]
    if way == "crash":
        settings.append(f"inject={dice.choice(FAULTS)}@{dice.randint(3, 30)}:{dice.randrange(RANKS)}")
    with job(OURS, folder, RANKS, *settings, grace_s=grace_s) as one:
        if way in SIGNALS:
            one.until_running()
            time.sleep(dice.uniform(0, 0.1))
            began_ns = time.time_ns()
            one.process.send_signal(SIGNALS[way])
        code = one.wait()
        ended_ns = time.time_ns()
        if way == "crash":
            began_ns = one.events("exit")[0]["exit_ns"]
        beyond_s = (ended_ns - began_ns) / 1e9 - grace_s
        if beyond_s > MARGIN_S or code not in CODES[way]:
            raise Broken(f"{way}, {settings}: code {code}, {beyond_s:.2f} s after the grace of {grace_s} s")
        return {"beyond_grace_s": beyond_s}


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
    Row("endings", "crash, stop and preemption end within the grace period and 1 s", case, 100),
    *(
        Row(f"endings-{peer}", "a peer, for comparison", of_a_peer(peer), 3, quick=0, share=None)
        for peer in PEERS
    ),
]
