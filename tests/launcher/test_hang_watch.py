"""Ranks that really hang, in every way, at shrunk limits; and runs that are slow and do not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import FOREVER, LIGHT_WORKER, LIMIT_S, TWO_HOSTS, Launch, closing, environment

from launcher.agent import probe, processes, stacks

CLUSTER = """
device_kind: cpu
hosts:
  - {{name: here, address: 127.0.0.1, devices: {devices}}}
timeouts: {{start_s: 30, grace_s: 5, phase_s: {phase_s}, hang_s: {hang_s}}}
"""
TOGETHER = (*FOREVER, "collective=0")


@pytest.fixture
def start(tmp_path):
    with closing() as launches:

        def make(*settings, devices=3, phase_s=30, hang_s=1, **env):
            launches.append(
                Launch(
                    tmp_path,
                    CLUSTER.format(devices=devices, phase_s=phase_s, hang_s=hang_s),
                    *settings,
                    **env,
                )
            )
            return launches[-1]

        yield make


def journal(launch, event):
    lines = (json.loads(line) for line in (launch.run / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def logs(launch):
    return [path.read_text() for path in sorted(launch.attempt.glob("rank-*.log"))]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("stop", "stopped", "stopped by a signal"),
        ("spin", "spinning", "spins"),
        ("hang", "blocked", "blocked: asleep"),
    ],
)
def test_the_rank_that_hangs_is_named_and_all_stacks_are_kept(start, fault, kind, words):
    launch = start(*TOGETHER, f"faults={fault}@5:1")
    assert launch.finish() == 6
    (hung,) = journal(launch, "hung")
    assert (hung["rank"], hung["kind"], set(hung["processes"])) == (
        1,
        kind,
        {"rank-00", "rank-01", "rank-02"},
    )
    verdict = json.loads((launch.run / "status.json").read_text())["verdict"]
    assert (verdict["rank"], verdict["host"], verdict["device"], verdict["kind"]) == (1, "here", 1, "hung")
    assert verdict["text"].startswith("rank 1 (host here, device 1) has hung since ")
    assert "in phase train, data of step 5: " in verdict["text"] and words in verdict["text"]
    assert "ranks 0, 2 wait in phase train, step 5; the stacks of all ranks" in verdict["text"]
    assert [event["action"] for event in journal(launch, "decision")] == ["stacks", "stop"]
    found = logs(launch)
    assert f"_{fault}" in found[1]  # the function in which it hangs
    assert "_exchange" in found[0] and "_exchange" in found[2]


def test_ranks_that_all_wait_for_each_other_are_not_blamed(start):
    launch = start(*TOGETHER, "stall=5", devices=2)
    assert launch.finish() == 6
    verdict = json.loads((launch.run / "status.json").read_text())["verdict"]
    assert verdict["rank"] is None and verdict["device"] is None
    assert "phase train, step 5: all wait for each other" in verdict["text"]
    assert all("_exchange" in text for text in logs(launch))


def test_ranks_of_several_hosts_are_compared(tmp_path):
    text = TWO_HOSTS.format(prefix1='[env, "PLACE=h1"]', prefix2='[env, "PLACE=h2"]', grace_s=5)
    with closing() as launches:
        launch = Launch(
            tmp_path, text.replace("timeouts: {", "timeouts: {hang_s: 1, "), *TOGETHER, "faults=spin@5:1"
        )
        launches.append(launch)
        assert launch.finish() == 6
        verdict = json.loads((launch.run / "status.json").read_text())["verdict"]
        assert (verdict["rank"], verdict["host"], verdict["kind"]) == (1, "h2", "hung")
        found = logs(launch)
        assert "_exchange" in found[0] and "_spin" in found[1]


def test_long_phases_are_no_hangs(start):
    phases = "phase=compile:1:3,save:5:0.1,eval:6:0.1,save:10:2.5,eval:20:3"
    launch = start(*TOGETHER, phases, devices=2, hang_s=2)
    launch.until("step", step=30)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert not journal(launch, "suspect") and not journal(launch, "hung")
    learnt = {event["phase"]: event["limit_s"] for event in journal(launch, "limit")}
    assert 2 <= learnt["train"] < min(learnt["save"], learnt["eval"])


def test_a_program_that_says_nothing_is_left_alone_unless_it_is_stopped(start):
    launch = start("steps=150", "step_s=0.02", "silent=1", phase_s=1, devices=2)
    assert launch.finish() == 0
    assert not journal(launch, "suspect")


def test_a_silent_program_that_is_stopped_is_named(start):
    launch = start(*FOREVER, "silent=1", devices=2)
    launch.until("started", rank=0)
    os.kill(launch.until("started", rank=1)["pid"], signal.SIGSTOP)
    assert launch.finish() == 6
    assert journal(launch, "hung")[0]["rank"] == 1


def test_a_launcher_that_was_stopped_itself_does_not_take_its_ranks_for_hung(start):
    launch = start(*TOGETHER, devices=2, hang_s=2)
    launch.until("limit", phase="train")
    launch.signal(signal.SIGSTOP)
    time.sleep(3.5)
    launch.signal(signal.SIGCONT)
    step = launch.until("step")["step"]
    assert launch.until("step", step=step + 50)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert not journal(launch, "hung")


# --- what an agent sees and takes


@pytest.fixture
def worker(tmp_path):
    """A light worker that hangs in the way of a fault; with its log."""
    started = []

    def make(fault, *settings):
        log = tmp_path / f"{fault}.log"
        argv = [sys.executable, "-S", str(LIGHT_WORKER), "steps=9", f"faults={fault}@1:0", *settings]
        with log.open("wb") as out:
            env = environment(RANK_ID="0")
            started.append(subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True, env=env))
        pid = started[-1].pid
        end = time.monotonic() + LIMIT_S
        while "injected" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.01)
        await_state(pid, {"stop": "T", "spin": "R"}.get(fault, "S"))
        return stacks.Target(fault, processes.look(pid), str(log))

    yield make
    for process in started:
        for child in processes.descendants(process.pid):
            processes.send(child, signal.SIGKILL)
        process.kill()
        process.wait()


def await_state(pid, state):
    end = time.monotonic() + LIMIT_S
    while processes.look(pid).state != state:
        assert time.monotonic() < end
        time.sleep(0.01)


def look(target, name="rank-00"):
    return probe.observe({name: target.process.pid, "gone": 2**22 + 1})


def test_states_and_processor_time_are_seen(worker):
    asleep, busy, still = worker("hang"), worker("spin"), worker("stop")
    first = [look(target)["rank-00"] for target in (asleep, busy, still)]
    while look(busy)["rank-00"]["cpu_s"] < first[1]["cpu_s"] + 0.1:
        time.sleep(0.01)
    last = [look(target)["rank-00"] for target in (asleep, busy, still)]
    assert [seen["state"] for seen in last] == ["S", "R", "T"]
    assert [last[i]["cpu_s"] for i in (0, 2)] == [first[i]["cpu_s"] for i in (0, 2)]
    assert set(look(asleep)) == {"rank-00"}


def test_children_are_counted_apart_and_a_stopped_one_is_told(worker):
    target = worker("hang", "children=1")
    own = target.process.pid
    (child,) = (p.pid for p in processes.descendants(own) if os.getpgid(p.pid) == own)
    os.kill(child, signal.SIGSTOP)
    await_state(child, "T")
    seen = look(target)["rank-00"]
    assert seen["stopped"] == [child] and seen["state"] == "S"


BLOCKED = """
import os
os.mkfifo("pipe")
os.write(1, b"x" * 10**6)  # a spawned child holds its parent in the kernel until it has opened its files
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "pipe", os.O_RDONLY, 0)])
"""


def test_data_that_move_and_threads_that_the_kernel_holds_are_seen(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        argv = [sys.executable, "-S", "-c", BLOCKED]
        process = subprocess.Popen(argv, cwd=tmp_path, stdout=log, start_new_session=True)
    try:
        await_state(process.pid, "D")
        seen = probe.observe({"rank-00": process.pid})["rank-00"]
        assert (seen["state"], seen["blocked"]) == ("D", [process.pid])
        assert 10**6 <= seen["moved_bytes"] < 10**7
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_python_stacks_need_no_tool_and_come_from_a_stopped_process_too(worker, monkeypatch):
    targets = [worker("hang"), worker("spin"), worker("stop")]
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert stacks.dump(targets) == ["hang", "spin", "stop"]
    for target, function in zip(targets, ("_hang", "_spin", "_stop")):
        assert f"in {function}" in Path(target.log).read_text()


@pytest.mark.skipif(stacks.spy_program() is None, reason="py-spy is not installed")
def test_py_spy_reads_a_stopped_process_without_waking_it(worker):
    target = worker("stop")
    assert stacks.dump([target]) == ["stop"]
    assert "_stop (" in Path(target.log).read_text()
    assert processes.look(target.process.pid).state == "T"


def test_who_does_not_catch_the_signal_survives_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    process = subprocess.Popen(["sleep", "600"])
    try:
        target = stacks.Target("rank-00", processes.look(process.pid), str(tmp_path / "log"))
        assert stacks.dump([target]) == [] and process.poll() is None
    finally:
        process.kill()
        process.wait()
