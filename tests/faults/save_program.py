"""Saves without end, as rank 0 of a training does, and nothing else: what the campaign kills.

    python save_program.py FOLDER MEGABYTES [LAST]

Goes on from the newest checkpoint of FOLDER; every value of a step's checkpoint is that step. Says
`durable N` once a save is over, and exits with 1 where what it goes on from is not what was saved.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, List

import numpy as np

from fcn import checkpoint
from fcn.saver import Saver
from fcn.status import Status

KEEP = 3
BEST_EVERY = 3  # steps


class Value:
    """What the saver needs of a MindSpore parameter."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self.values = name, values

    def asnumpy(self) -> np.ndarray:
        return self.values


def main(folder: Path, megabytes: float, last: float) -> None:
    count = int(megabytes * 1e6 / 8)
    shapes = {"conv6.0.weight": (count // 4, 4), "conv6.1.gamma": (7,)}
    weights = [Value(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()]
    state = [Value(f"moments.{name}", np.zeros(shape, np.float32)) for name, shape in shapes.items()]
    saver = Saver(folder, weights, state, KEEP, Status(), writes=True)
    found, _ = checkpoint.newest(folder, to_resume=True)
    step = go_on(saver, found, state) if found else 0
    print("begin", flush=True)
    while step < last:
        step += 1
        for one in (*weights, *state):
            one.values[...] = step
        score = float(step) if step % BEST_EVERY == 0 else None
        saver.save(step, f"FCN8s-1_{step}", {"step": step, "permanent": False}, regular=True, score=score)
        saver.finish(stay=True)
        print("durable", step, flush=True)


def go_on(saver: Saver, found: checkpoint.Checkpoint, state: List[Any]) -> int:
    values = checkpoint.load_state(found.path)
    for one in state:
        if not np.array_equal(values[one.name], np.full_like(one.values, found.step)):
            sys.exit(f"{found.path}: {one.name} is not that of step {found.step}")
    saver.best = found.manifest["best_mean_iou"]
    return found.step


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else float("inf"))
