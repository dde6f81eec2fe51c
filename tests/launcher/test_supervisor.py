"""Whole launches with real agents, real workers without MindSpore, and real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
from launching import (
    FOREVER,
    LOCAL_CLUSTER,
    LONG_S,
    STUBBORN,
    guard,
    hosts,
    journal,
    only_child,
    status,
    until_gone,
)

from launcher.agent import processes
from launcher.cluster import load_cluster
from launcher.console import Console
from launcher.errors import PreflightError
from launcher.reporter import Reporter
from launcher.run import Run
from launcher.signals import Signals
from launcher.supervisor import Supervisor

TOLD = "this rank was told to fail (--inject raise)"


def test_a_run_to_its_end(start):
    launch = start("steps=3", "step_s=0.01")
    assert launch.finish() == 0
    state = status(launch)
    assert (state["state"], state["exit_code"], state["attempt"]) == ("done", 0, 1)
    assert state["progress"]["step"] == 3 and state["progress"]["images_per_s"] > 0
    assert {p["exit"]["code"] for p in state["processes"].values()} == {0}
    assert (launch.attempt / "rank-01.log").read_text() == "rank 1 begins\n"
    assert (launch.attempt / "plan" / "plan.json").is_file()
    assert not list(launch.attempt.glob("agent-*.log"))  # it had nothing to say
    kinds = [event["event"] for event in journal(launch)]
    assert kinds[:2] == ["attempt", "plan"] and kinds[-1] == "end" and "step" not in kinds
    assert [event["step"] for event in launch.all("step")] == [1, 2, 3]


def test_a_worker_that_raises_is_named_with_its_reason_and_its_last_lines(start):
    launch = start(*FOREVER, "inject=raise@3:1", devices=3)
    assert launch.finish() == 4
    (verdict,) = launch.all("verdict")
    log = launch.attempt / "rank-01.log"
    assert verdict["text"] == (
        f"rank 1 (host here, device 1) failed first: RuntimeError: {TOLD}; "
        f"correct what the traceback in its log names; log: {log}"
    )
    assert verdict["tail"][-1] == f"RuntimeError: {TOLD}"
    assert "Traceback (most recent call last):" in verdict["tail"]  # from the log: it could still be written
    assert status(launch)["verdict"]["rank"] == 1
    stops = [e for e in journal(launch) if e["event"] == "decision"]
    assert [(e["action"], "rank 1" in e["reason"]) for e in stops] == [("wait", True), ("stop", True)]


CRASHES_AT_EXIT = """
import os, signal
os.write(int(os.environ["FCN_STATUS_FD"]), b'{"event": "phase", "phase": "done"}' + bytes([10]))
os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_crash_after_all_work_is_done_is_a_warning(start, tmp_path):
    (tmp_path / "worker.py").write_text(CRASHES_AT_EXIT)
    launch = start(f"worker=-S {tmp_path}/worker.py", devices=1)
    assert launch.finish() == 0
    assert not launch.all("verdict")
    (warning,) = launch.all("warning")
    assert warning["text"].startswith("rank-00: killed by SIGSEGV (native code crashed), with its work done")


def test_the_verdict_on_an_error_that_is_known_has_its_cause_and_what_to_do(start):
    line = "[ERROR] HCCP(7,python):2026-11-23-10:00:00.000.000 [x.cc:1]EJ0001: Failed to initialize."
    launch = start(*FOREVER, f"say={line}\\n", "inject=crash@2:1")
    assert launch.finish() == 5
    (verdict,) = launch.all("verdict")
    assert (verdict["rank"], verdict["cause"]) == (1, "The last job still holds this NPU.")
    assert verdict["to_do"].startswith("Wait ten seconds after its end")
    assert status(launch)["verdict"]["to_do"] == verdict["to_do"]


