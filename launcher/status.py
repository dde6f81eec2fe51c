"""The present state of a run, folded from its events: what status.json holds and `status` shows."""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Deque, Dict, Mapping, Optional, Tuple

from launcher.agent.processes import look

RATE_STEPS = 20  # steps over which images per second are averaged


class Rate:
    """Images per second over the last steps, from the times at which rank 0 reported them."""

    def __init__(self) -> None:
        self._steps: Deque[Tuple[int, int]] = deque(maxlen=RATE_STEPS)  # (ns it took, images) of each
        self._last_ns: Optional[int] = None

    def add(self, time_ns: int, images: int) -> Optional[float]:
        """Images per second, all ranks together; None until there is an interval to measure."""
        if self._last_ns is not None:
            self._steps.append((time_ns - self._last_ns, images))
        self._last_ns = time_ns
        elapsed_ns = sum(elapsed for elapsed, _ in self._steps)
        return sum(images for _, images in self._steps) / elapsed_ns * 1e9 if elapsed_ns > 0 else None

    def pause(self) -> None:
        """Something else follows: what passes until the next step is not counted."""
        self._last_ns = None


class Status:
    """status.json as a fold over the events of one launch.

    Of the attempt: `step`: the furthest; `is_saved`: whether a checkpoint has it; `save_failed`: whether its
    last save has.
    """

    def __init__(self) -> None:
        self.state = "starting"
        self.step = 0
        self.is_saved = self.save_failed = False
        self.processes: Dict[str, Dict[str, Any]] = {}
        self.hosts: Dict[str, Dict[str, Any]] = {}  # how they are, as they said last
        self._fields: Dict[str, Any] = {
            "attempt": None,
            "restarts_left": None,
            "launcher": _launcher(),
            "progress": None,
            "metric": None,
            "checkpoint": None,
            "verdict": None,
            "exit_code": None,
            "reason": None,
        }

    def fold(self, event: Mapping[str, Any]) -> None:
        """Takes one event of the journal or a step into account."""
        kind = event["event"]
        fold = getattr(self, f"_fold_{kind}", None)
        if fold is not None:
            fold(event)
        self._fields["updated_ns"] = event["time_ns"]

    def as_dict(self) -> Dict[str, Any]:
        """What it is now: later events do not change what is returned."""
        processes = {name: dict(process) for name, process in self.processes.items()}
        return {"state": self.state, **self._fields, "processes": processes, "hosts": dict(self.hosts)}

    def _fold_attempt(self, event: Mapping[str, Any]) -> None:
        self.state, self.step, self.processes, self.hosts = "starting", 0, {}, {}
        self.is_saved = self.save_failed = False
        keep = ("attempt", "restarts_left")
        self._fields.update({key: event[key] for key in keep}, progress=None, verdict=None)

    def _fold_started(self, event: Mapping[str, Any]) -> None:
        self.state = "running"
        keep = ("rank", "host", "device", "pid")
        self.processes[event["name"]] = {**{key: event[key] for key in keep}, "phase": None, "exit": None}

    def _fold_phase(self, event: Mapping[str, Any]) -> None:
        self.processes[event["name"]]["phase"] = event["phase"]

    def _fold_exit(self, event: Mapping[str, Any]) -> None:
        self.processes[event["name"]]["exit"] = {key: event[key] for key in ("code", "signal")}

    def _fold_step(self, event: Mapping[str, Any]) -> None:
        self._fields["progress"] = _content(event)
        self.is_saved = False
        self._reached(event)

    def _fold_health(self, event: Mapping[str, Any]) -> None:
        content = _content(event)
        self.hosts[content.pop("host")] = {**content, "updated_ns": event["time_ns"]}

    def _fold_devices(self, event: Mapping[str, Any]) -> None:
        content = _content(event)
        self.hosts.setdefault(content.pop("host"), {})["devices"] = content

    def _fold_metric(self, event: Mapping[str, Any]) -> None:
        self._fields["metric"] = _content(event)

    def _fold_checkpoint(self, event: Mapping[str, Any]) -> None:
        self._fields["checkpoint"] = _content(event)
        self.save_failed = False
        self._reached(event)
        self.is_saved = event.get("step") == self.step

    def _fold_save_failed(self, event: Mapping[str, Any]) -> None:
        self.save_failed = True

    def _reached(self, event: Mapping[str, Any]) -> None:
        if isinstance(event.get("step"), int):  # who filled it in is a worker, perhaps of somebody else's
            self.step = max(self.step, event["step"])

    def _fold_decision(self, event: Mapping[str, Any]) -> None:
        self.state = "stopping"

    def _fold_verdict(self, event: Mapping[str, Any]) -> None:
        self._fields["verdict"] = {key: value for key, value in _content(event).items() if key != "tail"}

    def _fold_retry(self, event: Mapping[str, Any]) -> None:
        self.state = "waiting"
        self._fields["restarts_left"] = event["restarts_left"]

    def _fold_end(self, event: Mapping[str, Any]) -> None:
        self.state = event["state"]
        self._fields.update(exit_code=event["exit_code"], reason=event["reason"])


def _launcher() -> Dict[str, Any]:
    """This process, so that others can tell whether it lives: an id alone may be somebody else's by then."""
    own = look(os.getpid())
    return {"pid": os.getpid(), "start": None if own is None else own.start, "host": os.uname().nodename}


def _content(event: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("event", "time_ns", "attempt")}
