"""Engine `local`: the one host is this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from launcher.engines.base import Engine, agent_command

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster, Host


class LocalEngine(Engine):
    def agent_argv(self, host: Host, cluster: Cluster) -> List[str]:
        return agent_command(host, cluster)
