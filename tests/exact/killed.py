"""SIGKILL for any process of a training at any moment, again and again: it ends with the same bits."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from random import Random

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
)

KILLS = 2  # of a case; after each it goes on, by itself or where the launcher was killed with `resume`
STEP_S = 0.1  # about what a step takes
LAST = STEPS - EPOCH_STEPS  # the last step to wait for: a kill after the end shows nothing


def case(dice: Random, folder: Path, world: int) -> Figures:
    settings = dice.choice([(), EVERYTHING])
    expected = straight(world, settings)
    words, left, kills = train_words(folder, world, settings), KILLS, 0
    while True:
        with started(folder, *words) as training:
            was_killed = False
            while left and not was_killed and _wait_for_a_moment(dice, training, expected.seconds):
                left, kills = left - 1, kills + 1
                was_killed = _kill_one(dice, training)
            if not was_killed:
                code = training.wait()
                break
            training.wait()
            words = ["resume", "--max-restarts", "20"]
    if code != 0:
        raise Broken(f"exit code {code} after {kills} kills: {training.said()}")
    if kills == 0:
        raise Broken("it ended before it was killed")
    assert training.run is not None
    expected.require_same(result_of(training.run))
    return {"kills": kills, "attempts": len(list(training.run.glob("attempt-*")))}


def _wait_for_a_moment(dice: Random, training: Training, seconds: float) -> bool:
    """Any, most in the steps, some at the end of an epoch. False where the training ends before."""
    kind = dice.choice(["any", "step", "step", "epoch"])
    end = time.monotonic() + (dice.uniform(0.5, seconds) if kind == "any" else LIMIT_S)
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
    """Kills a worker, an agent or its guard, or the launcher; True where it is the launcher."""
    below = {"worker": training.workers(), "agent": training.agents()}.get(
        dice.choice(["worker", "agent", "launcher"]), []
    )
    if below:
        kill(dice.choice(below))
        return False
    training.process.kill()
    return True


ROWS = [
    Row(
        f"killed-{world}",
        f"{world} workers end with the same bits, whoever is killed when ({KILLS} kills a case)",
        partial(case, world=world),
        full,
        quick,
    )
    for world, full, quick in ((1, 8, 1), (2, 9, 1), (4, 8, 1))
]
