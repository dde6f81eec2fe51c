"""Whole launches beside disks, consoles, agents and machines that stand still."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import termios
import time
from array import array

import pytest
from launching import (
    FOREVER,
    LIMIT_S,
    LONG_S,
    STUBBORN,
    guard,
    hosts,
    only_child,
    sitecustomize,
    status,
    until_gone,
)

from launcher.agent import processes
from launcher.protocol import LEASE_S, SILENCE_S

TOLD = "this rank was told to fail (--inject raise)"
F_SETPIPE_SZ = 1031  # fcntl has a name for it from Python 3.10 on


def test_a_stuck_agent_does_not_hold_up_a_stop(start):
    launch = start(*STUBBORN, grace_s=0.2)
    launch.until_training(2)
    (token,) = launch.tokens()
    os.kill(only_child(guard(launch)), signal.SIGSTOP)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    until_gone(token)


@pytest.mark.slow
def test_an_agent_of_this_machine_that_does_not_answer_is_told(start):
    launch = start(*FOREVER)
    launch.until_training(2)
    os.kill(only_child(guard(launch)), signal.SIGSTOP)
    told = launch.until("warning")["text"]
    assert told.startswith(f"host here: its agent has not answered for {SILENCE_S:g} s: it was stopped, or")
    subprocess.run(re.search("`(.*)`", told).group(1), shell=True, check=True)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert {e["signal"] for e in launch.all("exit")} == {signal.SIGTERM}


def test_a_console_that_nobody_reads_holds_up_nothing(start):
    launch = start(*FOREVER)
    launch.until_training(2)
    (token,) = launch.tokens()
    fill(launch.process.stdout.fileno())
    before = status(launch)["progress"] or {"step": 0}
    end = time.monotonic() + LIMIT_S
    while (status(launch)["progress"] or before)["step"] < before["step"] + 50:
        assert time.monotonic() < end
        time.sleep(0.02)
    launch.signal(signal.SIGINT)
    until_gone(token)
    assert launch.finish() == 130  # when all is read
    assert launch.seen[-1]["event"] == "end"


def fill(pipe):
    """Waits until its writer can not go on."""
    fcntl.fcntl(pipe, F_SETPIPE_SZ, 4096)
    end, count, before = time.monotonic() + LIMIT_S, array("i", [0]), -1
    while count[0] < 2048 or count[0] != before:
        assert time.monotonic() < end
        before = count[0]
        time.sleep(0.2)
        fcntl.ioctl(pipe, termios.FIONREAD, count)


def slow_disk(folder, call="os.fsync"):
    """An environment in which each such call waits for as long as there is a file; the two files' paths."""
    hold, held = folder / "hold", folder / "held"
    code = (
        "import os, pathlib, time\n"
        "def wait(*_):\n"
        f"    while os.path.exists({str(hold)!r}):\n"
        f"        pathlib.Path({str(held)!r}).touch()\n"
        "        time.sleep(0.02)\n"
        "    return ()\n"
        f"{call} = wait\n"
    )
    return {"PYTHONPATH": sitecustomize(folder, code)}, hold, held


def test_a_disk_that_stands_still_holds_up_no_stop(start, tmp_path):
    environment, hold, held = slow_disk(tmp_path)
    launch = start(*FOREVER, **environment)
    launch.until_training(2)
    (token,) = launch.tokens()
    hold.touch()
    until_exists(held)
    launch.signal(signal.SIGINT)
    until_gone(token)
    hold.unlink()
    assert launch.finish() == 130
    assert status(launch)["exit_code"] == 130


