"""SIGTERM for the launcher in every phase: exit code 75 in time, a checkpoint of the last step, and the same
end.
"""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Tuple

from row import Broken, Figures, Row
from trainings import STEPS, Training, result_of, started, straight, train_words, with_evaluation

from fcn import checkpoint
from launcher.cluster_types import Timeouts

WORLD = 2
TRAININGS = 5  # of a case at most: one that is over before the signal reaches it is followed by another
LEAVE_S = Timeouts().grace_s + 1
# Where a phase is recognised by, how far into it the signal comes at most, cases of the full campaign and of
# the quick one.
PHASES = {
    "start": (lambda training: training.events("attempt"), 1.0, 8, 0),
    "import": (lambda training: training.events("started"), 1.5, 8, 0),
    "join": (lambda training: _in_phase(training, "init"), 1.5, 8, 0),
    "compile": (lambda training: _in_phase(training, "compile"), 4.0, 8, 1),
    "steps": (lambda training: len(training.steps()) >= 1, 2.0, 8, 0),  # quickly: see devices.py
    "evaluation": (lambda training: _in_phase(training, "eval"), 0.5, 8, 1),
    "save": (lambda training: _in_phase(training, "save"), 0.1, 8, 0),
}


def case(dice: Random, folder: Path, phase: str) -> Figures:
    settings = with_evaluation()
    expected = straight(WORLD, settings)
    for number in range(TRAININGS):
        place = folder / str(number)
        place.mkdir()
        with started(place, *train_words(place, WORLD, settings)) as training:
            code, figures = _preempt(dice, training, phase)
        if code == 75:
            with started(place, "resume") as training:
                if training.wait() != 0:
                    raise Broken(f"it does not go on: {training.said()}")
        assert training.run is not None
        expected.require_same(result_of(training.run))
        if code == 75:
            return figures
    raise Broken(f"{TRAININGS} trainings were over before they could be preempted")


def _preempt(dice: Random, training: Training, phase: str) -> Tuple[int, Figures]:
    """The exit code, 75, or 0 where all was done; nothing is lost either way."""
    begun, at_most_s, _, _ = PHASES[phase]
    if not training.until(lambda: bool(begun(training))):
        raise Broken(f"it ended before: {training.said()}")
    time.sleep(dice.uniform(0, at_most_s))
    signalled = time.monotonic()
    training.process.send_signal(signal.SIGTERM)
    code = training.wait()
    leave_s = time.monotonic() - signalled
    assert training.run is not None
    done = max((line["step"] for line in training.steps()), default=0)
    if code != 75 and (code, done) != (0, STEPS):
        raise Broken(f"exit code {code}: {training.said()}")
    found, damaged = checkpoint.newest(training.run / "checkpoints", to_resume=True)
    saved = found.step if found else 0
    if saved != done or damaged:
        raise Broken(f"step {done} was made, the newest checkpoint is of step {saved}; {damaged}")
    return code, {"leave_s": leave_s, "steps_done": done}


def _in_phase(training: Training, phase: str) -> bool:
    return any(event["phase"] == phase for event in training.events("phase"))


ROWS = [
    Row(
        f"preempted-{phase}",
        f"preempted in phase {phase}: 75 in time, nothing done is lost, and the same bits in the end",
        partial(case, phase=phase),
        full,
        quick,
        limits={"leave_s": LEAVE_S},
    )
    for phase, (_, _, full, quick) in PHASES.items()
]
