"""Engine `exec`: each host names the argv prefix behind which its commands run: [ssh, h1], [nsenter, ...]."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, List

from launcher.engines.base import Engine, agent_command, checkout
from launcher.protocol import LEASE_S

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster, Host


class ExecEngine(Engine):
    is_remote = True

    def agent_argv(self, host: Host, cluster: Cluster) -> List[str]:
        folder = checkout()  # ssh does not hand our environment on
        path = [] if folder is None else ["env", f"PYTHONPATH={folder}"]
        command = [*path, *agent_command(host, cluster, LEASE_S)]
        if any(Path(word).name == "ssh" for word in host.prefix):
            command = [shlex.quote(word) for word in command]  # ssh joins its words for a shell on the host
        return [*host.prefix, *command]
