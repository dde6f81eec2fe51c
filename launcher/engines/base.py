"""The interface of an engine, and the command that every engine ends in."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster, Host


class Engine(ABC):
    """A way to start one agent on a host so that its stdin and stdout are ours.

    is_remote: whether a network may lie between. Then silence counts, as the end of a link may never be told;
    on one machine it is, and a launcher that was stopped (Ctrl-Z) must find its run again.
    """

    is_remote = False

    @abstractmethod
    def agent_argv(self, host: Host, cluster: Cluster) -> List[str]:
        """The command that runs the agent of `host` when it is started on this machine."""


def checkout() -> Optional[Path]:
    """The folder to put on PYTHONPATH for `-m launcher.agent`; None where the package is installed.

    Site-packages is not put there: it would come before the standard library.
    """
    folder = Path(__file__).resolve().parents[2]
    return None if folder.name in ("site-packages", "dist-packages") else folder


def agent_command(host: Host, cluster: Cluster, lease_s: Optional[float] = None) -> List[str]:
    """The agent's command as its own host sees it. lease_s: silence that ends everything there."""
    # which ports HCCL will use there is looked at before its workers have these variables
    hccl = [f"{name}={value}" for name, value in cluster.env.items() if name.startswith("HCCL_")]
    command = [*(["env", *hccl] if hccl else []), cluster.python or sys.executable, "-m", "launcher.agent"]
    if lease_s is not None:
        command += ["--lease", f"{lease_s:g}"]
    if cluster.master_port is not None:
        command += ["--port", str(cluster.master_port)]
    if cluster.device_kind != "cpu":
        command += ["--devices", ",".join(str(device.id) for device in host.devices)]
        command += ["--address", host.address]
    if cluster.bind_cpus:
        command += ["--bind", "cpus"]
    return command
