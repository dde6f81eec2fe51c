"""Restarts with real agents, real workers without MindSpore, and real signals."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from launching import FOREVER, LOCAL_CLUSTER, TWO_HOSTS, Launch, closing, sitecustomize

from launcher import retry
from launcher.selection import Place

SHORT = (
    "steps=6",
    "step_s=0.02",
    "collective=0",
)  # with a collective no rank gets ahead of the one that fails


@pytest.fixture
def start(tmp_path):
    with closing() as made:

        def make(*settings, cluster=None, more="", devices=2, max_restarts=10, **env):
            text = (cluster or LOCAL_CLUSTER.format(devices=devices, grace_s=5)) + more
            made.append(Launch(tmp_path, text, f"max_restarts={max_restarts}", *settings, **env))
            return made[-1]

        yield make


def hosts(*prefixes, more=""):
    text = TWO_HOSTS.format(prefix1=json.dumps(prefixes[0]), prefix2=json.dumps(prefixes[1]), grace_s=5)
    for number, prefix in enumerate(prefixes[2:], 3):
        third = (
            f"  - {{name: h{number}, address: 127.0.0.{number}, devices: 1, prefix: {json.dumps(prefix)}}}\n"
        )
        text = text.replace("timeouts:", f"{third}timeouts:")
    return text + more


def status(launch):
    return json.loads((launch.run / "status.json").read_text())


def ranks(launch, attempt):
    """(host, device) by rank of an attempt."""
    plan = json.loads((launch.run / f"attempt-{attempt:03}" / "plan" / "plan.json").read_text())
    return [(process["host"], process["device_id"]) for process in plan["processes"]]


def test_a_killed_rank_is_restarted_and_both_attempts_keep_their_logs(start):
    launch = start(*SHORT, "faults=oom@3:1")
    assert launch.finish() == 0
    logs = [(launch.run / f"attempt-00{n}" / "rank-01.log").read_text() for n in (1, 2)]
    assert logs == ["rank 1 begins\ninjected fault: oom before step 3\n", "rank 1 begins\n"]
    (restart,) = launch.all("retry")
    assert (restart["reason"], restart["restarts_left"]) == ("device 1 of here failed", 9)
    state = status(launch)
    assert (state["state"], state["exit_code"]) == ("done", 0)
    assert (state["attempt"], state["restarts_left"], state["verdict"]) == (2, 9, None)
    ports = [plan["master"] for plan in launch.all("plan")]
    assert len(set(ports)) == 2


def test_a_fault_of_the_launcher_itself_ends_the_run_as_any_other_does(start, tmp_path):
    without_jinja2 = sitecustomize(tmp_path, "import sys; sys.modules['jinja2'] = None")
    launch = start("steps=1", PYTHONPATH=without_jinja2)
    assert launch.finish() == 5
    assert [event["exit_code"] for event in launch.all("outcome")] == [5]
    assert (status(launch)["state"], status(launch)["exit_code"]) == ("failed", 5)
    assert status(launch)["reason"].startswith("fcn-launch itself failed, see its traceback: ModuleNotFound")
    assert launch.said().startswith("Traceback ")


def test_a_rank_that_hangs_is_restarted(start):
    cluster = LOCAL_CLUSTER.format(devices=2, grace_s=5).replace("timeouts: {", "timeouts: {hang_s: 2, ")
    launch = start("steps=20", "step_s=0.02", "collective=0", "faults=hang@10:1", cluster=cluster)
    assert launch.finish() == 0
    (verdict,) = launch.all("verdict")
    assert (verdict["kind"], verdict["rank"]) == ("hung", 1)
    assert [event["exit_code"] for event in launch.all("outcome")] == [6, 0]


def test_a_new_supervisor_learns_from_the_journal_what_happened(start):
    launch = start(*SHORT, "faults=oom@3:1,oom@5:1", more="spares: 1\n", devices=3)
    assert launch.finish() == 0
    journal = [json.loads(line) for line in (launch.run / "events.jsonl").read_text().splitlines()]
    history = retry.history_of(journal)
    assert (history.attempts, history.step, history.excluded) == (3, 6, {Place("here", 1)})


def test_another_launcher_of_the_run_leaves_out_what_was_left_out(start):
    first = start(*SHORT, "faults=oom@3:1,oom@5:1,raise@6:0", more="spares: 1\n", devices=3)
    assert first.finish() == 4
    second = start(*SHORT, f"run={first.run}", more="spares: 1\n", devices=3, max_restarts=0)
    assert second.finish() == 0
    assert ranks(second, 4) == [("here", 0), ("here", 2)]
    assert second.all("warning")[0]["text"] == (
        "device 1 of here is left out, as before: device 2 of here takes over"
    )
    third = start(*SHORT, f"run={first.run}", devices=2)
    assert third.finish() == 0
    assert (
        "device 1 of here failed before, and is used again; without it 1 of 2"
        in third.all("warning")[0]["text"]
    )


def test_an_error_of_the_training_code_is_not_tried_again(start):
    launch = start(*FOREVER, "faults=raise@2:1")
    assert launch.finish() == 4
    assert len(launch.all("attempt")) == 1 and not launch.all("retry")


def test_kills_without_progress_are_the_end(start):
    launch = start(*SHORT, "faults=oom@1:0,oom@1:1,oom@1:2", devices=3)
    assert launch.finish() == 7
    assert [event["attempt"] for event in launch.all("verdict")] == [1, 2, 3]
    assert "3 attempts in a row got no further than the start" in launch.all("end")[0]["reason"]
    assert status(launch)["verdict"]["rank"] == 2


def test_the_budget_is_a_limit(start):
    launch = start(*SHORT, "faults=oom@2:0,oom@3:1", max_restarts=1)
    assert launch.finish() == 5
    assert "its only restart is used up" in launch.all("end")[0]["reason"]


def test_a_spare_takes_over_from_a_device_that_fails_twice(start):
    launch = start(*SHORT, "faults=oom@2:1,oom@3:1", more="spares: 1\n", devices=3)
    assert launch.finish() == 0
    assert [ranks(launch, attempt) for attempt in (1, 2, 3)] == [
        [("here", 0), ("here", 1)],
        [("here", 0), ("here", 1)],
        [("here", 0), ("here", 2)],
    ]
    (out,) = launch.all("exclude")
    assert (out["who"], out["reason"]) == ("device 1 of here", "failed first in 2 of the last 2 attempts")
    assert launch.all("retry")[1]["reason"] == "device 1 of here failed; device 2 of here takes over"
    assert "device 2 of here is kept in reserve" in launch.all("plan")[0]["notes"]


def test_with_min_devices_the_others_go_on(start):
    launch = start(*SHORT, "faults=oom@2:0,oom@3:0", more="min_devices: 2\n", devices=3)
    assert launch.finish() == 0
    assert ranks(launch, 3) == [("here", 1), ("here", 2)]
    assert launch.all("retry")[1]["reason"].endswith("; 2 devices go on in place of 3")


@pytest.mark.parametrize("devices", [1, 3])
def test_a_device_that_nothing_replaces_is_tried_as_often_as_there_are_restarts(start, devices):
    launch = start(*SHORT, "faults=oom@2:0,oom@3:0,oom@4:0,oom@5:0", devices=devices, max_restarts=3)
    assert launch.finish() == 5
    assert [ranks(launch, attempt)[0] for attempt in (1, 2, 3, 4)] == [("here", 0)] * 4
    assert launch.all("retry")[1]["reason"].endswith("nothing can take its place") and not launch.all(
        "exclude"
    )
    reason = launch.all("end")[0]["reason"]
    assert reason.startswith("all 3 restarts are used up; device 0 of here failed first in 3 of the last 3 ")
    assert f"; without it {devices - 1} of {devices} devices are left, and the job needs at least" in reason
    assert status(launch)["state"] == "failed"


def test_a_port_that_was_taken_is_no_failure(start):
    launch = start(*SHORT, "inject=port-taken")
    assert launch.finish() == 0
    (restart,) = launch.all("retry")
    assert (restart["after_s"], restart["restarts_left"]) == (0, 10)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGHUP, 130), (signal.SIGTERM, 75), (signal.SIGUSR2, 75)],
)
def test_a_signal_before_the_next_attempt_is_answered_at_once(start, number, code):
    launch = start(*SHORT, "faults=oom@2:1", "first_wait_s=600")
    launch.until("retry")
    while status(launch)["state"] != "waiting":
        os.sched_yield()
    launch.signal(number)
    assert launch.finish() == code
    assert len(launch.all("attempt")) == 1
    assert number.name in launch.all("end")[0]["reason"]


def test_who_presses_ctrl_c_while_a_failed_attempt_stops_gets_no_other(start):
    launch = start(*FOREVER, "faults=oom@3:1", "term=ignore")
    launch.until("decision", action="stop")
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert len(launch.all("attempt")) == 1


GONE = 'if [ -e "$0" ]; then echo no route to h2 >&2; exit 255; fi; exec "$@"'  # a host that has left


def test_a_host_that_is_gone_is_replaced_by_the_spare_in_its_place(start, tmp_path):
    gone = tmp_path / "h2-is-gone"
    cluster = hosts(["env"], ["sh", "-c", GONE, str(gone)], ["env"], more="spares: 1\n")
    launch = start(*FOREVER, cluster=cluster)
    launch.until_training(2)
    gone.touch()
    agents = [event["pid"] for event in launch.all("started") if event["host"] == "h2"]
    os.kill(parent(agents[0]), signal.SIGKILL)
    launch.until("plan", attempt=3)
    launch.until_training(4)
    launch.signal(signal.SIGINT)
    assert launch.finish() == 130
    assert [ranks(launch, attempt) for attempt in (1, 3)] == [[("h1", 0), ("h2", 0)], [("h1", 0), ("h3", 0)]]
    assert launch.all("retry")[0]["reason"] == "host h2 failed"
    assert launch.all("exclude")[0]["who"] == "host h2"
    assert launch.all("retry")[1]["reason"] == "host h2 failed; device 0 of h3 takes over"
    assert "no route to h2" in (launch.run / "attempt-002" / "agent-h2.log").read_text()


def test_a_host_that_does_not_answer_any_more_is_no_crash_of_the_launcher(start, tmp_path):
    silent = tmp_path / "h2-is-silent"
    wait = 'if [ -e "$0" ]; then exec sleep 600; fi; exec "$@"'
    cluster = hosts(["env"], ["sh", "-c", wait, str(silent)]).replace("start_s: 15", "start_s: 4")
    launch = start(*FOREVER, "faults=oom@3:1", cluster=cluster, max_restarts=2)
    launch.until("verdict")
    silent.touch()
    assert launch.finish() == 5
    assert "host h2: its agent did not answer within 4 s" in launch.all("warning")[0]["text"]
    assert launch.all("retry")[1]["reason"] == "host h2 failed"
    reason = launch.all("end")[0]["reason"]
    assert reason.startswith("all 2 restarts are used up; host h2 failed first in 2 of the last 3 attempts; ")


def test_a_run_directory_that_goes_away_ends_a_run_that_has_to_be_restarted(start, tmp_path):
    launch = start(*SHORT, "faults=oom@3:1", "first_wait_s=1")
    launch.until("retry")
    launch.run.rename(tmp_path / "moved")
    assert launch.finish() == 5
    assert "the run directory can not be written" in launch.all("end")[0]["reason"]


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
