"""How soon: from the command to the first worker, and from a worker's death to what is done about it."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Callable

from launching import FOREVER, LIGHT_WORKER
from programs import OURS, PEERS, Deaths, job, kill, peak_mb
from row import Broken, Figures, Row

from launcher.agent import processes

RANKS = 8


def death(launcher: str) -> Callable[[Random, Path], Figures]:
    """SIGKILL of one worker: until the supervisor's journal has it, and until another worker is ended."""

    def case(dice: Random, folder: Path) -> Figures:
        rank = dice.randrange(RANKS)
        with job(launcher, folder, RANKS, *FOREVER) as one:
            started = one.until_running()
            time.sleep(dice.uniform(0.1, 0.4))
            others = Deaths([pid for other, (pid, _) in started.items() if other != rank])
            killed_ns = kill(started[rank][0])
            figures = {"first_stop_ms": (others.first_ns() - killed_ns) / 1e6}
            if launcher == OURS:
                one.wait()
                events = [event for event in one.events("exit") if event["rank"] == rank]
                if not events:
                    raise Broken(f"the death of rank {rank} is not in the journal")
                figures["journal_ms"] = (events[0]["time_ns"] - killed_ns) / 1e6
            return figures

    return case


def start(launcher: str) -> Callable[[Random, Path], Figures]:
    """From the command to the first lines of the first and the last worker; memory of the launcher."""

    def case(dice: Random, folder: Path) -> Figures:
        # With its site-packages looked through at the start, as every program's.
        worker = [f"worker={LIGHT_WORKER}"] if launcher == OURS else []
        with job(launcher, folder, RANKS, *FOREVER, *worker) as one:
            times = sorted(time_ns for _, time_ns in one.until_running().values())
            time.sleep(0.3)
            rss_mb = peak_mb(one.process.pid)
            below = [process.pid for process in processes.descendants(one.process.pid)]
            workers = {pid for pid, _ in one.started().values()}
            return {
                "first_s": (times[0] - one.began_ns) / 1e9,
                "last_s": (times[-1] - one.began_ns) / 1e9,
                "launcher_mb": rss_mb,
                "helpers_mb": sum(peak_mb(pid) for pid in below if pid not in workers),
            }

    return case


ROWS = [
    Row(
        "death",
        "a worker's death is in the journal within 20 ms",
        death(OURS),
        50,
        medians={"journal_ms": 20.0},
    ),
    *(Row(f"death-{peer}", "a peer, for comparison", death(peer), 10, 1, share=None) for peer in PEERS),
    Row(
        "start",
        "the first of 8 workers runs within 0.35 s of the command; launcher below 60 MB",
        start(OURS),
        20,
        5,
        limits={"launcher_mb": 60.0},
        medians={"first_s": 0.35},
    ),
    *(Row(f"start-{peer}", "a peer, for comparison", start(peer), 5, 1, share=None) for peer in PEERS),
]
