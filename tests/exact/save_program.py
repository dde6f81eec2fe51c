"""Saves without end, as rank 0 of a training does, and nothing else: what the campaign kills.

    python save_program.py FOLDER MEGABYTES [LAST]

Goes on from the newest checkpoint of FOLDER; every value of a step's checkpoint is that step, and its score
grows with it. Says `durable N` once the save of step N is over, and exits with 1 where what it goes on from
is not what was saved.
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


class Program:
    """A training that does nothing but save."""

    def __init__(self, folder: Path, megabytes: float) -> None:
        self.folder = folder
        count = int(megabytes * 1e6 / 8)
        shapes = {"conv6.0.weight": (count // 4, 4), "conv6.1.gamma": (7,)}
        self.weights = [Value(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()]
        self.state = [Value(f"moments.{name}", np.zeros(shape, np.float32)) for name, shape in shapes.items()]
        self.saver = Saver(folder, self.weights, self.state, KEEP, Status(), writes=True)

    def run(self, last: float) -> None:
        found, _ = checkpoint.newest(self.folder, to_resume=True)
        step = self.go_on(found) if found else 0
        print("begin", flush=True)
        self.evaluate(step)  # perhaps it was broken off
        while step < last:
            step += 1
            self.set(step)
            self.saver.save(step, file_name(step), manifest(step), regular=True, last=is_scored(step))
            self.saver.finish(stay=True)
            print("durable", step, flush=True)
            self.evaluate(step)
        self.saver.finish(stay=True)

    def evaluate(self, step: int) -> None:
        """The next save waits for this one."""
        if is_scored(step):
            self.saver.save(step, file_name(step), manifest(step), regular=False, score=float(step))

    def set(self, step: int) -> None:
        for one in (*self.weights, *self.state):
            one.values[...] = step

    def go_on(self, found: checkpoint.Checkpoint) -> int:
        values = checkpoint.load_state(found.path)
        for one in self.state:
            if not np.array_equal(values[one.name], np.full_like(one.values, found.step)):
                sys.exit(f"{found.path}: {one.name} is not that of step {found.step}")
        self.set(found.step)
        return found.step


def file_name(step: int) -> str:
    return f"FCN8s-1_{step}"


def manifest(step: int) -> Any:
    return {"step": step, "permanent": False}


def is_scored(step: int) -> bool:
    return step > 0 and step % BEST_EVERY == 0


def steps_kept(step: int) -> List[int]:
    """Whose checkpoints must be there while `step` is the newest."""
    return list(range(max(1, step - KEEP + 1), step + 1))


def best_before(step: int) -> int:
    """The step of the best checkpoint that was whole before the save of `step` began; 0: none."""
    return (step - 1) // BEST_EVERY * BEST_EVERY


if __name__ == "__main__":
    program = Program(Path(sys.argv[1]), float(sys.argv[2]))
    program.run(float(sys.argv[3]) if len(sys.argv) > 3 else float("inf"))
