"""Whole launches with real agents, real workers without MindSpore, and real signals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from array import array
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import (
    FOREVER,
    LIMIT_S,
    LOCAL_CLUSTER,
    TWO_HOSTS,
    Launch,
    closing,
    only_child,
    sitecustomize,
    until_gone,
)

from launcher.agent import processes
from launcher.cluster import load_cluster
from launcher.console import Console
from launcher.engines.link import EXIT_LIMIT_S
from launcher.errors import PreflightError
from launcher.protocol import LEASE_S, SILENCE_S
from launcher.reporter import Reporter
from launcher.run import Run
from launcher.signals import Signals
from launcher.supervisor import Supervisor

STUBBORN = (*FOREVER, "term=ignore", "children=1")
TOLD = "this rank was told to fail (--inject raise)"
F_SETPIPE_SZ = 1031  # fcntl has a name for it from Python 3.10 on
LONG_S = 60  # a grace that a test would notice


@pytest.fixture
def launches():
    with closing() as made:
        yield made


@pytest.fixture
def start(launches, tmp_path):
    def make(*settings, devices=2, grace_s=10.0, cluster=None, **env):
        text = cluster or LOCAL_CLUSTER.format(devices=devices, grace_s=grace_s)
        launches.append(Launch(tmp_path, text, *settings, **env))
        return launches[-1]

    return make


def hosts(prefix1=(), prefix2=(), grace_s=10.0):
    return TWO_HOSTS.format(
        prefix1=json.dumps(["env", "PLACE=h1", *prefix1]),
        prefix2=json.dumps(["env", "PLACE=h2", *prefix2]),
        grace_s=grace_s,
    )


def status(launch):
    return json.loads((launch.run / "status.json").read_text())


def journal(launch):
    return [json.loads(line) for line in (launch.run / "events.jsonl").read_text().splitlines()]


def guard(launch):
    return next(p.pid for p in processes.descendants(launch.process.pid) if p.parent == launch.process.pid)


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


@contextmanager
def frozen(launch, host):
    """Guard and agent of a host are stopped, which then is as silent as one that is cut off."""
    outer = next(p.pid for p in processes.descendants(launch.process.pid) if place(p.pid) == host)
    both = [processes.look(pid) for pid in (only_child(outer), outer)]
    for process in both:
        processes.send(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in both:
            processes.send(process, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize(("grace_s", "said"), [(0.2, "during the stop"), (LONG_S, f"for {SILENCE_S:g} s")])
def test_a_host_that_falls_silent_in_a_stop_is_named_and_its_lease_awaited(start, grace_s, said):
    launch = start(*STUBBORN, cluster=hosts(grace_s=grace_s))
    launch.until_training(2)
    (token,) = launch.tokens()
    with frozen(launch, "h2"):
        launch.signal(signal.SIGINT)
        began = time.monotonic()
        warning = launch.until("warning")["text"]
        assert warning.startswith("host h2: nothing was heard from it ") and said in warning
        launch.signal(signal.SIGINT)
        assert launch.finish() == 130
        assert time.monotonic() - began > LEASE_S
    until_gone(token)


@pytest.mark.slow
def test_no_attempt_begins_while_an_agent_may_live_on_a_host_that_can_not_be_reached(start, tmp_path):
    """The way to h2 ends here, and its agent does not hear of it."""
    cluster = hosts(prefix2=[sys.executable, "-c", WAY, str(tmp_path)])
    launch = start(*FOREVER, "max_restarts=1", cluster=cluster)
    launch.until_training(2)
    (token,) = launch.tokens()
    (tmp_path / "down").touch()
    os.kill(int((tmp_path / "way.pid").read_text()), signal.SIGKILL)
    launch.until("warning")  # h2 can not be searched
    assert processes.tagged(token)
    launch.until("outcome")
    assert not processes.tagged(token)
    launch.signal(signal.SIGINT)
    launch.finish()


WAY = """
import os, select, subprocess, sys
folder, *argv = sys.argv[1:]
if os.path.exists(f"{folder}/down"):
    sys.exit("no route to host")
(stdin, to_agent), (from_agent, stdout) = os.pipe(), os.pipe()
if os.fork() == 0:  # the far end: it keeps the agent's pipes open
    os.setsid()
    os.close(0), os.close(1)
    os._exit(subprocess.call(argv, stdin=stdin, stdout=stdout))
ways = {0: to_agent, from_agent: 1}
with open(f"{folder}/way.pid", "w") as file:
    file.write(str(os.getpid()))
while True:
    for source in select.select(list(ways), [], [])[0]:
        os.write(ways[source], os.read(source, 65536))
