"""A worker prints 10,000 lines a second: is every byte in its log, and what does it cost the launcher?"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Callable, Dict

from programs import OURS, PEERS, Job, cpu_s, job
from row import Broken, Case, Figures, Row

from launcher.agent import processes

LINES_A_SECOND, STEPS_A_SECOND = 10_000, 10
PRINTING_S = 0.006  # of a step
FIRST_LINE = b"rank 0 begins\n"  # what comes after is counted
END_S = 120  # beyond its seconds, on a busy machine


LOGS: Dict[str, Callable[[Job], Path]] = {
    OURS: lambda one: one.run / "attempt-001" / "rank-00.log",
    "torchrun": lambda one: one.output,
    "msrun": lambda one: one.folder / "msrun" / "worker_0.log",
}


def printing(launcher: str, seconds: int) -> Case:
    return lambda dice, folder: _printing(launcher, seconds, folder)


def _printing(launcher: str, seconds: int, folder: Path) -> Figures:
    settings = [f"noise={LINES_A_SECOND // STEPS_A_SECOND}", f"steps={seconds * STEPS_A_SECOND}"]
    with job(launcher, folder, 1, *settings, f"step_s={1 / STEPS_A_SECOND - PRINTING_S}") as one:
        ((worker, _),) = one.until_running().values()
        watchers = [
            process.pid for process in processes.descendants(one.process.pid) if process.pid != worker
        ]
        watchers.append(one.process.pid)
        before_s, began = sum(map(cpu_s, watchers)), time.monotonic()
        one.until((one.marks / "noise-0").exists, "it does not come to its end", seconds + END_S)
        passed = time.monotonic() - began
        percent = 100 * (sum(map(cpu_s, watchers)) - before_s) / passed
        if one.wait() != 0:
            raise Broken(f"it does not end well: {one.said()[-600:]}")
        length, digest = (one.marks / "noise-0").read_text().split()
        written = LOGS[launcher](one).read_bytes().partition(FIRST_LINE)[2][: int(length)]
        if (str(len(written)), hashlib.sha256(written).hexdigest()) != (length, digest):
            raise Broken(f"of {length} bytes that were written the log has {len(written)}, or others")
        lines = LINES_A_SECOND * seconds
        return {"lines_a_second": lines / passed, "megabytes": len(written) / 1e6, "cpu_percent": percent}


MUST = "any bytes: none is lost; launcher, guard and agent below 3 % of a core"
LIMITS = {"cpu_percent": 3.0}
ROWS = [
    Row("logs", f"10,000 lines/s for 60 s, {MUST}", printing(OURS, 60), 1, 0, limits=LIMITS),
    Row("logs-short", f"10,000 lines/s for 10 s, {MUST}", printing(OURS, 10), 0, 1, limits=LIMITS),
    *(
        Row(f"logs-{peer}", "a peer, for comparison", printing(peer, 60), 1, quick=0, share=None)
        for peer in PEERS
    ),
]
