"""A plan of ten thousand ranks: the plan, its rank table with every rule checked, and writing all files.

Each in a process of its own, for its memory. `python -m benchmarks.plan SERVERS` takes another number.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Tuple

from benchmarks.report import report

SERVERS, DEVICES = 1280, 8
REPEATS = 3


def main(servers: int = SERVERS) -> None:
    """Each repeat is one process; `cpu_s` tells what a quiet machine would take."""
    figures = [_repeat(servers) for _ in range(REPEATS)]
    rows = []
    for name in figures[0]["laps"]:
        wall, cpu = (sorted(values) for values in zip(*(figure["laps"][name] for figure in figures)))
        rows.append([name, cpu[REPEATS // 2], wall[0], wall[REPEATS // 2], wall[-1]])
    plan_mb = max(figure["plan_mb"] for figure in figures)
    columns = ["work", "cpu_s", "min_s", "median_s", "max_s"]
    report("plan", columns, rows, ranks=servers * DEVICES, plan_mb=plan_mb, files=figures[0]["files"])


def _repeat(servers: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.plan", "once", str(servers)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def once(servers: int) -> Dict[str, Any]:
    """The figures of this process: seconds of each part, MB that it needs for the plan."""
    from launcher.cluster import cluster_from
    from launcher.plan import make_plan
    from launcher.plan_files import write_plan
    from launcher.plan_types import HostFacts, Job
    from launcher.rank_table_forms import to_text
    from launcher.rank_table_rules import check
    from launcher.selection import select

    hosts = [
        {
            "name": f"node{s:04d}",
            "address": f"10.{s // 250}.{s % 250}.1",
            "prefix": ["ssh", f"node{s:04d}"],
            "devices": {d: f"172.{16 + s // 250}.{s % 250}.{d + 1}" for d in range(DEVICES)},
        }
        for s in range(servers)
    ]
    watch = _Watch()
    cluster = cluster_from({"device_kind": "ascend910", "engine": "exec", "hosts": hosts}, "benchmark")
    used = select(cluster)
    watch.lap("cluster file")
    facts = {str(h["name"]): HostFacts(192, "aarch64", str(h["name"]), (20001,)) for h in hosts}
    with tempfile.TemporaryDirectory() as folder:
        job = Job("train", f"{folder}/run", ("-m", "fcn.worker", "train"))
        watch.begin()
        plan = make_plan(used, job, facts)
        watch.lap("plan with rank table, checked")
        assert plan.rank_table is not None and plan.world_size == servers * DEVICES
        text = to_text(plan.rank_table)
        assert check(json.loads(text), cluster.chip) == []
        watch.lap("rank table as JSON, read, checked")
        plan_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        names = write_plan(plan, Path(folder) / "plan")
        watch.lap("all files written")
    return {"laps": watch.laps, "plan_mb": plan_mb, "files": len(names)}


class _Watch:
    """Seconds between its calls: of the clock, and of this process's CPU time."""

    def __init__(self) -> None:
        self.laps: Dict[str, Tuple[float, float]] = {}
        self.begin()

    def begin(self) -> None:
        self._times = time.perf_counter(), time.process_time()

    def lap(self, name: str) -> None:
        wall, cpu = self._times
        self.laps[name] = time.perf_counter() - wall, time.process_time() - cpu
        self.begin()


if __name__ == "__main__":
    if sys.argv[1] == "once":
        print(json.dumps(once(int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]))
