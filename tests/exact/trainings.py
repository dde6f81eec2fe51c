"""Trainings of a tiny network by the whole program, and what they end with."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from launching import environment
from row import Broken

from fcn import checkpoint
from fcn.saver import BEST
from launcher.agent import processes

NETWORK = ("num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32", "global_batch=16")
LENGTH = ("train_epochs=10", "save_steps=2", "keep_checkpoint_max=3")
EPOCH_STEPS, STEPS = 3, 30
# Enough for float16 to overflow at first: steps are skipped, and the scale halves.
EVERYTHING = (
    *("ema_decay=0.9", "accumulate_steps=2", "clip_norm=1"),
    *("amp_level=O2", "dynamic_loss_scale=true", "loss_scale=16777216"),
)
LIMIT_S = 300.0  # for what has to come, on a busy machine
_POLL_S = 0.002


class Result(NamedTuple):
    """What a training ends with.

    losses: of the steps, from 1, as they are written. scores: of the evaluations, by step. state: sha256 of
    every array of the last checkpoint. best: manifest of the best one, with the sha256 of its file.
    """

    run: Path
    losses: Dict[int, float]
    scores: Dict[int, Tuple[float, float]]
    state: Dict[str, str]
    loss_scale: Dict[str, Any]
    best: Dict[str, Any]
    seconds: float

    def require_same(self, other: Result) -> None:
        """Raises Broken where a bit is another."""
        if list(other.losses) != list(range(1, STEPS + 1)):
            raise Broken(f"metrics.jsonl has the steps {list(other.losses)}")
        for step, loss in self.losses.items():
            if other.losses[step] != loss:
                raise Broken(f"step {step} has the loss {other.losses[step]!r}, not {loss!r}")
        wrong = [
            name for name in {**self.state, **other.state} if self.state.get(name) != other.state.get(name)
        ]
        if wrong:
            raise Broken(f"{len(wrong)} arrays end with other bits, such as {wrong[0]}")
        if other.loss_scale != self.loss_scale:
            raise Broken(f"the loss scale ends as {other.loss_scale}, not {self.loss_scale}")
        if other.scores != self.scores:
            raise Broken(f"the evaluations have the scores {other.scores}, not {self.scores}")
        if other.best != self.best:
            raise Broken(f"the best checkpoint is {other.best}, not {self.best}")


class Training:
    """A launcher of a training, in a folder of its own; its output is a file."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self._output = folder / "output"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "launcher", "--runs", "runs", *words],
                cwd=folder,
                env=environment(GLOG_v="3"),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def run(self) -> Optional[Path]:
        return next(self.folder.glob("runs/*"), None)

    def steps(self) -> List[Dict[str, Any]]:
        """The lines of steps that there are, in order."""
        return [] if self.run is None else steps_of(self.run)

    def events(self, kind: str) -> List[Dict[str, Any]]:
        """What the journal has of this kind."""
        return (
            [] if self.run is None else [e for e in _lines(self.run / "events.jsonl") if e["event"] == kind]
        )

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits for the condition; False where the launcher ends before."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise Broken(f"nothing comes: {self.said()}")
            time.sleep(_POLL_S)
        return True

    def wait(self) -> int:
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"it does not end: {self.said()}") from None

    def workers(self) -> List[processes.Process]:
        return self._below("fcn.worker")

    def agents(self) -> List[processes.Process]:
        """Guards and their agents."""
        return self._below("launcher.agent")

    def _below(self, module: str) -> List[processes.Process]:
        found = []
        for process in processes.descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if module.encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(process)
        return found

    def said(self) -> str:
        return self._output.read_text(errors="replace")[-1500:]

    def end(self) -> None:
        family = processes.descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        for process in family:
            processes.send(process, signal.SIGKILL)


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[Training]:
    """A launcher of which nothing is left at the end of the context."""
    training = Training(folder, *words)
    try:
        yield training
    finally:
        training.end()


def train_words(folder: Path, world: int, settings: Sequence[str], records: bool = False) -> List[str]:
    sets = (*NETWORK, *LENGTH, f"data_file={data()}/train.mindrecord", *settings)
    return [
        *("--cluster", cluster_file(folder, world, records), "train", "--max-restarts", "20"),
        *(word for setting in sets for word in ("--set", setting)),
    ]


