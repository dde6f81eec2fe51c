"""One rank fails, the others fail of it a moment later: is the right one named, and how soon?

A launcher that nothing holds up has stopped the others before they fail. In half of the cases it is held up
until all have failed, as on a machine that is busy or at the end of a slow line.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from random import Random
from typing import Callable, Dict, Optional, Sequence

from clusters import HOSTS, Cluster, four_hosts, here
from programs import OURS, Job, job
from row import Broken, Case, Figures, Row

RANKS = 8
IN_TIME = {"verdict_s": 2.0}
FAULTS = ("crash", "raise", "oom", "segv", "disk-full", "exit0-early", "worker-grandchild")
# Of a program that knows nothing of the status pipe. Not `raise`: an interpreter that cleans up loses its
# connections some time before it ends, so that the others would be the first to end.
SILENT_FAULTS = ("crash", "oom", "segv")
# The last one is in no catalogue: time alone tells that it came second.
ERRORS = ("Connection reset by peer", "AllReduceCPUKernelMod launch failed", "a peer did not answer")
OF_A_HOST = "agent-killed"  # takes all ranks of its host along, and the host is named
HELD_S = 0.2


def of_ours(gap_s: float, make_cluster: Cluster, of_a_host: Sequence[str] = ()) -> Case:
    def case(dice: Random, folder: Path) -> Figures:
        rank, step, silent = dice.randrange(RANKS), dice.randint(2, 8), dice.random() < 0.5
        fault = dice.choice((*(SILENT_FAULTS if silent else FAULTS), *of_a_host))
        culprit = {"rank": rank}
        if fault == OF_A_HOST:
            culprit = {"rank": None, "host": f"h{rank * HOSTS // RANKS}"}
        settings = [f"inject={fault}@{step}:{rank}", f"collective={gap_s}", f"error={dice.choice(ERRORS)}"]
        settings += ["steps=100000", f"step_s={dice.uniform(0, 0.02):.4f}"] + ["silent=1"] * silent
        held = dice.random() < 0.5
        with job(OURS, folder, RANKS, *settings, cluster=make_cluster(dice, folder, RANKS, "")) as one:
            seen_ns = _held_up(one, rank, gap_s) if held else 0
            one.wait()
            verdicts = one.events("verdict")
            if not verdicts:
                raise Broken(f"{settings}: no verdict; {one.said()[-600:]}")
            if any({**verdict, **culprit} != verdict for verdict in verdicts):
                texts = [verdict["text"] for verdict in verdicts]
                raise Broken(f"{settings}: not {culprit} is named first but {texts}")
            failed_ns = max(seen_ns, log_of(one, rank).stat().st_mtime_ns)
            return {"verdict_s": (verdicts[0]["time_ns"] - failed_ns) / 1e9}

    return case


def _held_up(one: Job, rank: int, gap_s: float) -> int:
    """Stops the launcher until all ranks have failed: it can not tell by what it hears first. time_ns."""
    one.until(lambda: len(one.events("started")) == RANKS, "the workers do not start")
    one.process.send_signal(signal.SIGSTOP)
    try:
        one.until(lambda: b"injected" in log_of(one, rank).read_bytes(), "the fault does not come")
        time.sleep(gap_s + HELD_S)
    finally:
        one.process.send_signal(signal.SIGCONT)
    return time.time_ns()


def log_of(one: Job, rank: int) -> Path:
    return one.run / "attempt-001" / f"rank-{rank:02}.log"


def of_a_peer(launcher: str) -> Callable[[Random, Path], Figures]:
    """The same failure under a peer, whose output is searched for the rank that it names."""

    def case(dice: Random, folder: Path) -> Figures:
        rank, step = dice.randrange(RANKS), dice.randint(2, 8)
        settings = [f"faults=crash@{step}:{rank}", "collective=0.020", "steps=100000", "step_s=0.01"]
        with job(launcher, folder, RANKS, *settings) as one:
            one.wait()
            named = NAMED[launcher](one)
            if named != rank:
                raise Broken(f"not rank {rank} is named but {named}")
            return {}

    return case


def _named_by_torchrun(one: Job) -> Optional[int]:
    match = re.search(r"Root Cause.*?\brank\s*:\s*(\d+)", one.said(), re.DOTALL)
    return int(match.group(1)) if match else None


def _named_by_msrun(one: Job) -> Optional[int]:
    """It names a process, which is taken for its rank."""
    match = re.search(r"Worker process (\d+) exit with exception", one.said())
    ranks = {pid: rank for rank, (pid, _) in one.started().items()}
    return ranks.get(int(match.group(1))) if match else None


NAMED: Dict[str, Callable[[Job], Optional[int]]] = {"torchrun": _named_by_torchrun, "msrun": _named_by_msrun}

ROWS = [
    Row(
        "first-20ms",
        "of 8 ranks the first to fail is named within 2 s; gap 20 ms",
        of_ours(0.020, here),
        100,
        limits=IN_TIME,
    ),
    Row("first-5ms", "the same; gap 5 ms", of_ours(0.005, here), 100, limits=IN_TIME),
    Row(
        "first-hosts",
        "the same on 4 hosts, clocks off by up to 500 ms, 95 times of 100; gap 50 ms",
        of_ours(0.050, four_hosts, (OF_A_HOST,)),
        100,
        share=0.95,
        limits=IN_TIME,
    ),
    *(
        Row(f"first-20ms-{peer}", "a peer, for comparison", of_a_peer(peer), 8, quick=1, share=None)
        for peer in NAMED
    ),
]
