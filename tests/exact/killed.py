"""SIGKILL for any process of a training at any moment, again and again: it ends with the same bits."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import List, Tuple

from row import Broken, Figures, Row
from trainings import (
    EPOCH_STEPS,
    EVERYTHING,
    LIMIT_S,
    STEPS,
    Training,
    kill,
    result_of,
    started,
    straight,
    train_words,
    with_evaluation,
)

KILLS = 2  # of a case; after each it goes on, by itself or where the launcher was killed with `resume`
TRAININGS = 5  # of a case at most: one that is over before it was killed so often is followed by another
STEP_S = 0.1  # about what a step takes
LAST = STEPS - EPOCH_STEPS  # the last step to wait for: a kill after the end shows nothing
SETTINGS = {"plain": tuple, "everything": lambda: EVERYTHING, "evaluation": with_evaluation}
WORLDS = (1, 2, 4)
QUICK = ((1, "everything"), (2, "evaluation"), (4, "plain"))


def case(dice: Random, folder: Path, world: int, setting: str) -> Figures:
    settings = SETTINGS[setting]()
    expected = straight(world, settings)
    kills = attempts = 0
    for number in range(TRAININGS):
        place = folder / str(number)
        place.mkdir()
        words = train_words(place, world, settings)
        run, hits = _interrupted(dice, place, words, expected.seconds, KILLS - kills)
        expected.require_same(result_of(run))
        kills += hits
        attempts += len(list(run.glob("attempt-*")))
        if kills == KILLS:
            return {"kills": kills, "trainings": number + 1, "attempts": attempts}
    raise Broken(f"{TRAININGS} trainings were over before {KILLS} kills could hit them")


def _interrupted(dice: Random, folder: Path, words: List[str], seconds: float, most: int) -> Tuple[Path, int]:
    """A training to its end: its run, and how many kills have hit it, `most` of them."""
    hits = 0
    while True:
        with started(folder, *words) as training:
            while hits < most and _wait_for_a_moment(dice, training, seconds):
                hits += _kill_one(dice, training)
            code = training.wait()
        if code == -signal.SIGKILL:
            words = ["resume", "--max-restarts", "20"]
            continue
        if code != 0:
            raise Broken(f"exit code {code} after {hits} kills: {training.said()}")
        assert training.run is not None
        return training.run, hits


def _wait_for_a_moment(dice: Random, training: Training, seconds: float) -> bool:
    """Any since there is a run, most in the steps, some at epoch ends. False where it ends before."""
    if not training.until(lambda: bool(training.events("attempt"))):
        return False
    kind = dice.choice(["any", "step", "step", "epoch"])
    end = time.monotonic() + (dice.uniform(0, seconds) if kind == "any" else LIMIT_S)
    done = _last_step(training)
    step = max(LAST if kind == "any" else dice.randint(min(done + 1, LAST), LAST), done)
    if kind == "epoch":
        step -= step % EPOCH_STEPS
    if not training.until(lambda: _last_step(training) >= step or time.monotonic() > end):
        return False
    time.sleep(dice.uniform(0, STEP_S))
    return training.process.poll() is None


def _last_step(training: Training) -> int:
    return max((line["step"] for line in training.steps()), default=0)


def _kill_one(dice: Random, training: Training) -> bool:
    """Kills a worker, an agent or its guard, or the launcher; whether it was still there."""
    below = {"worker": training.workers(), "agent": training.agents()}.get(
        dice.choice(["worker", "agent", "launcher"]), []
    )
    if below:
        return kill(dice.choice(below))
    training.process.kill()
    return training.wait() == -signal.SIGKILL


ROWS = [
    Row(
        f"killed-{world}-{setting}",
        f"{world} workers end with the same bits, whoever is killed when ({KILLS} kills a case)",
        partial(case, world=world, setting=setting),
        full=3,
        quick=int((world, setting) in QUICK),
    )
    for world in WORLDS
    for setting in SETTINGS
]
