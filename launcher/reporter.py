"""Where the events of an attempt go: journal, status.json and the person at the console."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional

from launcher.background import Background
from launcher.status import Rate, Status

if TYPE_CHECKING:
    from launcher.console import Console
    from launcher.run import Run

# What is passed on of what workers say, and what it must have to be of use.
WORKER_EVENTS: Dict[str, tuple] = {
    "phase": ("phase",),
    "step": ("step",),
    "eval": ("done", "total"),
    "bench": ("done", "total"),
    "checkpoint": ("path",),
    "save_failed": ("message",),
    "metric": (),
    "error": ("type", "message"),
}
COUNTS = ("step", "done", "total", "total_steps", "samples")  # whole numbers where they are given
FREQUENT_EVENTS = ("step", "eval", "bench")  # of rank 0 alone, and not for the journal
SCREEN_EVENTS = 1000  # more than so many wait to be shown: progress is left out until they are
PASSING_EVENTS = (*FREQUENT_EVENTS, "health")  # not for the journal: what is wrong there makes a warning


class Reporter:
    """Writes each event where it belongs. A full disk is said once, and does not end the training.

    Who reports is never held up by a slow disk or by a terminal that stands still (Ctrl-S, a pipe that nobody
    reads): threads write, one for files and one for the console. `close` waits for them.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self._run = run
        self._console = console
        self._files, self._screen = Background("files"), Background("console")
        self._lock = threading.Lock()  # of what follows: the plan is made and reported by a thread
        self._attempt = 0
        self._status = Status()
        self._rates: Dict[str, Rate] = {}  # of this attempt, by event
        self._predicted = 0  # images of this evaluation
        self._status_is_old = True
        self._newest: Optional[Dict[str, Any]] = None  # of the status, until it is written
        self._write_failed = False

    @property
    def step(self) -> int:
        """The furthest step that the attempt has reached or saved, 0 where none is known."""
        return self._status.step

    @property
    def is_saved(self) -> bool:
        """Whether a checkpoint of the attempt has that step."""
        return self._status.is_saved

    @property
    def save_failed(self) -> bool:
        """Whether the last save of the attempt has failed, as its worker says."""
        return self._status.save_failed

    def begin(self, attempt: int, **fields: Any) -> None:
        """The event `attempt`: the ones after it are of this attempt, whose number counts from 1."""
        self._attempt = attempt
        self._rates = {"step": Rate(), "eval": Rate()}
        self.emit("attempt", **fields)

    def emit(self, event: str, **fields: Any) -> Dict[str, Any]:
        """An event of the launcher itself; returns what the journal has of it."""
        return self._record(event, fields)

    def worker(self, message: Mapping[str, Any], host: str) -> bool:
        """An agent's `status` message; False where the worker said nothing that is known or whole."""
        data, rank = message["data"], message["rank"]
        kind = data.get("event")
        if not isinstance(kind, str) or kind not in WORKER_EVENTS:
            return False
        if any(data.get(key) is None for key in WORKER_EVENTS[kind]):
            return False
        if any(type(data[key]) is not int for key in COUNTS if data.get(key) is not None):
            return False
        if kind not in FREQUENT_EVENTS or rank == 0:
            fields = {**data, "name": message["name"], "rank": rank, "host": host}
            if kind == "phase" and rank == 0:
                for rate in self._rates.values():
                    rate.pause()  # what comes between two steps is not training
                self._predicted = 0
            if kind in self._rates:
                fields["images_per_s"] = self._rates[kind].add(message["time_ns"], self._images(data))
            self._record(kind, fields)
        return True

    def _images(self, data: Mapping[str, Any]) -> int:
        """What a step has trained on, or what was predicted since the last event."""
        images = data.get("samples")  # of the global batch
        if data["event"] == "eval":
            images, self._predicted = data["done"] - self._predicted, data["done"]
        return images if isinstance(images, int) else 0

    def warn(self, text: str) -> None:
        self.emit("warning", text=text)

    def write_status(self) -> None:
        """Has status.json replaced if something has happened since; too dear for every event."""
        with self._lock:
            if not self._status_is_old:
                return
            self._status_is_old = False
            self._newest = self._status.as_dict()
        self._files.call(self._write_newest)

    def close(self) -> None:
        """Waits until all is written and shown."""
        self._files.close()
        self._screen.close()

    def _record(self, event: str, fields: Mapping[str, Any]) -> Dict[str, Any]:
        ours = {"event": event, "time_ns": time.time_ns(), "attempt": self._attempt}
        record = {**ours, **fields, **ours}  # ours come first in the line, and win
        with self._lock:
            self._status.fold(record)
            self._status_is_old = True
            if event not in PASSING_EVENTS:
                self._files.call(self._write, self._run.journal, record)
            if event not in FREQUENT_EVENTS or self._screen.waiting < SCREEN_EVENTS:
                self._screen.call(self._console.show, record)
        return record

    # --- what the thread for files does

    def _write_newest(self) -> None:
        with self._lock:
            status, self._newest = self._newest, None
        if status is not None:  # on a slow disk one writing does for several wishes
            self._write(self._run.write_status, status)

    def _write(self, write: Callable[[Mapping[str, Any]], None], record: Mapping[str, Any]) -> None:
        try:
            write(record)
        except OSError as error:
            if not self._write_failed:
                self._write_failed = True
                what = f"the run directory can not be written: {error}"
                text = f"{what}; make room or repair it: its journal has gaps"
                self._screen.call(self._console.show, {"event": "warning", "text": text})
