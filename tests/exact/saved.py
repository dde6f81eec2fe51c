"""What a run must find after a save was broken off."""

from __future__ import annotations

from pathlib import Path

from row import Broken
from save_program import best_before, file_name, steps_kept

from fcn import checkpoint
from fcn.errors import WeightsError
from fcn.saver import BEST


def require(folder: Path, said: int, damaged: int = 0) -> int:
    """The step that a run goes on from; raises Broken where something is lost that was there.

    said: the newest step whose save was over. damaged: a later one whose checkpoint was damaged, and is not
    known to have been saved again; 0: none.
    """
    found, _ = checkpoint.newest(folder, to_resume=True)
    step = found.step if found else 0
    if step < said:
        raise Broken(f"the save of step {said} was over, the run would go on from {step}")
    newest = max(step, damaged)
    for older in steps_kept(newest):
        if older <= step:
            try:
                path = folder / f"{file_name(older)}.ckpt"
                checkpoint.verify(path, to_resume=older > newest - checkpoint.STATES_KEPT)
            except WeightsError as error:
                raise Broken(f"going on from {step}, an older one is lost: {error}") from None
    best, _ = checkpoint.newest(folder / BEST)
    if (best.step if best else 0) < best_before(step):
        raise Broken(f"at step {step} the best one is {best and best.path.name}, not {best_before(step)}")
    return step
