from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from launching import REPOSITORY

from launcher import console
from launcher.console import Console, JsonConsole, describe, duration

STEP = {"event": "step", "epoch": 2, "step": 30, "loss": 0.4118, "lr": 0.015, "samples": 16}


def shown(*events):
    stream = io.StringIO()
    plain = Console(stream)
    for event in events:
        plain.show(event)
    plain.close()
    return stream.getvalue().splitlines()


def test_a_step_as_the_seed_project_shows_it_with_what_people_miss_in_it():
    assert describe(STEP) == "epoch: 2 step: 30, loss is 0.4118, lr 0.015"
    fields = {"total_steps": 130, "images_per_s": 8.0}
    assert describe({**STEP, **fields}) == (
        "epoch: 2 step: 30, loss is 0.4118, lr 0.015, 8 images/s, 30/130, 3m20s left"
    )
    more = {"step_in_epoch": 5, "skipped_steps": 2, "data_s": 0.1, "step_s": 1.0}
    assert describe({**STEP, **fields, **more}) == (
        "epoch: 2 step: 5, loss is 0.4118, lr 0.015, 2 skipped, 8 images/s, data 10%, 30/130, 3m20s left"
    )


def test_one_rank_is_no_plural():
    plan = {
        "event": "plan",
        "world_size": 1,
        "hosts": ["a"],
        "master": None,
        "rendezvous": "none",
        "notes": [],
    }
    assert describe(plan) == "1 rank on a"
    assert describe({**plan, "world_size": 2}) == "2 ranks on a"


def test_restarts_are_told_with_their_reason_and_what_is_left():
    attempt = {"event": "attempt", "attempt": 1, "run": "runs/a"}
    assert [describe(attempt), describe({**attempt, "attempt": 2})] == ["run runs/a", "attempt 2"]
    retry = {"event": "retry", "after_s": 1.23, "reason": "device 1 of a failed", "restarts_left": 9}
    assert describe(retry) == "restart in 1.2 s: device 1 of a failed; 9 restarts are left"
    assert describe({**retry, "restarts_left": 1}).endswith("; 1 restart is left")
    end = {"event": "end", "state": "failed", "exit_code": 7, "reason": ""}
    assert describe(end) == "failed (exit code 7)"
    assert describe({**end, "reason": "no progress"}) == "failed (exit code 7): no progress"


def test_a_save_that_failed_is_loud():
    assert describe({"event": "save_failed", "step": 3, "message": "x: not saved"}) == "warning: x: not saved"


def test_quick_steps_are_thinned_out_but_the_last_one_is_shown(monkeypatch):
    monkeypatch.setattr(console, "STEP_LINE_EVERY_S", 600)
    steps = [{**STEP, "step": number} for number in range(1, 100)]
    lines = shown(*steps[:50], {"event": "checkpoint", "path": "a.ckpt"}, *steps[50:])
    assert [line.split(",")[0] for line in lines] == [
        "epoch: 2 step: 1",
        "epoch: 2 step: 50",
        "checkpoint: a.ckpt",
        "epoch: 2 step: 99",
    ]


@pytest.mark.parametrize(
    "event",
    [
        {**STEP, "loss": "low"},
        {"event": "step", "step": 3},
        {"event": "eval", "done": 3},
        {"event": "metric", "mean_iou": "good"},
    ],
)
def test_a_workers_strange_fields_are_shown_as_they_are(event):
    assert shown(event) == [f"{event['event']}: {event}"]


def test_what_only_the_journal_wants_is_not_shown():
    assert shown({"event": "started", "pid": 1}, {"event": "phase", "phase": "train", "rank": 1}) == []


def test_the_verdict_shows_the_last_lines_of_the_log():
    event = {"event": "verdict", "name": "rank-01", "text": "rank 1 failed first", "tail": ["a", "b"]}
    then = "ranks 0, 2-3 then: exit code 1"
    expected = ["rank 1 failed first", then, "last lines of rank-01:", "    a", "    b"]
    assert shown({**event, "cause": None, "to_do": None, "then": [then]}) == expected


def test_the_verdict_shows_what_the_catalogue_knows():
    event = {"event": "verdict", "name": "rank-01", "text": "rank 1 failed first", "tail": [], "then": []}
    expected = ["rank 1 failed first", "cause: No memory.", "to do: Use less."]
    assert shown({**event, "cause": "No memory.", "to_do": "Use less."}) == expected


def test_a_reader_that_goes_away_does_not_disturb():
    code = (
        "import sys; from launcher.console import make_console\n"
        "console = make_console()\n"
        "for n in range(100_000): console.show({'event': 'warning', 'text': str(n)})\n"
        "console.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
    )
    assert process.stdout.readline() == b"warning: 0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


def test_json_is_every_event(capsys):
    events = [{"event": "started", "pid": 1}, STEP]
    machine = JsonConsole()
    for event in events:
        machine.show(event)
    machine.close()
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events


def test_on_a_terminal_steps_share_one_line():
    code = (
        "import sys; from launcher.console import make_console\n"
        "console = make_console()\n"
        "for n in range(3): console.show({'event': 'step', 'step': n, 'loss': 1.0, 'lr': 0.1})\n"
        "console.show({'event': 'warning', 'text': 'disk'}); console.close()\n"
    )
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=inner,
        stderr=inner,
        cwd=REPOSITORY,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(inner)
    said = b""
    while True:
        try:
            said += os.read(outer, 65536)
        except OSError:  # how a terminal ends
            break
    os.close(outer)
    assert process.wait() == 0
    lines = [
        re.sub(rb"\x1b\[[?\d]+[a-z]", b"", line.rpartition(b"\x1b[2K")[2]) for line in said.split(b"\r\n")
    ]
    assert b"epoch: 1 step: 2, loss is 1, lr 0.1" in lines
    assert b"warning: disk" in lines
    assert b"epoch: 1 step: 0, loss is 1, lr 0.1" not in lines


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.6, "1h00m"), (90_000, "25h00m")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_prediction_says_how_long_it_takes():
    event = {"event": "eval", "done": 30, "total": 100, "images_per_s": 3.5}
    assert describe(event) == "predicted 30 of 100 images, 3.5 images/s, 20s left"
    assert describe({"event": "eval", "done": 1, "total": 100}) == "predicted 1 of 100 images"
