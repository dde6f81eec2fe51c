"""One rank fails, the others fail of it a moment later: is the right one named, and how soon?

A launcher that nothing holds up has stopped the others before they fail. In half of the cases it is held up
until all have failed, as on a machine that is busy or at the end of a slow line.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Callable, Dict, Optional

from launching import REPOSITORY
from programs import OURS, Job, job
from row import Broken, Figures, NotHere, Row

RANKS = 8
VERDICT_S = 2.0
FAULTS = ("crash", "raise", "oom", "segv", "disk-full", "exit0-early", "worker-grandchild")
# Of a program that knows nothing of the status pipe. Not `raise`: an interpreter that cleans up loses its
# connections some time before it ends, so that the others would be the first to end.
SILENT_FAULTS = ("crash", "oom", "segv")
# The last one is in no catalogue: time alone tells that it came second.
ERRORS = ("Connection reset by peer", "AllReduceCPUKernelMod launch failed", "a peer did not answer")
HOSTS, CLOCK_ERROR_S = 4, 0.5
HELD_S = 0.2


def of_ours(
    gap_s: float, make_cluster: Callable[[Random, Path], Optional[str]]
) -> Callable[[Random, Path], Figures]:
    def case(dice: Random, folder: Path) -> Figures:
        rank, step, silent = dice.randrange(RANKS), dice.randint(2, 8), dice.random() < 0.5
        fault = dice.choice(SILENT_FAULTS if silent else FAULTS)
        settings = [f"inject={fault}@{step}:{rank}", f"collective={gap_s}", f"error={dice.choice(ERRORS)}"]
        settings += ["steps=100000", f"step_s={dice.uniform(0, 0.02):.4f}"] + ["silent=1"] * silent
        held = dice.random() < 0.5
        with job(OURS, folder, RANKS, *settings, cluster=make_cluster(dice, folder)) as one:
            seen_ns = _held_up(one, rank, gap_s) if held else 0
            one.wait()
            verdicts = one.events("verdict")
            if not verdicts:
                raise Broken(f"{settings}: no verdict; {one.said()[-600:]}")
            if {verdict["rank"] for verdict in verdicts} != {rank}:
                texts = [verdict["text"] for verdict in verdicts]
                raise Broken(f"{settings}: not rank {rank} is named first but {texts}")
            verdict_s = (verdicts[0]["time_ns"] - max(seen_ns, log_of(one, rank).stat().st_mtime_ns)) / 1e9
            if verdict_s > VERDICT_S:
                raise Broken(f"{settings}: the verdict came after {verdict_s:.2f} s")
            return {"verdict_s": verdict_s}

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


def here(dice: Random, folder: Path) -> Optional[str]:
    return None


def four_hosts(dice: Random, folder: Path) -> str:
    library = _shifted_clock(folder)
    hosts = [
        f"  - {{name: h{i}, address: 127.0.0.{i + 1}, devices: {RANKS // HOSTS}, prefix: "
        f"[env, LD_PRELOAD={library}, CLOCK_SHIFT_S={dice.uniform(-CLOCK_ERROR_S, CLOCK_ERROR_S):.4f}]}}"
        for i in range(HOSTS)
    ]
    lines = ["device_kind: cpu", "engine: exec", "hosts:", *hosts, "timeouts: {start_s: 15, grace_s: 2}"]
    return "\n".join(lines) + "\n"


def _shifted_clock(folder: Path) -> Path:
    source = REPOSITORY / "tests" / "hosts" / "shifted_clock.c"
    library = folder / "shifted_clock.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere(f"`{shlex.join(command)}` fails: {error}") from None
    return library


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
        "first-20ms", "of 8 ranks the first to fail is named within 2 s; gap 20 ms", of_ours(0.020, here), 100
    ),
    Row("first-5ms", "the same; gap 5 ms", of_ours(0.005, here), 100),
    Row(
        "first-hosts",
        "the same on 4 hosts, clocks off by up to 500 ms, 95 times of 100; gap 50 ms",
        of_ours(0.050, four_hosts),
        100,
        share=0.95,
    ),
    *(
        Row(f"first-20ms-{peer}", "a peer, for comparison", of_a_peer(peer), 8, quick=2, share=None)
        for peer in NAMED
    ),
]
