"""A training that goes from four workers to two and back sees the same samples in the same global batches."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from random import Random
from typing import Dict, List

from row import Broken, Figures, Row
from trainings import STEPS, Training, cluster_file, started, steps_of, straight, train_words

WORLDS = (4, 2, 4)
# Two devices compute the slices of four, one after the other: batch norm sees the same images together, and
# only the order of sums is another.
LOSS_TOLERANCE = 1e-3


def case(dice: Random, folder: Path) -> Figures:
    expected = _steps(straight(WORLDS[0], ()).run)
    stops = [2 + number * STEPS // len(WORLDS) + dice.randint(0, 4) for number in range(len(WORLDS))]
    cut = _steps(_interrupted(folder, stops))
    largest = max(abs(cut[step]["loss"] / expected[step]["loss"] - 1) for step in expected)
    for step in expected:
        if cut[step]["ids"] != expected[step]["ids"]:
            raise Broken(f"step {step}: samples {cut[step]['ids']}, not {expected[step]['ids']}")
    if largest > LOSS_TOLERANCE:
        raise Broken(f"a loss is off by {largest:.2g}")
    return {"loss_difference": largest}


def _interrupted(folder: Path, stops: List[int]) -> Path:
    """The run of a training that is preempted on each world after a step, and then ends."""
    for number, world in enumerate([*WORLDS, WORLDS[-1]]):
        if number == 0:
            words = train_words(folder, world, (), records=True)
        else:
            words = ["--cluster", cluster_file(folder, world, records=True), "resume"]
        stop = stops[number] if number < len(stops) else None
        with started(folder, *words) as training:
            if stop is not None:
                training.until(partial(_has_done, training, stop))
                training.process.send_signal(signal.SIGTERM)
            code = training.wait()
            if code != (0 if stop is None else 75):
                raise Broken(f"exit code {code} on {world} devices: {training.said()}")
    assert training.run is not None
    return training.run


def _has_done(training: Training, step: int) -> bool:
    return any(line["step"] >= step for line in training.steps())


def _steps(run: Path) -> Dict[int, dict]:
    """Loss and sample ids of each step."""
    found = {line["step"]: line for line in steps_of(run)}
    for step, line in found.items():
        shares = sorted(run.glob(f"samples-{line['attempt']}-*.jsonl"))
        line["ids"] = [
            sample
            for share in shares
            for taken in map(json.loads, share.read_text().splitlines())
            if taken["step"] == step
            for sample in taken["ids"]
        ]
    if sorted(found) != list(range(1, STEPS + 1)):
        raise Broken(f"metrics.jsonl has the steps {sorted(found)}")
    return found


ROWS = [Row("devices", f"on {WORLDS} devices one after the other: the same global batches", case, 3, quick=1)]
