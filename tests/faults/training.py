"""Real MindSpore: a rank of a training is killed, or hangs in each way, and the training goes on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Callable, Dict, Iterator, List, Sequence

import simulated
from clusters import here
from launching import environment
from row import Broken, Figures, NotHere, Row

NETWORK = ("num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32", "batch_size=4")
SETTINGS = (*NETWORK, "train_epochs=4", "save_steps=3", "data_file=set/train.mindrecord")  # 12 steps
SIZES = ("--train", "24", "--val", "7", "--size", "48")
RANKS, BROKEN_AT = 2, 6
HANG_S = 5.0
KINDS = {"stop": "stopped", "spin": "spinning", "hang": "blocked"}
LIMIT_S = 300


class Training:
    """A training under the launcher, in a folder."""

    def __init__(self, folder: Path, cluster: str, *options: str, before: Sequence[str] = ()) -> None:
        self.folder = folder
        (folder / "cluster.yaml").write_text(cluster)
        finish(launcher(folder, "data", "make-demo", "--out", "set", *SIZES))
        sets = [word for setting in SETTINGS for word in ("--set", setting)]
        self.began_ns = time.time_ns()
        self.process = launcher(folder, "--cluster", "cluster.yaml", "train", *options, *sets, before=before)

    @property
    def run(self) -> Path:
        return next(self.folder.glob("runs/*"))

    def events(self, kind: str, name: str = "events.jsonl") -> List[Dict[str, Any]]:
        """What its journal says of this kind."""
        found = []
        for path in self.folder.glob(f"runs/*/{name}"):
            lines = path.read_text().split("\n")[:-1]  # without a last line that is being written
            found += [event for event in map(json.loads, lines) if event["event"] == kind]
        return found

    def steps(self) -> List[Dict[str, Any]]:
        return self.events("step", "metrics.jsonl")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                raise Broken(f"{what}: {finish(self.process)}")
            time.sleep(0.05)


def launcher(folder: Path, *words: str, before: Sequence[str] = ()) -> subprocess.Popen:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "launcher", *words],
        cwd=folder,
        env=environment(GLOG_v="3", PATH=os.environ["PATH"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """What it said. Broken where it does not end well."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate()
    if process.returncode != 0:
        raise Broken(f"code {process.returncode}: {said[-1200:]}")
    return said


def killed(dice: Random, folder: Path) -> Figures:
    """From the SIGKILL of a rank to the next step, beside a cold start."""
    training = Training(folder, here(dice, folder, RANKS), "--inject", f"oom@{BROKEN_AT}:1")
    finish(training.process)
    first_ns: Dict[int, int] = {}  # of each attempt, when its first step was over
    for step in training.steps():
        first_ns.setdefault(step["attempt"], step["time_ns"])
    if sorted(first_ns) != [1, 2]:
        raise Broken(f"steps were taken in the attempts {sorted(first_ns)}")
    killed_ns = next(event["exit_ns"] for event in training.events("exit") if event["rank"] == 1)
    cold_s, restart_s = (first_ns[1] - training.began_ns) / 1e9, (first_ns[2] - killed_ns) / 1e9
    return {"cold_start_s": cold_s, "restart_s": restart_s, "ratio": restart_s / cold_s}


def hung(fault: str) -> Callable[[Random, Path], Figures]:
    def case(dice: Random, folder: Path) -> Figures:
        rank = dice.randrange(RANKS)
        cluster = here(dice, folder, RANKS, f", hang_s: {HANG_S}")
        training = Training(folder, cluster, "--inject", f"{fault}@{BROKEN_AT}:{rank}")
        finish(training.process)
        # A stopped process gives its stacks when it is continued, and goes on for a moment.
        place = "_one_step" if fault == "stop" else f"_{fault}"
        return judged(training, {rank: place}, [(rank, KINDS[fault])])

    return case


def cut(dice: Random, folder: Path) -> Figures:
    """The network between the ranks lets nothing through: all are blocked in the collective."""
    missing = simulated.why_not()
    if missing is not None:
        raise NotHere(missing)
    with network() as pid:
        inside = ["nsenter", "-t", str(pid), "--net"]
        training = Training(folder, here(dice, folder, RANKS, f", hang_s: {HANG_S}"), before=inside)
        training.until(lambda: len(training.steps()) >= BROKEN_AT, "no steps")
        subprocess.run([*inside, "ip", "link", "set", "lo", "down"], check=True)
        training.until(lambda: bool(training.events("hung")), "no hang is seen")
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        finish(training.process)
        return judged(training, {}, [(None, "interconnect")])


@contextlib.contextmanager
def network() -> Iterator[int]:
    """A network namespace with a loopback of its own; the id of a process in it."""
    up = "ip link set lo up && echo up && exec sleep infinity"
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", up], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.communicate()


def judged(training: Training, places: Dict[int, str], expected: List[Any]) -> Figures:
    """Whether the right rank was named, all Python stacks are kept, the training came to its end.

    places: functions that the stacks of some ranks show; the others wait in a step.
    """
    events = training.events("hung")
    if [(event["rank"], event["kind"]) for event in events] != expected:
        raise Broken(f"not {expected} but {[event['what'] for event in events]}")
    for rank in range(RANKS):
        log = (training.run / "attempt-001" / f"rank-{rank:02}.log").read_text()
        where = places.get(rank, 'fcn/step.py"')
        if where not in log:
            raise Broken(f"no Python stack with {where} in the log of rank {rank}: {log[-1200:]}")
    attempts = {step["attempt"] for step in training.steps()}
    if attempts != {1, 2}:
        raise Broken(f"steps were taken in the attempts {sorted(attempts)}")
    (verdict,) = training.events("verdict")
    return {"hang_to_verdict_s": (verdict["time_ns"] - events[0]["since_ns"]) / 1e9}


ROWS = [
    Row("restart", "MindSpore goes on after a rank was killed; beside a cold start", killed, 3, quick=1),
    *(
        Row(
            f"hangs-mindspore-{fault}",
            f"MindSpore: the rank that is {kind} is named, Python stacks of all are kept, it goes on",
            hung(fault),
            1,
            quick=int(fault == "hang"),
        )
        for fault, kind in KINDS.items()
    ),
    Row(
        "hangs-mindspore-network",
        "MindSpore: all ranks are blocked in a collective: none is named, all stacks are kept, it goes on",
        cut,
        1,
        quick=0,
    ),
]
