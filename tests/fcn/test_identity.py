"""Ranks that are not where the plan has them: both tables are shown, and nothing is trained."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
from ranks import environment, free_port

from fcn import identity
from fcn.identity import IdentityError, Place, require_planned

TWO = [Place("h1", 0, "10.0.0.1"), Place("h2", 0, "10.0.0.2")]


def refusal(plan: List[Place], found: List[Place]) -> str:
    with pytest.raises(IdentityError) as caught:
        require_planned(plan, found)
    return str(caught.value)


def test_ranks_at_their_places_pass() -> None:
    require_planned(TWO, TWO)
    require_planned([Place(None, 0, None), Place(None, 0, None)], TWO)  # what the plan does not say


def test_a_wrong_address_is_shown_with_both_tables() -> None:
    found = [TWO[0], Place("h2", 0, "10.0.0.12")]
    assert refusal(TWO, found) == (
        "rank 1 is not where the plan has it (1 of 2 ranks are not).\n"
        "planned:\n"
        "  RANK  HOST  DEVICE  ADDRESS\n"
        "  0     h1    0       10.0.0.1\n"
        "  1 *   h2    0       10.0.0.2\n"
        "found:\n"
        "  RANK  HOST  DEVICE  ADDRESS\n"
        "  0     h1    0       10.0.0.1\n"
        "  1 *   h2    0       10.0.0.12\n"
        "correct `address` of this host in the cluster file, or pod_ip in its rank table: its workers "
        "register with 10.0.0.12"
    )


def test_ranks_that_have_changed_places_are_shown() -> None:
    text = refusal(TWO, TWO[::-1])
    assert text.count("0 *") == text.count("1 *") == 2
    assert text.endswith("check pod_ip and the order of devices in the rank table")
    assert "0 *   h1    3 " in refusal([Place("h1", 3, None)], [Place("h1", 4, None)])


def test_ranks_of_another_number_are_shown() -> None:
    text = refusal(TWO, TWO[:1])
    assert text.startswith("rank 1 is not where the plan has it (1 of 2")
    assert "RANK_SIZE and MS_WORKER_NUM count the whole job" in text


def test_of_many_ranks_those_that_differ_are_shown() -> None:
    plan = [Place("h", rank, None) for rank in range(10_000)]
    found = [*plan[:9000], *reversed(plan[9000:])]
    text = refusal(plan, found)
    assert "(1000 of 10000 ranks are not)" in text
    assert text.count("\n") < 50 and "9000 *" in text


def test_a_record_holds_the_longest_names() -> None:
    place = Place("h" * 64, 63, "fd00:1111:2222:3333:4444:5555:6666:7777")
    assert len(identity.encode(place)) == identity.RECORD_BYTES
    assert identity.decode(identity.encode(place)) == place


def test_the_device_is_the_physical_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCN_DEVICES", "4,6")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,2")  # of a container that has 4 to 7
    assert identity.here(1).device == 6
    assert identity.here(2).device is None
    monkeypatch.delenv("FCN_DEVICES")
    assert identity.here(1).device == 1
    monkeypatch.setenv("MS_SCHED_HOST", "127.0.0.1")
    assert identity.here(0).address == "127.0.0.1"


def test_the_address_is_the_one_that_mindspore_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with several IPv6 addresses may reach the scheduler from another one than the plan's."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    monkeypatch.setenv("MS_SCHED_HOST", "fd00::1")
    monkeypatch.setenv("MS_WORKER_IP", "::1")
    assert identity.here(0).address == "::1"


JOIN = (
    "from fcn import distributed, platform; from fcn.status import Status\n"
    "world = distributed.join(platform.set_up(), Status()); print('joined', world.rank)\n"
    "world.leave(0)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["store", "scheduler"])
def test_real_ranks_find_that_a_peer_is_elsewhere(tmp_path: Path, rendezvous: str) -> None:
    here = identity.here(0)
    peers = [(here.host, 0, None), ("another-host", 1, None)]
    (tmp_path / "peers.json").write_text(json.dumps(peers))
    port, started = free_port(), []
    for rank in (0, 1):
        more = {"FCN_PEERS": str(tmp_path / "peers.json"), "DEVICE_ID": str(rank)}
        env = {**os.environ, **environment(rank, 2, rendezvous, port), **more}
        command = [sys.executable, "-c", JOIN]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    if rendezvous == "scheduler":
        env = {
            **os.environ,
            **environment(0, 2, rendezvous, port),
            "MS_ROLE": "MS_SCHED",
            "MS_NODE_TIMEOUT": "10",
        }
        command = [sys.executable, "-m", "fcn.distributed"]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    try:
        texts = [process.communicate()[0].decode(errors="replace") for process in started[:2]]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert any("rank 1 is not where the plan has it (1 of 2 ranks are not)" in text for text in texts), texts
    assert not any("joined" in text for text in texts)
