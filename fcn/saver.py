"""Saving while the training goes on: the state is copied between two steps and written by a thread.

The thread holds Python's lock for moments only, and steps aside for the training where cores are scarce.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Mapping, Optional

import numpy as np

from fcn import checkpoint
from fcn.errors import SaveError, WeightsError
from fcn.status import Status

BEST = "best"  # folder of the best checkpoint, in that of the others
NICE = 10  # a tenth of a core where none is idle; less would starve a save that the run waits for
# How long a save that is due waits for the one before it. The other ranks are in the next step's sum by then,
# which gives up after 30 s on CPUs, unless the launcher has set more.
WAIT_S = 20.0
POLL_S = 1.0
# The last save of a run finds no room: how long it is tried again. The other ranks wait for rank 0 to leave.
RETRY_S, RETRY_EVERY_S = 300.0, 5.0
# What is said where a save has failed
GO_ON = "earlier checkpoints stay, the next one is tried when it is due; make room, or see to the disk"
LAST = f"it is the last one, and tried again for {RETRY_S:.0f} s: make room, or see to the disk"
_FINITE_BLOCK = 1 << 16  # values


@dataclass(frozen=True)
class _Target:
    """A checkpoint of a job: where, with what manifest, whether with its state.

    keep: how many stay there; None: it alone.
    """

    folder: Path
    manifest: Mapping[str, Any]
    state: bool
    keep: Optional[int]


@dataclass(frozen=True)
class _Job:
    """What is being written of one step. `best`: mean IoU of the best checkpoint afterwards."""

    step: int
    name: str
    targets: List[_Target]
    best: Optional[float]


class Saver:
    """Writes the checkpoints of a training: rank 0's alone, one at a time.

    Takes memory for a second copy of what it saves. `best`: mean IoU of the best checkpoint that there is, at
    first by its own manifest: what is gone on from was saved before it was scored.
    """

    def __init__(
        self, folder: Path, weights: List[Any], state: List[Any], keep: int, status: Status, writes: bool
    ) -> None:
        """weights, state: MindSpore's parameters, see fcn.checkpoint. writes: False on all ranks but 0."""
        self.best: Optional[float] = None
        self._folder, self._keep, self._status, self._writes = folder, keep, status, writes
        self._running: Optional[Future] = None
        self._job: Optional[_Job] = None
        self._failed: Optional[SaveError] = None
        self._taken = 0  # bytes, by the disk
        if writes:
            found, _ = checkpoint.newest(folder / BEST)
            self.best = found.manifest["best_mean_iou"] if found else None
            self._live = {parameter.name: parameter for parameter in (*weights, *state)}
            copies = {name: np.empty_like(value.asnumpy()) for name, value in self._live.items()}
            self._weights = {parameter.name: copies[parameter.name] for parameter in weights}
            self._state = {parameter.name: copies[parameter.name] for parameter in state}
            self._pool = ThreadPoolExecutor(1, "saver", initializer=_step_aside)
            # The kernel gives memory when it is first written to, in seconds for a gigabyte: not in a step.
            self._running = self._pool.submit(lambda: [copy.fill(0) for copy in copies.values()])

    def save(
        self,
        step: int,
        name: str,
        manifest: Mapping[str, Any],
        regular: bool,
        score: Optional[float] = None,
        last: bool = False,
    ) -> None:
        """Copy the present state and have it written as `name`, once the save before is over.

        regular: to be kept with its state. score: mean IoU; above the best one so far, the weights are kept
        in BEST. last: no step follows at once, but the end or an evaluation. A save that cannot begin in
        WAIT_S is left out, unless it is the last.
        """
        if not self._writes:
            return
        with self._status.during("save"):
            self._status.enter("save", step)
            if not self._wait(step, None if last else WAIT_S):
                self._complain(
                    step,
                    f"{self._folder / name}.ckpt: not saved: the save before it still runs; the disk is slow",
                )
                return
            self.tell()
            is_best = score is not None and (self.best is None or score > self.best)
            best = score if is_best else self.best
            targets = self._unsaved(step)
            if is_best:
                described = {**manifest, "best_mean_iou": best, "permanent": False}
                targets.append(_Target(self._folder / BEST, described, False, None))
            if regular:
                targets.append(_Target(self._folder, manifest, True, self._keep))
            if targets:
                self._copy()
                self._job = _Job(step, name, targets, best)
                self._running = self._pool.submit(self._write, self._job)

    def _unsaved(self, step: int) -> List[_Target]:
        """What could not be written of this step: it is tried again with what comes now."""
        job = self._job
        return list(job.targets) if job and self._failed and job.step == step else []

    def _copy(self) -> None:
        for copies in (self._weights, self._state):
            for name, copy in copies.items():
                np.copyto(copy, self._live[name].asnumpy())

    @property
    def has_failed(self) -> bool:
        """Whether the last save that has ended was not made."""
        return self._failed is not None

    def tell(self, advice: Optional[str] = GO_ON) -> None:
        """Report the save that has ended since: between steps, so that what is said is in their order.

        advice: what to say where it has failed; None: that was said before. Raises FloatingPointError where
        the values were not finite.
        """
        if self._job is None or self._running is None or not self._running.done():
            return
        ended, self._running, self._failed = self._running, None, None
        try:
            paths = ended.result()
        except SaveError as error:
            self._failed = error
            if advice is not None:
                self._complain(self._job.step, f"{error}; {advice}")
            return
        self.best = self._job.best
        for path in paths:
            self._status.send("checkpoint", path=str(path), step=self._job.step)

    def finish(self, stay: bool) -> None:
        """Wait for the last save. stay: where it failed try again for RETRY_S, then raise its SaveError."""
        if self._job is None:
            return
        with self._status.during("save"):
            self._wait(self._job.step, None)
            self.tell(LAST if stay else GO_ON)
            end = time.monotonic() + RETRY_S
            while stay and self._failed is not None:
                if time.monotonic() > end:
                    raise SaveError(f"{self._failed}; tried again for {RETRY_S:.0f} s; make room, and resume")
                time.sleep(RETRY_EVERY_S)
                self._status.enter("save", self._job.step)
                self._running = self._pool.submit(self._write, self._job)
                self._wait(self._job.step, None)
                self.tell(advice=None)

    def close(self) -> None:
        """Wait for what is being written, whatever comes of it."""
        if self._writes:
            self._pool.shutdown()

    def _wait(self, step: int, limit_s: Optional[float]) -> bool:
        """Whether the save before is over within the limit. A disk that takes bytes is no hang."""
        end = time.monotonic() + (float("inf") if limit_s is None else limit_s)
        while self._running is not None and not self._running.done():
            if time.monotonic() >= end:
                return False
            taken = self._taken
            wait([self._running], POLL_S)
            if self._taken != taken:
                self._status.enter("save", step)
        return True

    def _complain(self, step: int, text: str) -> None:
        self._status.send("save_failed", step=step, message=text)
        print(f"warning: {text}", flush=True)

    # --- by the thread

    def _write(self, job: _Job) -> List[Path]:
        """Write the checkpoints of a job; then delete what they replace. Raises SaveError."""
        self._require_finite(job.step)
        paths = []
        for target in job.targets:
            state = self._state if target.state else None
            paths.append(
                checkpoint.save(target.folder, job.name, self._weights, state, target.manifest, self._took)
            )
        for path, target in zip(paths, job.targets):
            try:
                checkpoint.retire(path, target.keep)
            except WeightsError as error:
                raise SaveError(f"{error}: it was saved just now, and does not read back") from None
            except OSError as error:
                raise SaveError(f"{error.filename}: can not be deleted: {error.strerror}") from None
        return paths

    def _require_finite(self, step: int) -> None:
        broken = [
            name
            for copies in (self._weights, self._state)
            for name, copy in copies.items()
            if not _is_finite(copy.reshape(-1))
        ]
        if broken:
            raise FloatingPointError(
                f"{len(broken)} parameters are not finite after step {step}, such as {broken[0]}; they were "
                f"not saved; lower base_lr, or set clip_norm; earlier checkpoints: {self._folder}"
            )

    def _took(self, count: int) -> None:
        self._taken += count


def _is_finite(values: np.ndarray) -> bool:
    """Block by block: the mask of a whole layer would be as large as a fourth of it."""
    blocks = range(0, values.size, _FINITE_BLOCK)
    return all(bool(np.isfinite(values[start : start + _FINITE_BLOCK]).all()) for start in blocks)


def _step_aside() -> None:
    """The calling thread's alone: Linux has a niceness for each."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
