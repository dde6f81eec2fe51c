"""A worker prints 10,000 lines a second: is every byte in its log, and what does it cost the launcher?"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from random import Random

from programs import OURS, cpu_s, job
from row import Broken, Figures, Row

from launcher.agent import processes

LINES_A_SECOND, SECONDS, STEPS_A_SECOND = 10_000, 60, 10
PRINTING_S = 0.006  # of a step
CPU_PERCENT = 3.0


def case(dice: Random, folder: Path) -> Figures:
    settings = [f"noise={LINES_A_SECOND // STEPS_A_SECOND}", f"steps={SECONDS * STEPS_A_SECOND}"]
    with job(OURS, folder, 1, *settings, f"step_s={1 / STEPS_A_SECOND - PRINTING_S}") as one:
        ((worker, _),) = one.until_running().values()
        watchers = [
            process.pid for process in processes.descendants(one.process.pid) if process.pid != worker
        ]
        watchers.append(one.process.pid)
        before_s, began = sum(map(cpu_s, watchers)), time.monotonic()
        one.until((one.marks / "noise-0").exists, "it does not come to its end", 3 * SECONDS)
        passed = time.monotonic() - began
        percent = 100 * (sum(map(cpu_s, watchers)) - before_s) / passed
        if one.wait() != 0:
            raise Broken(f"it does not end well: {one.said()[-600:]}")
        written = (one.run / "attempt-001" / "rank-00.log").read_bytes().partition(b"\n")[2]
        length, digest = (one.marks / "noise-0").read_text().split()
        if (str(len(written)), hashlib.sha256(written).hexdigest()) != (length, digest):
            raise Broken(f"of {length} bytes that were written the log has {len(written)}, or others")
        if percent > CPU_PERCENT:
            raise Broken(f"launcher, guard and agent take {percent:.1f} % of a core")
        lines = LINES_A_SECOND * SECONDS
        return {"lines_a_second": lines / passed, "megabytes": len(written) / 1e6, "cpu_percent": percent}


ROWS = [
    Row("logs", "10,000 lines/s for 60 s, any bytes: none is lost; launcher, agent below 3 % CPU", case, 1, 1)
]
