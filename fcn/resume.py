"""Going on from a run's newest checkpoint, to the same bits as without the interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Optional, Tuple

import mindspore as ms
import numpy as np

from fcn import checkpoint
from fcn.checkpoint import Checkpoint
from fcn.data.records import DataSet
from fcn.distributed import World
from fcn.errors import DataError, WeightsError


def choose(folder: Path, world: World) -> Tuple[Optional[Checkpoint], List[str]]:
    """The checkpoint that all ranks go on from, None where there is none; a line on each that is damaged.

    Rank 0 chooses: another host may see a file earlier or later. Raises WeightsError where this rank cannot
    read what rank 0 has chosen.
    """
    found, damaged = checkpoint.newest(folder) if world.rank == 0 else (None, [])
    step = int(world.gather_sum(np.array([found.step if found else 0], np.int64))[0])
    if world.rank == 0 or step == 0:
        return found, damaged
    for path in checkpoint.listed(folder):
        mine = checkpoint.verify(path)
        if mine.step == step:
            return mine, []
    raise WeightsError(f"{folder}: rank 0 has a checkpoint of step {step}, here is none; share the folder")


def restore(found: Checkpoint, state: List[Tuple[str, Any]], data: DataSet) -> None:
    """Set a training's parameters to those of the checkpoint.

    Raises WeightsError where the names or shapes are others, DataError where the data set is another.
    """
    if found.manifest["data_fingerprint"] != data.fingerprint:
        raise DataError(
            f"{data.path}: is not the data set that {found.path} was trained on; put that one back, or start "
            "another run"
        )
    values, _ = checkpoint.load(found.path)
    wrong = [n for n, parameter in state if n not in values or values[n].shape != parameter.shape]
    more = sorted(values.keys() - {name for name, _ in state})
    if wrong or more:
        raise WeightsError(f"{found.path}: not of this run: {', '.join([*wrong, *more][:5])}")
    for name, parameter in state:
        parameter.set_data(ms.Tensor(values[name].asnumpy()))
