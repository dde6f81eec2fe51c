"""Servers with Ascend devices, each a folder and a prefix of the cluster file that leads into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

from ascend_server import Server

SIMULATED = Path(__file__).resolve().parent / "simulated_host"
COUNTS = {"ascend910_93": 16}
INSIDE = """#!/bin/sh
cd {folder}
{limits}
shift
path="$1"
shift
exec env "PYTHONPATH={folder}/packages:{simulated}:${{path#PYTHONPATH=}}" SIMULATED_HOST={folder} \\
  PATH={folder}/bin:"$PATH" {variables} "$@"
"""
CANN = "version=8.0.0\ninnerversion=V100R001C19SPC001\ncompatible_version=[V100R001C15]\n"
DRIVER = "Version=24.1.rc1\nInnerversion=V100R001C15SPC006B220\ncompatible_version=[V100R001C19]\n"


class SimulatedServer(Server):
    """One that is well; what a test changes is written by `finish`."""

    def __init__(self, folder: Path, number: int, servers: int, kind: str = "ascend910") -> None:
        super().__init__(folder, kind, COUNTS.get(kind, 8), f"192.{{}}.27.{number}")
        self.name, self.address = f"h{number}", f"127.0.0.{number}"
        self.ips = {npu.phy: f"192.{npu.phy}.27.{number}" for npu in self.npus}
        self.limits = ""
        self.variables = {
            "ASCEND_TOOLKIT_HOME": str(folder / "cann"),
            "LD_LIBRARY_PATH": str(folder / "cann" / "lib64"),
        }
        self.settings: Dict[str, Any] = {
            "hostname": self.name,
            "address": f"10.0.0.{number}",
            "python": "3.11.7",
            "tool_limit_s": 5,
            "disks_mb": {"/dev/shm": 8000, str(folder.parent): 90_000},
        }
        (folder / "version.info").write_text(DRIVER)
        (folder / "cann" / "lib64").mkdir(parents=True)
        (folder / "cann" / "ascend_toolkit_install.info").write_text(CANN)
        for library in ("libascendcl.so", "libhccl.so"):
            (folder / "cann" / "lib64" / library).touch()
        (folder / "packages" / "mindspore-2.10.0.dist-info").mkdir(parents=True)
        self.free_memory_mb(200_000)
        (folder / "voc.mindrecord").write_text("records")
        for npu in self.npus:
            for other in range(1, servers + 1):
                self.ping(npu.phy, f"192.{npu.phy}.27.{other}")

    def free_memory_mb(self, megabytes: int) -> None:
        (self.folder / "meminfo").write_text(f"MemAvailable: {megabytes * 1000 * 1000 // 1024} kB\n")

    def finish(self) -> str:
        """Writes the host; the word of its prefix."""
        (self.folder / "host.json").write_text(json.dumps(self.settings))
        script = self.folder / "inside"
        variables = " ".join(f"{name}={value}" for name, value in self.variables.items())
        where = {"folder": self.folder, "simulated": SIMULATED}
        script.write_text(INSIDE.format(limits=self.limits, variables=variables, **where))
        script.chmod(0o755)
        return str(script)

    def entry(self) -> Dict[str, Any]:
        """Of `hosts` in a cluster file."""
        prefix = [self.finish()]
        return {"name": self.name, "address": self.address, "prefix": prefix, "devices": self.ips}


def make(folder: Path, count: int) -> List[SimulatedServer]:
    return [SimulatedServer(folder / f"h{number}", number, count) for number in range(1, count + 1)]


def cluster_file(folder: Path, servers: List[SimulatedServer], **fields: Any) -> Path:
    """YAML is a superset of JSON but for keys, which are device ids here."""
    import yaml

    path = folder / "cluster.yaml"
    hosts = [server.entry() for server in servers]
    path.write_text(yaml.safe_dump({"device_kind": "ascend910", "engine": "exec", "hosts": hosts, **fields}))
    return path
