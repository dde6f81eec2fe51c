"""Command to exit of a trivial two-worker training: fcn-launch, both ways to meet, beside msrun."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

from benchmarks.report import report

PROGRAM = Path(__file__).resolve().with_name("trivial_training.py")
ROOT = PROGRAM.parents[1]
REPEATS = 3

LAUNCH = """
import sys
from pathlib import Path
from launcher.cluster import load_cluster
from launcher.console import make_console
from launcher.launch import launch
from launcher.run import Run
cluster = load_cluster(sys.argv[1])
run = Run.create(Path(sys.argv[2]), cluster, "train", sys.argv)
sys.exit(launch(run, cluster, (sys.argv[3],), "train", make_console()))
"""


def main() -> None:
    """Alternate the three, so that a busy moment hits all of them."""
    seconds: Dict[str, List[float]] = {"msrun": [], "scheduler": [], "store": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("scheduler", "store"):
            hosts = "hosts: [{name: here, address: 127.0.0.1, devices: 2}]"
            text = f"device_kind: cpu\nrendezvous: {name}\n{hosts}\n"
            (Path(folder) / f"{name}.yaml").write_text(text)
        for _ in range(REPEATS):
            for name, times in seconds.items():
                times.append(_timed(_msrun(folder) if name == "msrun" else _fcn_launch(folder, name), folder))
    rows = [[name, min(t), statistics.median(t), max(t)] for name, t in seconds.items()]
    medians = {name: statistics.median(t) for name, t in seconds.items()}
    report(
        "start",
        ["start", "min_s", "median_s", "max_s"],
        rows,
        store_to_msrun=medians["store"] / medians["msrun"],
        scheduler_to_msrun=medians["scheduler"] / medians["msrun"],
    )


def _msrun(folder: str) -> List[str]:
    options = ["--worker_num=2", "--local_worker_num=2", "--master_port=28118", "--join=True"]
    return [str(Path(sys.executable).with_name("msrun")), *options, f"--log_dir={folder}/msrun", str(PROGRAM)]


def _fcn_launch(folder: str, rendezvous: str) -> List[str]:
    return [sys.executable, "-c", LAUNCH, f"{folder}/{rendezvous}.yaml", f"{folder}/runs", str(PROGRAM)]


def _timed(command: List[str], folder: str) -> float:
    # msrun starts the `python` that PATH finds first
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - begin
