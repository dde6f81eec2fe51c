"""Programs that are measured in turn, each in its own process: ours as a CPU worker runs it, and peers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from launcher.agent import observe
from launcher.cluster import load_cluster
from launcher.plan import HostFacts, Job, make_plan

ROOT = Path(__file__).resolve().parents[1]

# What a program does with the call it measures; the first one compiles, and makes what lasts.
MEASURE = """
import json, sys, time
from pathlib import Path

def measure(call, repeats, **more):
    call()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"times": times, "peak_gb": peak_kb * 1024 / 1e9, **more}))
"""


def worker_environment(workers: int = 1) -> Dict[str, str]:
    """What the plan gives the first of this many workers on this host."""
    cluster = load_cluster(f"{workers}xcpu.yaml")
    facts = {cluster.hosts[0].name: HostFacts.from_dict(observe.facts())}
    plan = make_plan(cluster, Job("train", "runs", ("-m", "fcn.worker", "train")), facts)
    return dict(plan.processes[0].env)


def peer_environment(workers: int = 1) -> Dict[str, str]:
    """As many threads as the worker has, and any instruction set."""
    return {"OMP_NUM_THREADS": worker_environment(workers).get("OMP_NUM_THREADS", str(os.cpu_count()))}


def run(program: str, arguments: Sequence[Any], env: Mapping[str, str]) -> Dict[str, Any]:
    """What the program's last line says, as JSON."""
    kept = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + program, *map(str, arguments)],
        env={**kept, **env, "PYTHONPATH": str(ROOT), "GLOG_v": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        sys.exit(f"the measuring program ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def figures(runs: Sequence[Mapping[str, Any]]) -> List[float]:
    """The least and the median of all times, and the largest peak, of one program's runs."""
    times = [time for one in runs for time in one["times"]]
    return [min(times), statistics.median(times), max(one["peak_gb"] for one in runs)]
