"""Launches over several hosts with a network between them; workers without MindSpore."""

from __future__ import annotations

import json
import signal

import pytest
from launching import STUBBORN, Launch, closing, wait_dead
from simulated import Hosts, shifted_clock, why_not

MISSING = why_not()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def made():
    with closing() as made:
        yield made


@pytest.fixture
def start(made, tmp_path):
    def make(hosts, *settings, **cluster):
        text = hosts.cluster(**cluster)
        made.insert(0, Launch(tmp_path, text, *settings, before=hosts.before))
        return made[0]

    return make


@pytest.fixture
def network(made, tmp_path):
    def make(count):
        made.append(Hosts(count, tmp_path))
        return made[-1]

    return make


def status(launch):
    return json.loads((launch.run / "status.json").read_text())


def test_ranks_of_three_hosts_meet_and_train_to_their_end(network, start):
    hosts = network(3)
    launch = start(hosts, "steps=20", "collective=0", devices=2)
    assert launch.finish() == 0, launch.said()
    started = {(e["rank"], e["host"]) for e in launch.all("started")}
    assert started == {(0, "h1"), (1, "h1"), (2, "h2"), (3, "h2"), (4, "h3"), (5, "h3")}
    assert launch.all("plan")[0]["master"].startswith("10.77.0.11:")
    assert status(launch)["progress"]["step"] == 20
    assert not launch.all("warning")
    assert not any(host.inside() for host in hosts.hosts)


def test_a_host_whose_processes_all_end_at_once_is_named_and_the_others_are_stopped(network, start):
    hosts = network(3)
    launch = start(hosts, *STUBBORN)
    launch.until_training(3)
    hosts.hosts[1].power_off()
    assert launch.finish() == 5
    assert launch.all("verdict")[0]["text"].startswith("host h2 failed first: the connection to it ended")
    assert {(e["name"], e["stopped"]) for e in launch.all("exit")} == {("rank-00", True), ("rank-02", True)}
    assert not any(host.inside() for host in hosts.hosts)


def test_a_host_that_is_cut_off_is_named_and_ends_by_itself_before_the_attempt_does(network, start):
    hosts = network(2)
    launch = start(hosts, *STUBBORN)
    launch.until_training(2)
    alone = hosts.hosts[1].inside()
    assert len(alone) == 5  # guard, agent, and a worker with its two children
    hosts.cut(hosts.hosts[1])
    verdict = launch.until("verdict")
    assert verdict["text"].startswith(
        "host h2 failed first: nothing was heard from it for 8 s: the host or the way to it is down; see "
    )
    assert launch.finish() == 5
    assert not any(host.inside() for host in hosts.hosts)
    assert [(e["name"], e["stopped"]) for e in launch.all("exit")] == [("rank-00", True)]
    assert status(launch)["verdict"]["host"] == "h2"


def test_nothing_is_left_on_a_host_that_was_cut_off_when_the_launcher_was_killed(network, start):
    hosts = network(2)
    launch = start(hosts, *STUBBORN)
    launch.until_training(2)
    everything = [process for host in hosts.hosts for process in host.inside()]
    hosts.cut(hosts.hosts[1])
    launch.signal(signal.SIGKILL)
    for process in everything:
        wait_dead(process)
    assert not any(host.inside() for host in hosts.hosts)


FAILS_IN_TURN = """
import json, os, signal, sys, time

def send(event, **fields):
    os.write(int(os.environ["FCN_STATUS_FD"]), json.dumps({"event": event, **fields}).encode() + b"\\n")

def wait_for(name):
    while not os.path.exists(f"{folder}/{name}"):
        time.sleep(0.005)

folder, order, gap_s = sys.argv[1], sys.argv[2].split(","), float(sys.argv[3])
rank = os.environ["RANK_ID"]
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the last one's turn may come after the stop has begun
send("phase", phase="train")
wait_for(["go", *order][order.index(rank)])
time.sleep(gap_s)
send("error", type="ConnectionError", message="a peer did not answer", time_ns=time.time_ns())
open(f"{folder}/{rank}", "w").close()
wait_for(order[-1])
os._exit(1)
"""


@pytest.mark.parametrize("order", ["1,0,3,2", "2,0,3,1"])
def test_the_first_rank_is_named_although_the_hosts_clocks_differ_by_more_than_the_gap(
    network, start, tmp_path, order
):
    """Nothing but time tells who was first: all say the same."""
    library = shifted_clock(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler")
    shifts = [-0.5, 0.5, 0.1, -0.3]
    words = [["env", f"LD_PRELOAD={library}", f"CLOCK_SHIFT_S={shift}"] for shift in shifts]
    (tmp_path / "worker.py").write_text(FAILS_IN_TURN)
    worker = f"worker=-S {tmp_path / 'worker.py'}"
    launch = start(network(4), worker, str(tmp_path), order, "0.2", words=words)
    launch.until_training(4)
    (tmp_path / "go").touch()
    assert launch.finish() == 4
    verdict = launch.all("verdict")[-1]
    assert str(verdict["rank"]) == order[0], (verdict, launch.all("error"))
    assert {line.partition(": ")[2] for line in verdict["then"]} == {"ConnectionError: a peer did not answer"}
