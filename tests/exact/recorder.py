"""`recorder.py -m fcn.worker train`: the worker, and a record of its samples in the run directory."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from fcn.data import pipeline

READ = pipeline.train_batches


class Recorded:
    """Batches, whose sample ids are written down as they are taken."""

    def __init__(self, batches: Any, step: int, rank: int) -> None:
        self._batches, self._step = batches, step
        name = f"samples-{os.environ['FCN_ATTEMPT']}-{rank}.jsonl"
        self._file = (Path(os.environ["FCN_RUN_DIR"]) / name).open("a", buffering=1)
        self.close = batches.close

    def __iter__(self) -> Recorded:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._step += 1
        self._file.write(json.dumps({"step": self._step, "ids": batch[2].tolist()}) + "\n")
        return batch


def train_batches(*args: Any, start_step: int, rank: int, **more: Any) -> Recorded:
    return Recorded(READ(*args, start_step=start_step, rank=rank, **more), start_step, rank)


pipeline.train_batches = train_batches
sys.argv = sys.argv[2:]
runpy.run_module("fcn.worker", run_name="__main__", alter_sys=True)
