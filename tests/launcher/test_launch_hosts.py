"""Whole launches on several hosts: agents behind prefixes; hosts that fail, fall silent or are not there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import (
    FOREVER,
    LOCAL_CLUSTER,
    LONG_S,
    STUBBORN,
    hosts,
    journal,
    only_child,
    status,
    until_gone,
)

from launcher.agent import processes
from launcher.engines.link import EXIT_LIMIT_S
from launcher.protocol import LEASE_S, SILENCE_S


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
