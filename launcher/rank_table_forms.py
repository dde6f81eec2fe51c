"""The JSON of each version of a rank table. `parse` takes what `rank_table_rules` finds nothing wrong with.

In 1.0 and 1.2 every scalar is a string, in 2.0 a number is a number: HCCL refuses the other way.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any, Dict, List, Mapping, Tuple

from launcher.rank_table import COMPLETED, Rank, RankTable, Server

Values = Mapping[str, Any]


def to_text(values: Values) -> str:
    """The table as it is written: JSON with an indent of four, as Huawei's own tool writes it."""
    return json.dumps(values, indent=4, ensure_ascii=False) + "\n"


def parse(values: Values) -> RankTable:
    """The table that a file's JSON holds; the old form without a version is one of version 1.0."""
    if "group_list" in values:
        return _parse_groups(values)
    return _parse_ranks(values) if "rank_list" in values else _parse_servers(values)


def render(table: RankTable) -> Dict[str, Any]:
    """The JSON of the table in its version, keys in the order of Huawei's tool, which makes the two easy to
    compare."""
    return _render_ranks(table) if table.version == "2.0" else _render_servers(table)


def _without(values: Values, *names: str) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


# --- 1.0 and 1.2: servers


def _parse_servers(values: Values) -> RankTable:
    pods = {
        member["server_id"]: pod["super_pod_id"]
        for pod in values.get("super_pod_list", ())
        for member in pod["server_list"]
    }
    servers = tuple(
        Server(
            server["server_id"],
            tuple(
                Rank(
                    int(device["rank_id"]),
                    int(device["device_id"]),
                    device.get("device_ip"),
                    _without(device, "rank_id", "device_id", "device_ip"),
                )
                for device in server["device"]
            ),
            server.get("pod_ip"),
            pods.get(server["server_id"]),
            _without(server, "server_id", "device", "pod_ip"),
        )
        for server in values["server_list"]
    )
    known = ("version", "status", "server_count", "server_list", "super_pod_list")
    return RankTable(values["version"], servers, _without(values, *known))


def _render_servers(table: RankTable) -> Dict[str, Any]:
    pods = _pods(table)
    return {
        "version": table.version,
        "server_count": str(len(table.servers)),
        "server_list": [
            {
                "server_id": server.server_id,
                "device": [_device(rank) for rank in server.ranks],
                **server.more,
                **({} if server.pod_ip is None else {"pod_ip": server.pod_ip}),
            }
            for server in table.servers
        ],
        **({"super_pod_list": pods} if pods else {}),
        **table.more,
        "status": COMPLETED,
    }


def _device(rank: Rank) -> Dict[str, Any]:
    ip = {} if rank.device_ip is None else {"device_ip": rank.device_ip}
    return {"device_id": str(rank.device_id), **ip, **rank.more, "rank_id": str(rank.rank_id)}


def _pods(table: RankTable) -> List[Dict[str, Any]]:
    in_pods = (server for server in table.servers if server.super_pod is not None)
    return [
        {"super_pod_id": pod, "server_list": [{"server_id": server.server_id} for server in servers]}
        for pod, servers in groupby(in_pods, key=lambda server: server.super_pod)
    ]


# --- 2.0: ranks, whose server is the one that their lowest layer joins


def server_of(entry: Values) -> str:
    """The name of the network instance that joins the devices of a rank's server."""
    return str(entry["level_list"][0]["net_instance_id"])


def _parse_ranks(values: Values) -> RankTable:
    servers: Dict[str, List[Rank]] = {}
    for entry in values["rank_list"]:
        addresses = entry["level_list"][0]["rank_addr_list"]
        address = addresses[0]["addr"] if addresses else None
        rank = Rank(entry["rank_id"], entry["device_id"], address, _without(entry, "rank_id", "device_id"))
        servers.setdefault(server_of(entry), []).append(rank)
    made = tuple(Server(server_id, tuple(ranks)) for server_id, ranks in servers.items())
    return RankTable("2.0", made, _without(values, "version", "status", "rank_count", "rank_list"))


def _render_ranks(table: RankTable) -> Dict[str, Any]:
    return {
        "version": "2.0",
        "status": COMPLETED,
        "rank_count": table.world_size,
        "rank_list": [
            {"rank_id": rank.rank_id, "device_id": rank.device_id, **rank.more} for _, rank in table.by_rank()
        ],
        **table.more,
    }


# --- the old form of Ascend 910: instances, whose order gives the ranks


def instances(values: Values) -> List[Tuple[str, Values]]:
    """Server id and entry of every device in a checked table of the old form, in the order of the ranks."""
    return [
        (instance["server_id"], device)
        for group in values["group_list"]
        for instance in group["instance_list"]
        for device in instance["devices"]
    ]


def _parse_groups(values: Values) -> RankTable:
    servers = []
    numbered = enumerate(instances(values))
    for server_id, entries in groupby(numbered, key=lambda item: item[1][0]):
        ranks = (
            Rank(number, int(device["device_id"]), device.get("device_ip"), {})
            for number, (_, device) in entries
        )
        servers.append(Server(server_id, tuple(ranks)))
    return RankTable("1.0", tuple(servers))
