"""`--inject`: what is ordered is what happens, and each fault ends as such a failure ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from cluster_files import TWO_SERVERS, load, one_host
from launching import FOREVER, LIMIT_S, LOCAL_CLUSTER, Launch, closing

import fcn.inject
from launcher import inject
from launcher.errors import ExitCode, UserError
from launcher.plan import make_plan
from launcher.plan_types import HostFacts, Job

JOB = Job("train", "/runs/r1", ("worker.py",))


@pytest.fixture
def three(tmp_path):
    return load(tmp_path, one_host("cpu", "3"))


@pytest.fixture
def run(tmp_path):
    """Launches light workers with a fault; gives the launch when it has ended, and its exit code."""
    with closing() as made:

        def to_its_end(fault, *settings, devices=2):
            cluster = LOCAL_CLUSTER.format(devices=devices, grace_s=0.5)
            mark = os.urandom(8).hex()
            made.append(Launch(tmp_path, cluster, *FOREVER, f"inject={fault}", *settings, INJECT_TEST=mark))
            code = made[-1].finish()
            end = time.monotonic() + LIMIT_S
            while carries(mark):
                assert time.monotonic() < end, f"alive: {carries(mark)}"
            return made[-1], code

        yield to_its_end


def carries(mark):
    """Living processes with this mark in their environment, which is a zombie's no more."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crash", ("crash", 2, 2)),
        ("raise@7", ("raise", 7, 2)),
        ("spin:0", ("spin", 2, 0)),
        ("exit0-early@1:1", ("exit0-early", 1, 1)),
    ],
)
def test_what_can_be_ordered(three, text, expected):
    assert inject.parse(text, three) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crsh", "there is no fault 'crsh'; did you mean 'crash'?; faults are crash, raise, oom"),
        ("", "is not FAULT[@step][:rank], such as crash@5:1"),
        ("crash@", "is not FAULT[@step][:rank]"),
        ("crash:1@3", "is not FAULT[@step][:rank]"),
        ("crash@-1", "is not FAULT[@step][:rank]"),
        ("crash@0", "steps are counted from 1"),
        ("crash:3", "the job has the ranks 0 to 2"),
    ],
)
def test_what_can_not(three, text, expected):
    with pytest.raises(UserError) as caught:
        inject.parse(text, three)
    assert f"--inject {text}: {expected}" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_port_can_only_be_taken_on_this_machine(tmp_path):
    for text in (TWO_SERVERS, one_host("cpu", "1")):
        with pytest.raises(UserError, match="two, engine local"):
            inject.parse("port-taken", load(tmp_path, text))


def test_every_fault_of_a_worker_is_known_to_the_worker():
    assert set(inject.FAULTS) == {*fcn.inject.FAULTS, "slow", *inject.OF_THE_LAUNCHER}
    assert inject.VARIABLE == fcn.inject.VARIABLE


def test_the_order_reaches_its_rank_in_the_first_attempt_alone(three):
    facts = {three.hosts[0].name: HostFacts(free_ports=(25000, 25001))}
    first, second = (
        inject.parse("oom@3:1", three).into(make_plan(three, JOB, facts, attempt)) for attempt in (1, 2)
    )
    assert [process.env.get("FCN_INJECT") for process in first.processes] == [None, "oom@3", None]
    assert "this fault is injected: oom@3:1" in first.notes
    assert second == make_plan(three, JOB, facts, 2)


@pytest.mark.parametrize(
    ("fault", "code", "what"),
    [
        ("crash", 4, "exit code 1"),
        ("raise", 4, "RuntimeError: this rank was told to fail (--inject raise)"),
        ("oom", 5, "killed by SIGKILL"),
        ("segv", 5, "killed by SIGSEGV (native code crashed)"),
        ("exit0-early", 4, "exit code 0, before its work was done"),
        ("worker-grandchild", 4, "exit code 1"),
    ],
)
def test_a_failing_rank_is_named_with_what_it_did(run, fault, code, what):
    launch, ended = run(f"{fault}@3:1", "collective=0.05")
    assert ended == code, launch.said()
    (verdict,) = launch.all("verdict")
    assert (verdict["rank"], verdict["what"][: len(what)]) == (1, what)
    log = (launch.attempt / "rank-01.log").read_text()
    assert "injected fault: " + fault + " before step 3" in log
    assert ("(most recent call first)" in log) == (fault == "segv")  # the stack of a crash in native code


def test_a_full_disk_is_told_though_the_log_can_not_say_it(run):
    launch, code = run("disk-full@3:1", "collective=0.05")
    (verdict,) = launch.all("verdict")
    assert (code, verdict["what"]) == (5, "OSError: [Errno 28] No space left on device")
    assert "make room on its disk" in verdict["text"]


def test_a_dead_agent_is_told(run):
    launch, code = run("agent-killed@3:0", "term=ignore", "children=1")
    assert (code, launch.all("verdict")[0]["kind"]) == (5, "agent lost")


def test_nothing_outlives_the_launcher(run):
    _, code = run("supervisor-killed@3:0", "term=ignore", "children=1")
    assert code == -signal.SIGKILL


def test_a_port_that_is_taken_meanwhile_is_no_fault_of_the_code(run, tmp_path):
    launch, code = run("port-taken", "collective=0.05")
    assert code == 5
    assert "another program took its port meanwhile" in launch.all("verdict")[0]["text"]


def test_a_slow_rank_is_no_failure(tmp_path):
    with closing() as made:
        made.append(Launch(tmp_path, LOCAL_CLUSTER.format(devices=2, grace_s=1), "steps=2", "inject=slow"))
        assert made[0].finish() == 0
