"""A training that goes from four workers to two and back sees the same samples in the same global batches."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Dict, List

from row import Broken, Figures, Row
from trainings import STEPS, Training, cluster_file, started, steps_of, train_words

WORLDS = (4, 2, 4)
# Two devices compute the slices of four, one after the other: batch norm sees the same images together, and
# only the order of sums is another.
LOSS_TOLERANCE = 1e-3


def case(dice: Random, folder: Path) -> Figures:
    straight = _trained(folder / "straight", [4], [])
    stops = [2 + number * STEPS // len(WORLDS) + dice.randint(0, 4) for number in range(len(WORLDS))]
    cut = _trained(folder / "cut", [*WORLDS, WORLDS[-1]], stops)
    largest = max(abs(cut[step]["loss"] / straight[step]["loss"] - 1) for step in straight)
    for step in straight:
        if cut[step]["ids"] != straight[step]["ids"]:
            raise Broken(f"step {step}: samples {cut[step]['ids']}, not {straight[step]['ids']}")
    if largest > LOSS_TOLERANCE:
        raise Broken(f"a loss is off by {largest:.2g}")
    return {"loss_difference": largest}


def _trained(folder: Path, worlds: List[int], stops: List[int]) -> Dict[int, dict]:
    """Loss and sample ids of each step; stops: after which step each but the last world is preempted."""
    folder.mkdir()
    python = folder / "recording-python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in\n'
        f'*fcn.worker*) exec {sys.executable} {Path(__file__).with_name("recorder.py")} "$@" ;;\n'
        f'*) exec {sys.executable} "$@" ;;\nesac\n'
    )
    python.chmod(0o755)
    words: List[str] = []
    for number, world in enumerate(worlds):
        cluster = cluster_file(folder, world, str(python))
        words = ["--cluster", cluster, "resume"] if number else train_words(folder, world, [], cluster)
        stop = stops[number] if number < len(stops) else None
        with started(folder, *words) as training:
            if stop is not None:
                training.until(partial(_has_done, training, stop))
                training.process.send_signal(signal.SIGTERM)
            code = training.wait()
            if code != (0 if stop is None else 75):
                raise Broken(f"exit code {code} on {world} devices: {training.said()}")
    assert training.run is not None
    return _steps(training.run)


def _has_done(training: Training, step: int) -> bool:
    return any(line["step"] >= step for line in training.steps())


def _steps(run: Path) -> Dict[int, dict]:
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
