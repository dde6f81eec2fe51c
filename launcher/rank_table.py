"""A rank table of HCCL: which rank runs on which device of which server. Pure; what all its versions say.

`rank_table_forms` reads and renders a version's JSON, `rank_table_rules` judges it, `rank_table_file` has the
files. Versions: 1.0 (servers), 1.2 (servers in super pods of Ascend 910_93), 2.0 (ranks of Ascend 950).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Tuple

from launcher.errors import UserError

COMPLETED = "completed"
VERSIONS = ("1.0", "1.2", "2.0")

Fields = Mapping[str, Any]
Place = Tuple[str, int]  # server id and device id


@dataclass(frozen=True)
class Rank:
    """One device and the rank that it has.

    `device_ip`: as the table says it: several joined by commas; None: not said. `more`: the other fields of
    its entry, as they are.
    """

    rank_id: int
    device_id: int
    device_ip: Optional[str] = None
    more: Fields = field(default_factory=dict)

    @property
    def first_ip(self) -> Optional[str]:
        """The address that people know the device by; None where the table has none."""
        return self.device_ip.partition(",")[0].strip() or None if self.device_ip else None


@dataclass(frozen=True)
class Server:
    """`server_id`: unique. `pod_ip`: the address that its workers register with at MindSpore's scheduler, the
    only reader of it. `super_pod`: None: in none. `more`: other fields of its entry."""

    server_id: str
    ranks: Tuple[Rank, ...]
    pod_ip: Optional[str] = None
    super_pod: Optional[str] = None
    more: Fields = field(default_factory=dict)

    @property
    def turn(self) -> Tuple[str, str]:
        """Sorts servers: those of a super pod stay together, as HCCL demands."""
        return self.super_pod or "", self.server_id

    @property
    def address(self) -> Optional[str]:
        """The host's address, from the first field that says it; None where only its name is known.

        Loopback, which stands for every host, comes last.
        """
        found = []
        others = (self.more.get(name) for name in ("container_ip", "host_ip", "server_ip"))
        for value in (self.pod_ip, *others, self.server_id):
            with suppress(ValueError):
                found.append(ip_address(value or ""))
        return next((str(address) for address in sorted(found, key=lambda a: a.is_loopback)), None)


@dataclass(frozen=True)
class RankTable:
    """`servers` in the order of the file. `more`: fields that no rule of HCCL is about."""

    version: str
    servers: Tuple[Server, ...]
    more: Fields = field(default_factory=dict)

    @property
    def world_size(self) -> int:
        return sum(len(server.ranks) for server in self.servers)

    def by_rank(self) -> List[Tuple[Server, Rank]]:
        """Every device with its server, rank 0 first."""
        pairs = ((server, rank) for server in self.servers for rank in server.ranks)
        return sorted(pairs, key=lambda pair: pair[1].rank_id)

    @property
    def is_in_order(self) -> bool:
        """Whether the ranks follow the dictionary order of the server ids, as MindSpore's guide wants it, in
        each super pod.

        HCCL does not mind, and MindCluster numbers the servers in the order of its pods.
        """
        order = [server.turn for server, _ in self.by_rank()]
        return order == sorted(order)


def of_places(table: RankTable, places: Collection[Place]) -> RankTable:
    """The table of some of its devices: their ranks close up in the order that they have.

    A server's devices come by id, as MindSpore takes the DEVICE_ID-th entry of a server for that device.
    """
    kept = set(places)
    used = [(s.server_id, r.device_id) for s, r in table.by_rank() if (s.server_id, r.device_id) in kept]
    part = _with_ranks(table, {place: number for number, place in enumerate(used)})
    by_id = (replace(s, ranks=tuple(sorted(s.ranks, key=lambda r: r.device_id))) for s in part.servers)
    return replace(part, servers=tuple(by_id))


def merge(tables: Mapping[str, RankTable]) -> RankTable:
    """One table of all servers, ranks renumbered server by server in the dictionary order of the server ids,
    as MindSpore wants it, a super pod's servers together.

    tables: by the names that errors give them. Raises UserError: other versions, or a server or a device
    address that two of them have.
    """
    versions = {name: table.version for name, table in tables.items()}
    problems = [] if len(set(versions.values())) == 1 else [_versions_text(versions)]
    problems += _held_twice(tables)
    if problems:
        raise UserError("\n".join(problems))
    servers = sorted((server for table in tables.values() for server in table.servers), key=lambda s: s.turn)
    ordered = [replace(s, ranks=tuple(sorted(s.ranks, key=lambda r: r.rank_id))) for s in servers]
    places = [(server.server_id, rank.device_id) for server in ordered for rank in server.ranks]
    more = {name: value for table in tables.values() for name, value in table.more.items()}
    whole = RankTable(next(iter(versions.values())), tuple(ordered), more)
    return _with_ranks(whole, {place: number for number, place in enumerate(places)})


def _versions_text(versions: Mapping[str, str]) -> str:
    listed = ", ".join(f"{version} in {name}" for name, version in versions.items())
    return f"version: {listed}; expected one version; merge tables of one kind of device only"


def _held_twice(tables: Mapping[str, RankTable]) -> Iterator[str]:
    """A sentence for each server, and each address of another server, that two tables have; within one table
    the rules see to it."""
    servers: Dict[str, str] = {}
    ips: Dict[str, str] = {}
    for name, table in tables.items():
        for server in table.servers:
            if servers.setdefault(server.server_id, name) != name:
                what = f"server_id: {server.server_id} is also in {servers[server.server_id]}"
                yield f"{name}: {what}; expected every server once; leave one of the files out, or rename it"
                continue
            for ip in (rank.device_ip for rank in server.ranks if rank.device_ip):
                if ips.setdefault(ip, name) != name:
                    what = f"device_ip: {ip} of server {server.server_id} is also in {ips[ip]}"
                    yield f"{name}: {what}; expected every address once; correct the wrong one"


def _with_ranks(table: RankTable, ranks: Mapping[Place, int]) -> RankTable:
    """The entries of the places in `ranks`, with those ranks."""
    servers = []
    for server in table.servers:
        own = [
            replace(rank, rank_id=ranks[server.server_id, rank.device_id])
            for rank in server.ranks
            if (server.server_id, rank.device_id) in ranks
        ]
        if own:
            servers.append(replace(server, ranks=tuple(own)))
    return replace(table, servers=tuple(servers))
