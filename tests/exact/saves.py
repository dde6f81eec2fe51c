"""Checkpoints that are damaged, and saves that are killed: what a run then goes on from."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Callable, Dict, Optional, Tuple

import numpy as np
import save_trace
import saved
from row import Broken, Figures, Row
from save_program import file_name

from fcn import checkpoint
from fcn.checkpoint import manifest_of, state_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT_S = 120
VALUES = 50_000  # of each file of a checkpoint that is damaged
BLOCK = 4096
KILLS, MEGABYTES = 5, 100  # of a case; of a checkpoint
SPOILT_SHARE = 0.3  # of the kills


# --- damage


def damaged(dice: Random, folder: Path) -> Figures:
    """Three checkpoints; something happens to the newest."""
    paths = [save(folder, step) for step in (1, 2, 3)]
    which = dice.choice((Path, state_of, manifest_of))
    file = which(paths[2])
    before = content(file)
    name = dice.choice(list(DAMAGES))
    DAMAGES[name](dice, file, which(paths[dice.choice((0, 1))]))
    after = content(file)
    if after == before:
        raise Broken(f"{name} of {file.name} changed nothing")
    found, lines = checkpoint.newest(folder, to_resume=True)
    if found is None or found.path != paths[1]:
        raise Broken(f"{name} of {file.name}: the run goes on from {found and found.path.name}")
    if not any(paths[2].stem in line for line in lines):
        raise Broken(f"{name} of {file.name}: not named in {lines}")
    if content(file) != after:
        raise Broken(f"{name} of {file.name}: it was touched")
    return {}


def content(file: Path) -> Optional[bytes]:
    return file.read_bytes() if file.exists() else None


def save(folder: Path, step: int) -> Path:
    rng = np.random.default_rng(step)
    weights = {"conv6.0.weight": rng.normal(size=VALUES).astype(np.float32)}
    state = {"moments.conv6.0.weight": rng.normal(size=VALUES).astype(np.float32)}
    return checkpoint.save(folder, f"FCN8s-1_{step}", weights, state, {"step": step})


def truncate(dice: Random, file: Path, other: Path) -> None:
    size = file.stat().st_size
    os.truncate(file, dice.randrange(size - 1))  # without its last line break a manifest says the same


def flip(dice: Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.write_bytes(data)


def zero(dice: Random, file: Path, other: Path) -> None:
    """A block as the disk has it."""
    data = bytearray(file.read_bytes())
    start = dice.randrange(0, len(data), BLOCK)
    data[start : start + BLOCK] = bytes(len(data[start : start + BLOCK]))
    file.write_bytes(data)


def longer(dice: Random, file: Path, other: Path) -> None:
    with file.open("ab") as end:
        end.write(dice.randbytes(dice.randrange(1, BLOCK)))


def remove(dice: Random, file: Path, other: Path) -> None:
    file.unlink()


def foreign(dice: Random, file: Path, other: Path) -> None:
    """The file of another checkpoint in its place."""
    shutil.copyfile(other, file)


DAMAGES: Dict[str, Callable[[Random, Path, Path], None]] = {
    "truncated": truncate,
    "one bit flipped": flip,
    "a block of zeros": zero,
    "longer": longer,
    "gone": remove,
    "foreign": foreign,
}


# --- kills


def killed(dice: Random, folder: Path) -> Figures:
    """A process that saves again and again is killed again and again, and goes on each time.

    At times the newest checkpoint was damaged meanwhile: it goes on from the one before, and saves over it.
    """
    said = step = spoilt = 0  # steps: the newest whose save was over; the newest; one that is damaged
    rests = over = 0
    save_s = 0.5
    for _ in range(KILLS):
        if step > max(1, spoilt) and dice.random() < SPOILT_SHARE:
            spoilt, said = step, step - 1
            spoil(dice, folder / f"{file_name(step)}.ckpt")
            over += 1
        said, save_s = kill_one(dice, folder, said, save_s)
        rests += any(folder.rglob(".*.writing"))
        step = saved.require(folder, said, spoilt)
    return {
        "kills": KILLS,
        "of these while a file was being written": rests,
        "saves over a damaged one": over,
        "save_s": save_s,
    }


def spoil(dice: Random, path: Path) -> None:
    which = dice.choice((Path, state_of, manifest_of))
    flip(dice, which(path), path)


def kill_one(dice: Random, folder: Path, said: int, save_s: float) -> Tuple[int, float]:
    """Kills it in its first, second or third save; the last that it said was over, and what one takes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "save_program.py"), str(folder), str(MEGABYTES)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        if process.stdout.readline() != "begin\n":
            process.wait(LIMIT_S)
            raise Broken(f"after {said} it can not go on: {process.stderr.read()[-600:]}")
        for _ in range(dice.randrange(3)):
            began = time.monotonic()
            said = step_of(process.stdout.readline(), said)
            save_s = time.monotonic() - began
        time.sleep(dice.uniform(0, save_s))
    finally:
        process.kill()
    rest, errors = process.communicate(timeout=LIMIT_S)
    if process.returncode != -signal.SIGKILL:
        raise Broken(f"after {said} it ended by itself: {errors[-600:]}")
    return max([said, *(step_of(line, said) for line in rest.splitlines())]), save_s


def step_of(line: str, otherwise: int) -> int:
    """Of `durable N`; nothing is said by a process that has ended."""
    return int(line.split()[1]) if line else otherwise


ROWS = [
    Row(
        "damaged-checkpoint",
        "it is found before use and named, and the older one taken",
        damaged,
        full=1000,
        quick=20,
    ),
    Row(
        "killed-save",
        "what was saved stays, older ones too, and the run goes on from the newest",
        killed,
        full=200,
        quick=1,
    ),
    Row(
        "power-cut",
        "whatever of a save the disk has, in whatever order, what was saved before stays and is gone on from",
        save_trace.case,
        full=1,
        quick=1,
    ),
]
