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
from typing import Any, Dict

from benchmarks.report import report

SERVERS, DEVICES = 1280, 8
REPEATS = 3


def main(servers: int = SERVERS) -> None:
    """Each repeat is one process; the median of each time, the most memory."""
    figures = [_repeat(servers) for _ in range(REPEATS)]
    times = {name: sorted(f[name] for f in figures) for name in figures[0] if name.endswith("_s")}
    rows = [[name[:-2].replace("_", " "), t[0], t[len(t) // 2], t[-1]] for name, t in times.items()]
    median = {name: t[len(t) // 2] for name, t in times.items()}
    report(
        "plan",
        ["work", "min_s", "median_s", "max_s"],
        rows,
        ranks=servers * DEVICES,
        plan_and_table_s=median["plan_and_check_s"] + median["rank_table_s"],
        plan_mb=max(f["plan_mb"] for f in figures),
        files=figures[0]["files"],
    )


def _repeat(servers: int) -> Dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.plan", "once", str(servers)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # type: ignore[no-any-return]


def once(servers: int) -> Dict[str, Any]:
    """The figures of this process: seconds of each part, MB that it needs for the plan."""
    from launcher.cluster import cluster_from
    from launcher.plan import HostFacts, Job, make_plan
    from launcher.plan_files import write_plan
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
    watch.lap("cluster_file_s")
    facts = {str(h["name"]): HostFacts(192, "aarch64", str(h["name"]), (20001,)) for h in hosts}
    with tempfile.TemporaryDirectory() as folder:
        job = Job("train", f"{folder}/run", ("-m", "fcn.worker", "train"))
        watch.lap("facts")
        plan = make_plan(used, job, facts)
        watch.lap("plan_and_check_s")
        assert plan.rank_table is not None and plan.world_size == servers * DEVICES
        text = to_text(plan.rank_table)
        assert check(json.loads(text), cluster.chip) == []
        watch.lap("rank_table_s")
        plan_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        names = write_plan(plan, Path(folder) / "plan")
        watch.lap("writing_s")
    return {**watch.laps, "plan_mb": plan_mb, "files": len(names)}


class _Watch:
    """Seconds between calls of `lap`."""

    def __init__(self) -> None:
        self.laps: Dict[str, float] = {}
        self._begin = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        if name.endswith("_s"):
            self.laps[name] = now - self._begin
        self._begin = now


if __name__ == "__main__":
    if sys.argv[1] == "once":
        print(json.dumps(once(int(sys.argv[2]))))
    else:
        main(int(sys.argv[1]))