"""


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


def test_the_failing_host_is_named(start):
    launch = start(*FOREVER, "inject=oom@2:1", cluster=hosts())
    assert launch.finish() == 5
    text = launch.all("verdict")[0]["text"]
    assert text.startswith("rank 1 (host h2, device 0) failed first: killed by SIGKILL")
    assert {(e["name"], e["host"]) for e in launch.all("exit")} == {("rank-00", "h1"), ("rank-01", "h2")}


def test_a_host_that_is_lost_in_mid_run_stops_the_others(start):
    launch = start(*FOREVER, cluster=hosts())
    launch.until_training(2)
    outer = next(p.pid for p in processes.descendants(launch.process.pid) if place(p.pid) == "h2")
    os.kill(only_child(outer), signal.SIGKILL)
    assert launch.finish() == 5
    assert launch.all("verdict")[0]["text"].startswith("host h2 failed first")
    assert [(e["name"], e["stopped"]) for e in launch.all("exit")] == [("rank-00", True)]


def place(pid):
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((e[6:].decode() for e in entries if e.startswith(b"PLACE=")), None)


def test_how_the_hosts_are_is_in_the_status(start):
    launch = start(*FOREVER, cluster=hosts())
    seen = {launch.until("health", host=host)["host"] for host in ("h1", "h2")}
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    state = status(launch)
    assert set(state["hosts"]) == seen == {"h1", "h2"}
    for host in state["hosts"].values():
        assert 0 < host["memory_free_mb"] <= host["memory_mb"]
        assert 0 < host["disk_free_mb"] <= host["disk_mb"]
        assert abs(host["clock_offset_s"]) < 0.5  # it is one clock


def test_what_a_login_prints_does_not_matter(start):
    banner = r"""echo Welcome; echo {}; echo '{"event": "hung"}'; exec "$@" """
    launch = start("steps=1", cluster=hosts(["sh", "-c", banner, "sh"]))
    assert launch.finish() == 0


def test_a_host_that_can_not_be_reached_is_named_and_nothing_starts(start):
    launch = start(cluster=hosts(prefix2=["sh", "-c", "echo no route to h2 >&2; exit 255"]))
    assert launch.finish() == 3
    text = launch.all("verdict")[0]["text"]
    assert text.startswith(
        "host h2 failed first: exit code 255; no route to h2; try the command by hand: env PLACE=h2 sh -c "
    )
    assert text.endswith(" -m launcher.agent --lease 10")
    assert not launch.all("started")
    assert (launch.attempt / "agent-h2.log").read_text() == "no route to h2\n"


def test_too_many_hosts_for_the_limit_of_open_files_are_refused(start):
    many = [f"  - {{name: h{n}, address: 127.0.0.{n}, devices: 1, prefix: [env]}}" for n in range(1, 31)]
    cluster = "\n".join(["device_kind: cpu", "engine: exec", "hosts:", *many, ""])
    launch = start(cluster=cluster, before=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh"))
    assert launch.finish() == 3
    assert "30 hosts: 124 open files are needed and the limit is 100: raise it" in launch.said()


def test_a_prefix_that_is_no_program_is_named(start):
    launch = start(cluster=hosts().replace('"env", "PLACE=h2"', '"no-such-program"'))
    assert launch.finish() == 3
    assert (
        "host h2: its agent can not be started: No such file or directory: no-such-program" in launch.said()
    )
    assert status(launch)["exit_code"] == 3


def test_a_host_that_does_not_share_the_run_directory_is_named_and_nothing_starts(start, tmp_path):
    elsewhere = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path)]
    if subprocess.run([*elsewhere, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make a mount namespace")
    launch = start(cluster=hosts(prefix2=elsewhere))
    assert launch.finish() == 3
    assert f"host h2: has no folder {launch.attempt}: the run directory must be on" in launch.said()
    assert not launch.all("started")


def test_a_host_that_never_answers_is_named_with_its_command(start):
    text = hosts(prefix2=["sh", "-c", "echo connecting; exec sleep 600"]).replace("start_s: 15", "start_s: 4")
    launch = start(cluster=text)
    assert launch.finish() == 3
    assert "host h2: its agent did not answer within 4 s (connecting)" in launch.said()
    assert "host h1" not in launch.said()


def test_ctrl_c_does_not_wait_for_a_host_that_never_answers(start):
    launch = start(cluster=hosts(prefix2=["sh", "-c", "echo >&2; exec sleep 600"], grace_s=LONG_S))
    launch.until("attempt")
    while not (launch.attempt / "agent-h2.log").exists():
        os.sched_yield()
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert not launch.all("warning")  # of a host that does not end


def test_many_ways_that_end_without_their_processes_are_awaited_together(start):
    prefix = json.dumps(["sh", "-c", "exec >&-; exec sleep 600"])
    many = [f"  - {{name: h{n}, address: 127.0.0.{n}, devices: 1, prefix: {prefix}}}" for n in range(1, 31)]
    launch = start(cluster="\n".join(["device_kind: cpu", "engine: exec", "hosts:", *many, ""]))
    began = time.monotonic()
    assert launch.finish() == 3
    assert time.monotonic() - began < len(many) * EXIT_LIMIT_S  # one after the other


def test_another_version_of_fcn_launch_on_a_host_is_named(start):
    hello = """echo '{"event": "hello", "protocol": 0, "facts": {}}'; exec sleep 600"""
    launch = start(cluster=hosts(prefix2=["sh", "-c", hello]))
    assert launch.finish() == 3
    assert "host h2: its fcn-launch speaks protocol 0" in launch.said()


def test_a_fixed_port_that_is_taken_is_refused_before_anything_starts(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = LOCAL_CLUSTER.format(devices=2, grace_s=10) + f"master_port: {port}\n"
        launch = start(cluster=text)
        assert launch.finish() == 3
    assert f"port {port} is in use" in launch.said()
    assert not launch.all("started")
    assert [e["exit_code"] for e in journal(launch) if e["event"] == "end"] == [3]


def test_a_host_on_which_nothing_was_started_is_not_searched(start, tmp_path):
    count = ["sh", "-c", f'echo >> {tmp_path}/h1; exec "$@"', "sh"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launch = start(cluster=hosts(count) + f"master_port: {port}\n")
        assert launch.finish() == 3
    assert f"port {port} is in use" in launch.said()
    assert (tmp_path / "h1").read_text() == "\n"


def test_a_run_directory_that_goes_away_does_not_end_the_training(start, tmp_path):
    launch = start("steps=20", "step_s=0.02")
    launch.until_training(2)
    launch.run.rename(tmp_path / "moved")
    assert launch.finish() == 0
    assert len(launch.all("warning")) == 1
    assert "the run directory can not be written" in launch.all("warning")[0]["text"]
