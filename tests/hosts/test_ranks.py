"""Ranks of real MindSpore workers on two hosts are those of the rank table, or nothing is trained."""

from __future__ import annotations

import json

import pytest
from simulated import Hosts, why_not
from test_training import SMALL, run_launcher

MISSING = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

RANKS = ((3, 2), (0, 1))  # of each host's devices


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.delenv("GLOG_v", raising=False)  # set by the trainer's tests; hides what is looked for
    hosts = Hosts(2, tmp_path)
    yield hosts
    hosts.end()


def cluster(network, addresses):
    """A cluster file with a rank table that says these addresses of the hosts."""
    servers = [
        {
            "server_id": host.name,
            "device": [
                {"device_id": str(i), "device_ip": f"192.168.{ranks[0]}.{i + 1}", "rank_id": str(rank)}
                for i, rank in enumerate(ranks)
            ],
            "pod_ip": address,
        }
        for host, ranks, address in zip(network.hosts, RANKS, addresses)
    ]
    hosts = [
        {"server_id": host.name, "address": address, "prefix": host.prefix}
        for host, address in zip(network.hosts, addresses)
    ]
    table = {"version": "1.0", "server_count": "2", "server_list": servers, "status": "completed"}
    values = {"device_kind": "cpu", "engine": "exec", "hosts": hosts, "rank_table": table}
    return json.dumps({**values, "timeouts": {"start_s": 120, "grace_s": 5}})


def train(network, folder, addresses):
    pytest.importorskip("mindspore")
    data = ("data", "make-demo", "--out", "set", "--train", 16, "--val", 4, "--size", 48)
    assert run_launcher(*data, folder=folder).returncode == 0
    (folder / "two.yaml").write_text(cluster(network, addresses))
    settings = [*SMALL, "batch_size=2", "train_epochs=1", "data_file=set/train.mindrecord"]
    words = ["--cluster", "two.yaml", "train", "--max-restarts", "0"]
    words += [word for setting in settings for word in ("--set", setting)]
    return run_launcher(*words, folder=folder, before=network.before)


def test_ranks_are_those_of_the_table(network, tmp_path):
    done = train(network, tmp_path, [host.address for host in network.hosts])
    (run,) = (tmp_path / "runs").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert status["progress"]["step"] == 2, done.stdout + done.stderr
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    started = {(e["rank"], e["host"], e["device"]) for e in events if e["event"] == "started"}
    expected = {(r, f"h{h + 1}", d) for h, ranks in enumerate(RANKS) for d, r in enumerate(ranks)}
    assert started - {(None, "h2", None)} == expected
    scheduler = (run / "attempt-001" / "scheduler.log").read_text()
    assert scheduler.count("Reassign rank id from rank table file, node id") == 4
    for rank in range(4):
        assert f"rank {rank} of 4 on cpu" in (run / "attempt-001" / f"rank-0{rank}.log").read_text()


def test_a_wrong_pod_ip_is_found_before_training(network, tmp_path):
    """Rank 0's host is right, so that the ranks meet; the other has another address than the table says."""
    done = train(network, tmp_path, ["10.77.0.99", network.hosts[1].address])
    assert done.returncode == 3, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    logs = "".join(path.read_text() for path in (run / "attempt-001").glob("rank-*.log"))
    assert "rank 2 is not where the plan has it (2 of 4 ranks are not)." in logs
    planned, found = logs.partition("planned:")[2].partition("found:")[::2]
    assert "  2 *   h1    1       10.77.0.99" in planned and "  3 *   h1    0       10.77.0.99" in planned
    assert f"  2 *   h1    1       {network.hosts[0].address}" in found
    assert "its workers register with" in found
    assert not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text()
    assert not list((run / "checkpoints").glob("*.ckpt"))
    assert not any(host.inside() for host in network.hosts)
