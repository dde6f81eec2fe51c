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