def cluster_file(folder: Path, world: int, records: bool = False) -> str:
    """A cluster of this machine. Time to start, as it may be busy; to leave, what everybody has.

    records: workers write down their samples, see recorder.py.
    """
    path = folder / f"{world}.yaml"
    path.write_text(
        f"device_kind: cpu\npython: {_recording_python(folder) if records else sys.executable}\nhosts:\n"
        f"  - {{name: here, address: 127.0.0.1, devices: {world}}}\n"
        "timeouts: {start_s: 120}\n"
    )
    return str(path)


def _recording_python(folder: Path) -> Path:
    python = folder / "recording-python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in\n'
        f'*fcn.worker*) exec {sys.executable} {Path(__file__).with_name("recorder.py")} "$@" ;;\n'
        f'*) exec {sys.executable} "$@" ;;\nesac\n'
    )
    python.chmod(0o755)
    return python


def with_evaluation() -> Tuple[str, ...]:
    return ("eval_epochs=2", f"data_root={data()}", f"data_lst={data()}/val.txt", "eval_batch_size=2")


@functools.cache
def _place() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="exact-")  # removed at the end of the campaign


@functools.cache
def data() -> Path:
    """A data set of three steps an epoch, drawn once."""
    folder = Path(_place().name) / "data"
    words = ["data", "make-demo", "--out", str(folder), "--train", "50", "--val", "24", "--size", "48"]
    subprocess.run(
        [sys.executable, "-m", "launcher", *words], env=environment(), check=True, capture_output=True
    )
    return folder


@functools.cache
def straight(world: int, settings: Tuple[str, ...]) -> Result:
    """What a training ends with that nothing interrupts. Raises Broken where its settings come to nothing."""
    folder = Path(_place().name) / f"straight-{straight.cache_info().currsize}"
    folder.mkdir()
    began = time.monotonic()
    with started(folder, *train_words(folder, world, settings, records=True)) as training:
        if training.wait() != 0:
            raise Broken(f"the training without an interruption: {training.said()}")
        assert training.run is not None
        result = result_of(training.run, time.monotonic() - began)
    if "dynamic_loss_scale=true" in settings and result.loss_scale["skipped"] == 0:
        raise Broken(f"no step was skipped: {result.loss_scale}")
    if "eval_epochs=2" in settings and not min(result.scores) < result.best["step"] < max(result.scores):
        raise Broken(f"the best of {result.scores} is neither replaced nor kept")
    return result


def result_of(run: Path, seconds: float = 0.0) -> Result:
    found, damaged = checkpoint.newest(run / "checkpoints", to_resume=True)
    if found is None or damaged:
        raise Broken(f"no checkpoint at the end, or a damaged one: {damaged}")
    if found.step != STEPS:
        raise Broken(f"the last checkpoint is of step {found.step}")
    values, _ = checkpoint.load(found.path)
    arrays = {name: value.asnumpy() for name, value in values.items()}
    arrays.update(checkpoint.load_state(found.path))
    state = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    # Of a step, or an evaluation, the last line counts.
    losses = {line["step"]: line["loss"] for line in steps_of(run)}
    scores = {line["step"]: (line["mean_iou"], line["pixel_accuracy"]) for line in _metrics(run, "metric")}
    best, _ = checkpoint.newest(run / "checkpoints" / BEST)
    return Result(
        run, losses, scores, state, found.manifest["loss_scale"], dict(best.manifest) if best else {}, seconds
    )


def steps_of(run: Path) -> List[Dict[str, Any]]:
    """The lines of metrics.jsonl that are steps."""
    return _metrics(run, "step")


def _metrics(run: Path, event: str) -> List[Dict[str, Any]]:
    return [line for line in _lines(run / "metrics.jsonl") if line["event"] == event]


def _lines(path: Path) -> List[Dict[str, Any]]:
    try:
        whole = path.read_bytes().split(b"\n")[:-1]  # the last line may be on its way
    except FileNotFoundError:
        return []
    found = []
    for line in whole:
        with contextlib.suppress(ValueError):  # cut short by a kill
            found.append(json.loads(line))
    return found


def kill(process: processes.Process) -> bool:
    """SIGKILL; whether there was still something to kill."""
    now = processes.look(process.pid)
    if now is None or now.start != process.start or now.state in "ZX":
        return False
    processes.send(now, signal.SIGKILL)
    return True
