"""A worker prints 10,000 lines a second: is every byte in its log, and what does it cost the launcher?"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from programs import OURS, cpu_s, job
from row import Broken, Case, Figures, Row

from launcher.agent import processes

LINES_A_SECOND, STEPS_A_SECOND = 10_000, 10
PRINTING_S = 0.006  # of a step
END_S = 120  # beyond its seconds, on a busy machine


def printing(seconds: int) -> Case:
    return lambda dice, folder: _printing(seconds, folder)


def _printing(seconds: int, folder: Path) -> Figures:
    settings = [f"noise={LINES_A_SECOND // STEPS_A_SECOND}", f"steps={seconds * STEPS_A_SECOND}"]
    with job(OURS, folder, 1, *settings, f"step_s={1 / STEPS_A_SECOND - PRINTING_S}") as one:
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
        written = (one.run / "attempt-001" / "rank-00.log").read_bytes().partition(b"\n")[2]
        length, digest = (one.marks / "noise-0").read_text().split()
        if (str(len(written)), hashlib.sha256(written).hexdigest()) != (length, digest):
            raise Broken(f"of {length} bytes that were written the log has {len(written)}, or others")
        lines = LINES_A_SECOND * seconds
        return {"lines_a_second": lines / passed, "megabytes": len(written) / 1e6, "cpu_percent": percent}


MUST = "any bytes: none is lost; launcher, guard and agent below 3 % of a core"
LIMITS = {"cpu_percent": 3.0}
ROWS = [
    Row("logs", f"10,000 lines/s for 60 s, {MUST}", printing(60), 1, 0, limits=LIMITS),
    Row("logs-short", f"10,000 lines/s for 10 s, {MUST}", printing(10), 0, 1, limits=LIMITS),
]