@pytest.mark.parametrize(("fault", "code"), [("crash", 4), ("oom", 5), ("segv", 5)])
def test_exit_codes_and_signals_have_their_own_exit_codes(start, fault, code):
    launch = start(*FOREVER, f"inject={fault}@2:0")
    assert launch.finish() == code
    assert status(launch)["verdict"]["rank"] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_counts_though_the_machines_then_turn_out_not_to_be_ready(tmp_path, number, code):
    (tmp_path / "here.yaml").write_text(LOCAL_CLUSTER.format(devices=1, grace_s=1))
    cluster = load_cluster(str(tmp_path / "here.yaml"))
    run = Run.create(tmp_path / "runs", cluster, "train", [])

    def plan(facts):
        os.kill(os.getpid(), number)
        while supervisor.state.ending is None:
            os.sched_yield()
        raise PreflightError("not ready")

    with Signals() as signals, contextlib.closing(Reporter(run, Console())) as reporter:
        supervisor = Supervisor(run.new_attempt(), cluster, reporter)
        assert supervisor.supervise(lambda: plan, signals) == code


def test_what_does_not_end_in_the_grace_is_killed(start):
    launch = start(*STUBBORN, "inject=crash@50:1", grace_s=0.2)
    launch.until_training(2)
    (token,) = launch.tokens()
    assert launch.finish() == 4
    until_gone(token)
    assert [p["exit"]["signal"] for p in status(launch)["processes"].values()] == [signal.SIGKILL, None]


def test_ctrl_c_stops_everything_and_keeps_every_log(start):
    launch = start(*FOREVER, "term=exit")
    launch.until_training(2)
    (token,) = launch.tokens()
    os.killpg(launch.process.pid, signal.SIGINT)  # as a terminal sends it: to the whole foreground group
    assert launch.finish() == 130
    until_gone(token)
    assert status(launch)["state"] == "stopped"
    assert [e["code"] for e in launch.all("exit")] == [7, 7]  # in order: the agent got no SIGINT
    assert not launch.all("verdict")
    assert [path.read_text() for path in sorted(launch.attempt.glob("rank-*.log"))] == [
        "rank 0 begins\n",
        "rank 1 begins\n",
    ]


def test_a_second_ctrl_c_does_not_wait_for_the_grace(start):
    launch = start(*STUBBORN, grace_s=LONG_S)
    launch.until_training(2)
    (token,) = launch.tokens()
    launch.signal(signal.SIGINT)
    launch.until("decision", action="stop")
    launch.signal(signal.SIGINT)
    launch.until("decision", action="kill")
    assert launch.finish() == 130
    until_gone(token)


def test_a_closed_terminal_stops_in_order(start):
    launch = start(*FOREVER)
    launch.until_training(2)
    launch.signal(signal.SIGHUP)
    assert launch.finish() == 130
    assert {e["signal"] for e in launch.all("exit")} == {signal.SIGTERM}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_nohup_or_a_script_made_it_ignore_stays_ignored(start, number):
    launch = start(*FOREVER, before=("sh", "-c", f'trap "" {int(number)}; exec "$@"', "sh"))
    launch.until_training(2)
    assert number in ignored(launch.process.pid)  # not only delivered late
    launch.signal(number)
    launch.signal(signal.SIGTERM)
    assert launch.finish() == 75
    assert launch.all("decision")[0]["reason"] == "SIGTERM: preempted"


def ignored(pid):
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {number for number in signal.Signals if int(mask, 16) >> (number - 1) & 1}


def test_workers_run_in_the_run_directory(start):
    launch = start(*FOREVER)
    launch.until_training(2)
    pids = [event["pid"] for event in launch.all("started")]
    assert {Path(f"/proc/{pid}/cwd").resolve() for pid in pids} == {launch.run}
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_preempted_workers_save_and_leave(start, number):
    launch = start(*FOREVER, "save_s=0.1")
    launch.until_training(2)
    launch.signal(number)
    assert launch.finish() == 75
    assert [e["code"] for e in launch.all("exit")] == [75, 75]
    state = status(launch)
    assert (state["state"], state["reason"]) == ("preempted", "every rank has saved and left")


