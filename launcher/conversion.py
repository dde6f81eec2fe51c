"""A cluster file as a rank table, and a rank table as a cluster file."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from launcher import rank_table_forms
from launcher.chips import CHIPS
from launcher.cluster import cluster_from
from launcher.cluster_table import entry
from launcher.cluster_types import Cluster
from launcher.errors import UserError
from launcher.plan import planned_table
from launcher.rank_table import RankTable


def rank_table_of(cluster: Cluster) -> RankTable:
    """The rank table of all devices of a cluster: the one that its file gives, or one made from its hosts."""
    if cluster.rank_table is not None:
        return cluster.rank_table
    if cluster.chip.table_versions[0] == "2.0":
        raise UserError(f"{cluster.source}: has no rank table, and none can be made for a single Ascend 950")
    return planned_table(cluster)


def cluster_values(table: RankTable, kind: str, addresses: Mapping[str, str]) -> Dict[str, Any]:
    """A cluster file with everything that a table says: in short where that says it all, else with the table
    itself inside.

    addresses: of the hosts, by server id, where the table has none. Raises UserError where one is missing.
    """
    missing = [s.server_id for s in table.servers if s.address is None and s.server_id not in addresses]
    if missing:
        options = " ".join(f"--address {server_id}=IP" for server_id in missing[:4])
        raise UserError(
            f"the rank table has no address of server {', '.join(missing[:8])}; expected the IP address of "
            f"every host; give it with {options}"
        )
    hosts = []
    for server in table.servers:
        given = {"address": addresses.get(server.server_id, server.address)}
        host = entry(given, server, CHIPS[kind])
        if len(table.servers) > 1:
            host["prefix"] = ["ssh", host["address"]]
        hosts.append(
            {key: host[key] for key in ("name", "server_id", "address", "prefix", "devices") if key in host}
        )
    values: Dict[str, Any] = {"device_kind": kind, "hosts": hosts}
    if len(hosts) > 1:
        values["engine"] = "exec"
    inside = {**values, "rank_table": rank_table_forms.render(table)}
    try:
        short = cluster_from(values, "")
    except UserError:
        return inside
    return values if table.version != "2.0" and rank_table_of(short) == table else inside
