"""From the command to the first training step of two workers: where the seconds go.

Rank 1 is killed before step 3, so the same run also shows a restart: MindSpore's graphs are there by then.
VGG16 at full width, fc 512, crops of 64.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.report import report

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ["encoder_width=1", "fc_channels=512", "crop_size=64", "train_epochs=1", "save_steps=1000"]

# What ends where the next begins; each at rank 0's event in the journal
PARTS = (
    ("options, configuration and data checked", "attempt", None),
    ("agents, plan, processes", "started", None),
    ("Python, configuration", "phase", "init"),
    ("MindSpore, device, ranks meet", "phase", "data"),
    ("data set, network, weights", "phase", "compile"),
    ("reader, compilation, first step", "step", None),
)


def main() -> None:
    """Seconds of each part, of a start and of the restart."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "demo"
        _fcn_launch(folder, "data", "make-demo", "--out", data)
        sets = [f"data_file={data}/train.mindrecord", *SETTINGS]
        words = [word for item in sets for word in ("--set", item)]
        begin_ns = time.time_ns()
        _fcn_launch(
            folder, "--cluster", "2xcpu.yaml", "train", "--config", "demo", "--inject", "oom@3:1", *words
        )
        (run,) = (Path(folder) / "runs").iterdir()
        events = _lines(run / "events.jsonl") + _lines(run / "metrics.jsonl")
    died_ns = min(event["exit_ns"] for event in events if event["event"] == "exit")
    start, restart = _parts(events, 1, begin_ns), _parts(events, 2, died_ns)
    rows = [[part, start[part], restart[part]] for part in start]
    rows.append(["all", sum(start.values()), sum(restart.values())])
    ratio = sum(restart.values()) / sum(start.values())
    report("first_step", ["part", "start_s", "restart_s"], rows, restart_to_start=ratio)


def _fcn_launch(folder: str, *words: Any) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
    command = [sys.executable, "-m", "launcher", *map(str, words)]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _lines(path: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _parts(events: List[Dict[str, Any]], attempt: int, begin_ns: int) -> Dict[str, float]:
    """Seconds of each part of an attempt, the first from `begin_ns` on."""
    seconds, last_ns = {}, begin_ns
    for name, kind, phase in PARTS:
        end_ns = min(
            event["time_ns"]
            for event in events
            if event["attempt"] == attempt
            and event["event"] == kind
            and event.get("rank", 0) == 0
            and event.get("phase") == phase
        )
        seconds[name] = (end_ns - last_ns) / 1e9
        last_ns = end_ns
    return seconds
