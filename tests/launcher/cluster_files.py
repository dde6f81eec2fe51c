"""Cluster files that tests write, and the two ways they end: loaded or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.cluster import cluster_from, load_cluster
from launcher.cluster_types import Cluster
from launcher.errors import ExitCode, UserError

TWO_SERVERS = """\
device_kind: ascend910
engine: exec
hosts:
  - name: node1
    address: 10.0.0.1
    prefix: [ssh, -p, 22, node1]
    devices: {0: 192.1.27.6, 1: 192.2.27.6}
  - name: node2
    address: 10.0.0.2
    prefix: [ssh, node2]
    devices: {0: 192.1.28.6, 1: 192.2.28.6}
"""


def load(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return load_cluster(str(path))


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert caught.value.exit_code == ExitCode.USAGE
    return str(caught.value).replace(f"{tmp_path}/", "")


def one_host(kind: str, devices: str, more: str = "") -> str:
    return f"device_kind: {kind}\nhosts:\n  - address: 10.0.0.1\n    devices: {devices}\n{more}"


def cluster(kind: str, *devices: Any, **more: Any) -> Cluster:
    """A cluster of one host per entry of `devices`, at 10.0.0.1 and on; several of them with engine exec."""
    hosts = [
        {"name": f"node{i}", "address": f"10.0.0.{i}", "devices": entry} for i, entry in enumerate(devices, 1)
    ]
    if len(hosts) > 1:
        more["engine"] = "exec"
        hosts = [{**host, "prefix": ["ssh", host["name"]]} for host in hosts]
    return cluster_from({"device_kind": kind, "python": "/opt/python", "hosts": hosts, **more}, "test.yaml")
