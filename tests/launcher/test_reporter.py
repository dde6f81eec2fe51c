"""What workers say is passed on where it is whole; odd lines of a foreign program do no harm."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any, Dict

import pytest

from launcher.console import Console
from launcher.reporter import Reporter
from launcher.run import Run


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        ({"event": "eval", "done": 1, "total": 2}, True),
        ({"event": "eval", "done": "1", "total": "2"}, False),
        ({"event": "step", "step": 3, "samples": None}, True),
        ({"event": "step", "step": 2.5}, False),
        ({"event": "step"}, False),
        ({"event": "save_failed", "step": 3, "message": "x.ckpt: not saved"}, True),
        ({"event": "save_failed", "step": 3}, False),
        ({"event": [1]}, False),
        ({"event": "of its own"}, False),
        ({}, False),
    ],
)
def test_what_is_not_whole_is_left_out(tmp_path: Path, data: Dict[str, Any], is_whole: bool) -> None:
    with closing(Reporter(Run(tmp_path), Console(io.StringIO()))) as reporter:
        reporter.begin(1, run="x", hosts=["here"], restarts_left=0)
        message = {"event": "status", "name": "rank-00", "rank": 0, "time_ns": 1, "data": data}
        assert reporter.worker(message, "here") is is_whole


def test_a_save_between_two_steps_does_not_count_as_training(tmp_path: Path) -> None:
    """10 images of every second; a save of 100 s after the second step."""
    stream = io.StringIO()
    with closing(Console(stream)) as console, closing(Reporter(Run(tmp_path), console)) as reporter:
        reporter.begin(1, run="x", hosts=["here"], restarts_left=0)
        reporter.emit("started", name="rank-00", rank=0, host="here", device=0, pid=1)

        def say(second: int, **data: Any) -> None:
            time_ns = second * 10**9
            message = {"event": "status", "name": "rank-00", "rank": 0, "time_ns": time_ns, "data": data}
            assert reporter.worker(message, "here")

        for step, second in enumerate((0, 1, 101, 102), start=1):
            say(second, event="step", step=step, samples=10, loss=1.0, lr=0.1, total_steps=9)
            if step == 2:
                say(1, event="phase", phase="save")
                say(100, event="phase", phase="train")
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("epoch")]
    assert lines[0].endswith("lr 0.1, 1/9")
    assert lines[-1].endswith("lr 0.1, 10 images/s, 4/9, 5s left")


@pytest.mark.parametrize(
    ("said", "is_saved"),
    [("s1 c1", True), ("s1 c1 s2", False), ("s1 s2 c1", False), ("s1 s2 c1 c2", True), ("", False)],
)
def test_whether_all_that_was_done_is_saved(tmp_path: Path, said: str, is_saved: bool) -> None:
    """Steps and checkpoints, which come late where they are written in the background."""
    with closing(Reporter(Run(tmp_path), Console(io.StringIO()))) as reporter:
        reporter.begin(1, run="x", hosts=["here"], restarts_left=0)
        for word in said.split():
            step, name = int(word[1:]), {"s": "step", "c": "checkpoint"}[word[0]]
            data = {"event": name, "step": step, "path": "x.ckpt", "loss": 1.0, "lr": 0.1}
            message = {"event": "status", "name": "rank-00", "rank": 0, "time_ns": step, "data": data}
            assert reporter.worker(message, "here")
        assert reporter.is_saved is is_saved
