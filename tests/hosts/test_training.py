"""Real training on two hosts with a network between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from launching import REPOSITORY
from simulated import Hosts, why_not

MISSING = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

SMALL = ["num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32", "batch_size=4"]
LIMIT_S = 300


@pytest.fixture
def network(tmp_path):
    hosts = Hosts(2, tmp_path)
    yield hosts
    hosts.end()


def run_launcher(*words, folder, before=()):
    return subprocess.run(
        [*before, sys.executable, "-m", "launcher", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "GLOG_v": "3"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def fcn_launch(*words, folder, before=()):
    done = run_launcher(*words, folder=folder, before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rendezvous", ["store", "scheduler"])
def test_two_workers_on_two_hosts_train(network, tmp_path, rendezvous):
    pytest.importorskip("mindspore")
    fcn_launch(
        *("data", "make-demo", "--out", "set", "--train", 16, "--val", 4, "--size", 48), folder=tmp_path
    )
    (tmp_path / "two.yaml").write_text(network.cluster(grace_s=5) + f"rendezvous: {rendezvous}\n")
    settings = [*SMALL, "train_epochs=2", "data_file=set/train.mindrecord"]
    words = ["--cluster", "two.yaml", "train", *(w for setting in settings for w in ("--set", setting))]
    said = fcn_launch(*words, folder=tmp_path, before=network.before)
    assert f"2 ranks on h1, h2, meeting at {network.hosts[0].address}:" in said
    (run,) = (tmp_path / "runs").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["progress"]["step"]) == ("done", 4)
    assert [status["processes"][f"rank-0{rank}"]["host"] for rank in (0, 1)] == ["h1", "h2"]
    assert list((run / "checkpoints").glob("*.ckpt"))
    assert not any(host.inside() for host in network.hosts)
