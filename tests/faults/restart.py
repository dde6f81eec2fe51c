"""Real MindSpore: from the SIGKILL of a rank in training to the next step, beside a cold start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Dict

from launching import environment
from row import Broken, Figures, Row

NETWORK = ("num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32", "batch_size=4")
LENGTH = ("train_epochs=4", "save_steps=3")  # 12 steps
KILLED_AT = 5
LIMIT_S = 300


def case(dice: Random, folder: Path) -> Figures:
    fcn_launch(folder, "data", "make-demo", "--out", "set", "--train", "24", "--val", "7", "--size", "48")
    sets = [*NETWORK, *LENGTH, "data_file=set/train.mindrecord"]
    began_ns = time.time_ns()
    fcn_launch(
        folder,
        *("--cluster", "2xcpu.yaml", "train", "--inject", f"oom@{KILLED_AT}:1"),
        *(word for setting in sets for word in ("--set", setting)),
    )
    (run,) = folder.glob("runs/*")
    first_ns: Dict[int, int] = {}  # of each attempt, when its first step was over
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            first_ns.setdefault(event["attempt"], event["time_ns"])
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    killed_ns = next(event["exit_ns"] for event in events if event["event"] == "exit" and event["rank"] == 1)
    if sorted(first_ns) != [1, 2]:
        raise Broken(f"steps were taken in the attempts {sorted(first_ns)}")
    cold_s, restart_s = (first_ns[1] - began_ns) / 1e9, (first_ns[2] - killed_ns) / 1e9
    return {"cold_start_s": cold_s, "restart_s": restart_s, "ratio": restart_s / cold_s}


def fcn_launch(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *words],
        cwd=folder,
        env=environment(GLOG_v="3", PATH=os.environ["PATH"]),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode != 0:
        raise Broken(f"code {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}")


ROWS = [
    Row(
        "restart", "MindSpore training goes on after a rank was killed; beside a cold start", case, 3, quick=1
    )
]
