"""What a save costs the training: the published FCN-8s, 1.07 GB of weights and momentum.

Beside MindSpore's own, each in a process of its own, one after the other: normal steps, a step that saves,
and the steps until the files are there. Ours are on stable storage by then, with their sha256; the step that
saves has the metrics synced too. ModelCheckpoint's are in the page cache, which is written before the next
round. The exit code is 1 where a limit is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any, Dict, List

from benchmarks.report import report
from benchmarks.sides import ROOT, worker_environment

SIDES = ("fcn-launch", "ModelCheckpoint", "ModelCheckpoint, async_save")
ROUNDS = 5
CROP, BATCH = 128, 2
NORMAL_STEPS = 4  # before each save, and after it

# The longest that a step with a save may take: of a normal step, and more
STEP_FACTOR, STEP_MORE_S = 1.3, 0.3
EXTRA_SHARE = 0.5  # the most that all steps may take longer, of what the write takes alone

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from mindspore.train import CheckpointConfig, ModelCheckpoint, RunContext
from mindspore.train.callback._callback import InternalCallbackParam
from fcn import platform
from fcn.config import Config
from fcn.distributed import World
from fcn.metrics_file import MetricsFile
from fcn.network import build_network
from fcn.saver import Saver
from fcn.status import Status
from fcn.step import Steps

folder, name = Path(sys.argv[1]), sys.argv[2]
crop, batch, rounds, normal_steps = map(int, sys.argv[3:])
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (batch, crop, crop, 3), np.uint8)
labels = rng.choice([*range(21), 255], (batch, crop, crop)).astype(np.uint8)
config = Config(crop_size=crop, batch_size=batch)
device = platform.set_up()
steps = Steps(build_network(config, device), config, device, World())
weights, moments = list(steps.graph.net.get_parameters()), list(steps.graph.optimizer.moments)
number = 0


def seconds(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def until(is_true):
    while not is_true():
        time.sleep(0.01)


def step():
    steps.run(images, labels, config.base_lr)


class Strict(Status):
    saved = 0

    def send(self, event, **fields):
        if event == "save_failed":
            sys.exit(fields["message"])
        if event == "checkpoint":
            self.saved = fields["step"]


class Ours:
    def __init__(self):
        self.status = Strict()
        self.saver = Saver(folder / "ours", weights, moments, 1, self.status, writes=True)
        self.metrics = MetricsFile(folder)

    def save(self):
        global number
        number += 1
        self.metrics.append("step", step=number)
        self.metrics.sync()
        self.saver.save(number, f"FCN8s-1_{number}", {"step": number, "permanent": False}, regular=True)

    def is_written(self):
        return (folder / "ours" / f"FCN8s-1_{number}.json").exists()

    def is_over(self):
        self.saver.tell()
        return self.status.saved == number


class Theirs:
    def __init__(self, async_save):
        self.folder = folder / "theirs"
        options = CheckpointConfig(save_checkpoint_steps=1, keep_checkpoint_max=1, async_save=async_save)
        self.callback = ModelCheckpoint("FCN8s", str(self.folder), options)
        self.callback._graph_saved = True  # the network's graph is not what is measured
        self.expected = None

    def save(self):
        global number
        number += 1
        about = InternalCallbackParam()
        about.update(
            train_network=steps.graph, cur_step_num=number, batch_num=10**6, cur_epoch_num=1,
            parallel_mode="stand_alone", mode="train", epoch_num=1,
        )
        self.expected = self.folder / f"FCN8s-1_{number}.ckpt"
        self.callback.step_end(RunContext(about))

    def is_written(self):
        return self.expected.exists()

    def is_over(self):
        return self.is_written()


sides = {
    "fcn-launch": Ours,
    "ModelCheckpoint": lambda: Theirs(False),
    "ModelCheckpoint, async_save": lambda: Theirs(True),
}
side = sides[name]()
step()
side.save()  # the first takes memory from the kernel
until(side.is_over)
found = []
for _ in range(rounds):
    os.sync()  # or the disk would be busy with what the round before has left to it
    normal = [seconds(step) for _ in range(normal_steps)]
    during = [seconds(step) + seconds(side.save)]
    while not side.is_written():
        during.append(seconds(step))
    after = []
    while not side.is_over():
        after.append(seconds(step))
    normal += [seconds(step) for _ in range(normal_steps)]
    os.sync()
    alone = seconds(lambda: (side.save(), until(side.is_written)))
    until(side.is_over)
    found.append({"normal": normal, "during": during, "after": after, "alone": alone})
size = sum(array.asnumpy().nbytes for array in (*weights, *moments))
print(json.dumps({"gigabytes": size / 1e9, "rounds": found}))
"""


def main() -> None:
    """Seconds of the steps around a save, and of what the write takes when nothing else runs."""
    found = {name: _run(name) for name in SIDES}
    rows = [[name, *figures(one["rounds"]).values()] for name, one in found.items()]
    ours = figures(found[SIDES[0]]["rounds"])
    limit_s = STEP_FACTOR * ours["normal_s"] + STEP_MORE_S
    columns = ["save by", *ours]
    limits = {"step_s": limit_s, "extra_share": EXTRA_SHARE}
    report("save", columns, rows, gigabytes=found[SIDES[0]]["gigabytes"], limits=limits)
    missed = [
        f"{name} is {ours[name]:.3g}, above {limit:.3g}"
        for name, limit in limits.items()
        if ours[name] > limit
    ]
    if missed:
        sys.exit(f"save: {'; '.join(missed)}")


def _run(side: str) -> Dict[str, Any]:
    """What the program finds with one way to save."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, folder, side, *map(str, (CROP, BATCH, ROUNDS, NORMAL_STEPS))],
            env={**os.environ, **worker_environment(), "PYTHONPATH": str(ROOT), "GLOG_v": "3"},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        sys.exit(f"{side} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def figures(rounds: List[Dict[str, Any]]) -> Dict[str, float]:
    """Medians over the rounds.

    extra_s: what the steps from the save on took longer until it was on the disk. later_s: the steps after
    those, until it was read back from there and the one before was deleted.
    """
    normal_s = median(seconds for one in rounds for seconds in one["normal"])

    def extra(phase: str) -> float:
        return median(sum(one[phase]) - len(one[phase]) * median(one["normal"]) for one in rounds)

    alone_s = median(one["alone"] for one in rounds)
    return {
        "normal_s": normal_s,
        "step_s": median(one["during"][0] for one in rounds),
        "steps": median(len(one["during"]) for one in rounds),
        "extra_s": extra("during"),
        "later_s": extra("after"),
        "alone_s": alone_s,
        "extra_share": extra("during") / alone_s,
    }