def test_a_preempted_worker_that_can_not_save_is_not_said_to_have_saved(start):
    launch = start(*FOREVER, "save=fail")
    launch.until_training(2)
    launch.signal(signal.SIGTERM)
    assert launch.finish() == 75
    assert status(launch)["reason"].startswith("not saved: ")


def test_a_preempted_worker_that_does_not_leave_has_one_grace(start):
    launch = start(*FOREVER, "save_s=600", grace_s=0.2)
    launch.until_training(2)
    launch.signal(signal.SIGTERM)
    assert launch.finish() == 75
    assert {e["signal"] for e in launch.all("exit")} == {signal.SIGKILL}
    assert status(launch)["reason"].startswith("not saved: ")


def test_a_failure_in_a_preemption_begins_no_second_grace(start, tmp_path):
    told = tmp_path / "told"  # what the supervisor says to an agent
    cluster = hosts(prefix1=["sh", "-c", f'tee {told} | "$@"', "sh"], grace_s=LONG_S)
    launch = start(*FOREVER, "save_s=600", cluster=cluster)
    launch.until_training(2)
    launch.signal(signal.SIGTERM)
    launch.until("decision", action="preempt")
    os.kill(next(e["pid"] for e in launch.all("started") if e["host"] == "h2"), signal.SIGKILL)
    assert launch.finish() == 75
    (stop,) = [message for message in map(json.loads, told.open()) if message["op"] == "stop"]
    assert 0 < stop["grace_s"] < LONG_S


def test_ctrl_c_in_a_preemption_is_the_users_stop(start):
    launch = start(*FOREVER, "save_s=600", grace_s=LONG_S)
    launch.until_training(2)
    launch.signal(signal.SIGTERM)
    launch.until("decision", action="preempt")
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert (status(launch)["state"], status(launch)["reason"]) == ("stopped", "")


def test_nothing_outlives_a_killed_launcher(start):
    launch = start(*STUBBORN)
    launch.until_training(2)
    (token,) = launch.tokens()
    launch.signal(signal.SIGKILL)
    launch.process.wait()
    until_gone(token)


def test_a_killed_guard_is_an_infrastructure_failure_with_nothing_left(start):
    launch = start(*STUBBORN)
    launch.until_training(2)
    (token,) = launch.tokens()
    os.kill(guard(launch), signal.SIGKILL)
    assert launch.finish() == 5
    until_gone(token)
    text = launch.all("verdict")[0]["text"]
    assert text.startswith("host here failed first: the guard of its agent was killed; `dmesg` there tells")


def test_a_killed_agent_is_an_infrastructure_failure_with_nothing_left(start):
    launch = start(*STUBBORN)
    launch.until_training(2)
    (token,) = launch.tokens()
    os.kill(only_child(guard(launch)), signal.SIGKILL)
    assert launch.finish() == 5
    until_gone(token)
    (verdict,) = launch.all("verdict")
    assert verdict["kind"] == "agent lost"
    assert verdict["text"].startswith(
        "host here failed first: its agent was killed by SIGKILL; see whether the host"
    )


@pytest.mark.parametrize("guards_end", [signal.SIGSTOP, signal.SIGKILL])
def test_what_outlived_its_agent_and_a_guard_that_does_nothing_is_swept(start, guards_end):
    launch = start(*STUBBORN)
    launch.until_training(2)
    (token,) = launch.tokens()
    outer = guard(launch)
    inner = only_child(outer)
    os.kill(outer, signal.SIGSTOP)
    os.kill(inner, signal.SIGKILL)
    os.kill(outer, guards_end)
    assert launch.finish() == 5
    assert processes.tagged(token) == []  # at its exit, not some time later
    assert not launch.all("warning")
