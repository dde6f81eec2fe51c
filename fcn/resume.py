"""Going on from a run's newest checkpoint, to the same bits as without the interruption."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Optional, Tuple

import mindspore as ms
import numpy as np

from fcn import checkpoint
from fcn.checkpoint import Checkpoint
from fcn.data.records import DataSet
from fcn.distributed import World
from fcn.errors import DataError, WeightsError

_VISIBLE_S = 30.0  # until another host's file is seen through a network file system's cache
_POLL_S = 0.5


def choose(folder: Path, world: World) -> Tuple[Optional[Checkpoint], List[str]]:
    """The checkpoint that all ranks go on from, None where there is none; a line on each that is damaged.

    Rank 0 chooses, the others take the same one. Raises WeightsError where this rank cannot read what rank 0
    has chosen.
    """
    found, damaged = checkpoint.newest(folder, to_resume=True) if world.rank == 0 else (None, [])
    mine = [found.step, _digest(found)] if found else [0, 0]
    step, digest = world.gather_sum(np.array(mine, np.int64)).tolist()
    if world.rank == 0 or step == 0:
        return found, damaged
    end = time.monotonic() + _VISIBLE_S
    while True:
        same = _of_step(folder, step)
        if same is not None and _digest(same) == digest:
            return same, []
        if time.monotonic() > end:
            raise WeightsError(
                f"{folder}: rank 0 goes on from its checkpoint of step {step}, which is not here; every host "
                "must have the same run directory"
            )
        time.sleep(_POLL_S)


def _of_step(folder: Path, step: int) -> Optional[Checkpoint]:
    """The whole checkpoint of this step; damaged ones of others do not matter."""
    for path in checkpoint.listed(folder, step):
        with suppress(WeightsError):
            return checkpoint.verify(path, to_resume=True)
    return None


def _digest(found: Checkpoint) -> int:
    """As much of its sha256 as an int64 holds."""
    return int(found.manifest["sha256"][:15], 16)


def restore(found: Checkpoint, state: List[Tuple[str, Any]], data: DataSet) -> None:
    """Set a training's parameters to those of the checkpoint.

    Raises WeightsError where the names or shapes are others, DataError where the data set is another.
    """
    if found.manifest["data_fingerprint"] != data.fingerprint:
        raise DataError(
            f"{data.path}: is not the data set that {found.path} was trained on; put that one back, or start "
            "another run"
        )
    loaded, _ = checkpoint.load(found.path)
    values = {name: value.asnumpy() for name, value in loaded.items()}
    values.update(checkpoint.load_state(found.path))
    wrong = [n for n, parameter in state if n not in values or values[n].shape != parameter.shape]
    more = sorted(values.keys() - {name for name, _ in state})
    if wrong or more:
        raise WeightsError(f"{found.path}: not of this run: {', '.join([*wrong, *more][:5])}")
    for name, parameter in state:
        parameter.set_data(ms.Tensor(values[name]))
