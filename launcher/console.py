"""What a person sees of a run: a line an event, on a terminal also one live line, or every event as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, TextIO

STEP_LINE_EVERY_S = 1.0  # a quicker run does not print all its steps; metrics.jsonl has them all
REFRESHES_PER_S = 4
BAR_WIDTH = 20
TAIL_PREFIX = "    "
TOLD_BY_ITSELF = ("train", "save")  # phases, by the steps and the checkpoint that follow

Event = Mapping[str, Any]


class Console:
    """Shows the events of a run as they come, plain lines by default.

    A reader that goes away (`fcn-launch train | head`, a closed terminal) does not disturb the run.
    """

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._held: Optional[str] = None  # the newest step, not printed yet
        self._step_time = 0.0

    def show(self, event: Event) -> None:
        """Shows one event."""
        with self._whoever_reads():
            self._show(event)

    def close(self) -> None:
        """Shows what was held back."""
        with self._whoever_reads():
            self._flush_held()

    def _show(self, event: Event) -> None:
        line = describe(event)
        if line is None:
            return
        if event["event"] in ("step", "eval", "bench"):
            self._progress(line, event)
            return
        self._flush_held()
        self._print(line)

    def _progress(self, line: str, event: Event) -> None:
        self._held = line
        if time.monotonic() - self._step_time >= STEP_LINE_EVERY_S:
            self._flush_held()

    def _flush_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._step_time = time.monotonic()
            self._print(held)

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    @contextmanager
    def _whoever_reads(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # nobody; and what is buffered must not fail once more at the interpreter's end
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


class LiveConsole(Console):
    """On a terminal: progress stays in one line below the others."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.status import Status

        super().__init__()
        self._rich = RichConsole(highlight=False, markup=False)
        self._live = Status("starting", console=self._rich, refresh_per_second=REFRESHES_PER_S)
        self._live.start()

    def close(self) -> None:
        with self._whoever_reads():
            self._live.stop()
        super().close()

    def _progress(self, line: str, event: Event) -> None:
        self._held = line
        done, total = event.get("done", event.get("step")), event.get("total", event.get("total_steps"))
        self._live.update(f"{_bar(done / total)} {line}" if done and total else line)

    def _print(self, line: str) -> None:
        self._rich.print(line, soft_wrap=True)


class JsonConsole(Console):
    """For programs: every event as one JSON line."""

    def _show(self, event: Event) -> None:
        self._print(json.dumps(event))


def make_console(as_json: bool = False) -> Console:
    """The console for where stdout goes."""
    if as_json:
        return JsonConsole()
    return LiveConsole() if sys.stdout.isatty() else Console()


def describe(event: Event) -> Optional[str]:
    """An event as text for a person; None for what only the journal wants."""
    describer = _DESCRIBERS.get(event["event"])
    if describer is None:
        return None
    try:
        return describer(event)
    except (KeyError, TypeError, ValueError):  # a worker of somebody else's filled its fields in another way
        return f"{event['event']}: {event}"


def _attempt(event: Event) -> str:
    return f"run {event['run']}" if event["attempt"] == 1 else f"attempt {event['attempt']}"


def _plan(event: Event) -> str:
    ranks = "1 rank" if event["world_size"] == 1 else f"{event['world_size']} ranks"
    text = f"{ranks} on {', '.join(event['hosts'])}"
    if event["master"]:
        text += f", meeting at {event['master']} ({event['rendezvous']})"
    return "\n".join([text, *(f"note: {note}" for note in event["notes"])])


def _phase(event: Event) -> Optional[str]:
    shown = event["rank"] == 0 and event["phase"] not in TOLD_BY_ITSELF
    return f"phase: {event['phase']}" if shown else None


def _step(event: Event) -> str:
    step, total = event.get("step_in_epoch", event["step"]), event.get("total_steps")
    text = f"epoch: {event.get('epoch', 1)} step: {step}, loss is {event['loss']:.6g}, lr {event['lr']:.4g}"
    if event.get("skipped_steps"):
        text += f", {event['skipped_steps']} skipped"
    rate = event.get("images_per_s")
    if rate:
        text += f", {rate:.4g} images/s"
        if event.get("step_s"):
            text += f", data {event['data_s'] / event['step_s']:.0%}"
    if total:
        text += f", {event['step']}/{total}"
    if rate and total:
        text += f", {duration((total - event['step']) * event['samples'] / rate)} left"
    return text


def _eval(event: Event) -> str:
    text, rate = f"predicted {event['done']} of {event['total']} images", event.get("images_per_s")
    if not rate:
        return text
    return f"{text}, {rate:.4g} images/s, {duration((event['total'] - event['done']) / rate)} left"


def _bench(event: Event) -> str:
    return f"step {event['done']} of {event['total']}"


def _checkpoint(event: Event) -> str:
    return f"checkpoint: {event['path']}"


def _save_failed(event: Event) -> str:
    return f"warning: {event['message']}"


def _metric(event: Event) -> Optional[str]:
    mean_iou = event.get("mean_iou")
    return None if mean_iou is None else f"mean IoU: {mean_iou:.4f}"


def _decision(event: Event) -> Optional[str]:
    is_wait = event["action"] == "wait"  # for no longer than a person needs to read the line after it
    return None if is_wait else f"{event['action']}: {event['reason']}"


def _verdict(event: Event) -> str:
    lines: List[str] = [event["text"]]
    if event["cause"]:
        lines += [f"cause: {event['cause']}", f"to do: {event['to_do']}"]
    lines += event["then"]
    if event["tail"]:
        lines += [f"last lines of {event['name']}:", *(TAIL_PREFIX + line for line in event["tail"])]
    return "\n".join(lines)


def _warning(event: Event) -> str:
    return f"warning: {event['text']}"


def _exclude(event: Event) -> str:
    return f"{event['who']} {event['reason']}: it is left out from now on"


def _retry(event: Event) -> str:
    left = (
        "1 restart is left" if event["restarts_left"] == 1 else f"{event['restarts_left']} restarts are left"
    )
    return f"restart in {event['after_s']:.1f} s: {event['reason']}; {left}"


def _end(event: Event) -> str:
    text = f"{event['state']} (exit code {event['exit_code']})"
    return f"{text}: {event['reason']}" if event["reason"] else text


_DESCRIBERS: Dict[str, Callable[[Event], Optional[str]]] = {
    "attempt": _attempt,
    "plan": _plan,
    "phase": _phase,
    "step": _step,
    "eval": _eval,
    "bench": _bench,
    "checkpoint": _checkpoint,
    "save_failed": _save_failed,
    "metric": _metric,
    "decision": _decision,
    "verdict": _verdict,
    "warning": _warning,
    "exclude": _exclude,
    "retry": _retry,
    "end": _end,
}


def _bar(share: float) -> str:
    done = min(BAR_WIDTH, int(BAR_WIDTH * share))
    return "━" * done + "─" * (BAR_WIDTH - done)


def duration(seconds: float) -> str:
    """A time to wait as people say it: 45s, 3m20s, 2h05m."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    if minutes == 0:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{minutes}m{rest:02}s" if hours == 0 else f"{hours}h{minutes:02}m"