def test_of_a_failure_that_proves_a_consequence_while_its_logs_are_read_no_verdict_is_told(start, tmp_path):
    code = (
        "import json, os, signal, time\n"
        "def fail(text):\n"
        "    error = {'event': 'error', 'type': 'E', 'message': text, 'traceback': 'E: ' + text}\n"
        "    os.write(int(os.environ['FCN_STATUS_FD']), json.dumps(error).encode() + b'\\n')\n"
        "def wait_for(name):\n"
        "    while not os.path.exists(name): time.sleep(0.02)\n"
        "if os.environ['RANK_ID'] == '0':\n"
        "    wait_for('ignores'); fail('Connection reset by peer'); os._exit(1)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ignores', 'w')\n"
        "wait_for('err'); fail('wrong data'); wait_for('leave')\n"
    )
    program = tmp_path / "worker.py"
    program.write_text(code)
    environment, hold, held = slow_disk(tmp_path, "pathlib.Path.rglob")
    hold.touch()
    launch = start(f"worker=-S {program}", grace_s=LONG_S, **environment)
    until_exists(held)  # what is known of rank 0 is looked for
    (launch.run / "err").touch()
    launch.until("error", rank=1)
    hold.unlink()
    launch.until("verdict")
    (launch.run / "leave").touch()
    launch.finish()
    assert [verdict["rank"] for verdict in launch.all("verdict")] == [1]


@pytest.mark.slow
def test_a_verdict_whose_logs_can_not_be_read_is_told_without(start, tmp_path):
    environment, hold, _ = slow_disk(tmp_path, "pathlib.Path.rglob")
    hold.touch()
    launch = start("faults=raise@1:0", **environment)
    assert launch.finish() == 4
    assert [verdict["what"] for verdict in launch.all("verdict")] == [f"RuntimeError: {TOLD}"]


def test_a_plan_that_comes_too_late_is_not_told_of_the_next_attempt(start, tmp_path):
    environment, hold, _ = slow_disk(tmp_path)
    launch = start(*FOREVER, "max_restarts=3", "first_wait_s=0.01", devices=1, **environment)
    launch.until_training(1)
    hold.touch()
    os.kill(launch.all("started")[0]["pid"], signal.SIGKILL)
    launch.until("attempt", attempt=2)
    until_exists(launch.run / "attempt-002" / f".plan.{launch.process.pid}.tmp")
    os.kill(guard(launch), signal.SIGKILL)
    launch.until("attempt", attempt=3)
    hold.unlink()
    launch.until("started")
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert [plan["attempt"] for plan in launch.all("plan")] == [1, 3]


def until_exists(path):
    end = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


@pytest.mark.slow
def test_hosts_are_kept_by_a_launcher_whose_console_and_disk_stand_still(start, tmp_path):
    environment, hold, held = slow_disk(tmp_path)
    hold.touch()
    launch = start(*FOREVER, cluster=hosts(), **environment)
    until_exists(held)  # the plan is being written; no process is started yet
    time.sleep(LEASE_S + 3)
    hold.unlink()
    launch.until_training(2)
    fill(launch.process.stdout.fileno())
    hold.touch()
    time.sleep(LEASE_S + 5)
    hold.unlink()
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert not launch.all("verdict") and {e["signal"] for e in launch.all("exit")} == {signal.SIGTERM}


@pytest.mark.slow
def test_a_machine_that_was_frozen_goes_on(start):
    launch = start(*FOREVER, cluster=hosts())
    launch.until_training(2)
    frozen = [launch.process.pid, *(process.pid for process in processes.descendants(launch.process.pid))]
    for number, wait_s in ((signal.SIGSTOP, LEASE_S + 3), (signal.SIGCONT, 0)):
        for pid in frozen:
            os.kill(pid, number)
        time.sleep(wait_s)
    launch.until("step", step=launch.until("step")["step"] + 500)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert not launch.all("verdict")


def test_a_run_directory_that_goes_away_does_not_end_the_training(start, tmp_path):
    launch = start("steps=20", "step_s=0.02")
    launch.until_training(2)
    launch.run.rename(tmp_path / "moved")
    assert launch.finish() == 0
    assert len(launch.all("warning")) == 1
    assert "the run directory can not be written" in launch.all("warning")[0]["text"]
