"""The HCCL rank table, versions 1.0 and 1.2: build, read, check. All scalars in it are strings.

MindSpore takes a wrong table for a warning and goes on with other ranks, HCCL for an error without a field
name, so the rules of HCCL's user guide (rank table configuration) are checked here first.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from launcher.errors import UserError

VERSIONS = ("1.0", "1.2")
COMPLETED = "completed"
SERVER_ID_CHARACTERS = 64

Table = Dict[str, Any]


class Rank(NamedTuple):
    """One device of a server. `device_ip` None: not needed, or unknown."""

    device_id: int
    device_ip: Optional[str]
    rank_id: int


class Server(NamedTuple):
    """`server_id`: unique; the host's address here. `pod_ip`: address its workers register with."""

    server_id: str
    pod_ip: str
    ranks: Tuple[Rank, ...]


def build(servers: Sequence[Server]) -> Table:
    """The table of version 1.0, which every Ascend 910 generation reads.

    For 910_93 that is its AI-server form: version 1.2 adds super pods, whose device ids only the host's
    `npu-smi info -t spod-info` knows. `pod_ip` is read by MindSpore's dynamic cluster, not by HCCL. Keys
    come in the order of Huawei's own tool, which makes the two easy to compare.
    """
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": [
            {
                "server_id": server.server_id,
                "device": [_device(rank) for rank in server.ranks],
                "pod_ip": server.pod_ip,
            }
            for server in servers
        ],
        "status": COMPLETED,
    }


def _device(rank: Rank) -> Dict[str, str]:
    ip = {} if rank.device_ip is None else {"device_ip": rank.device_ip}
    return {"device_id": str(rank.device_id), **ip, "rank_id": str(rank.rank_id)}


def to_text(table: Table) -> str:
    """The table as it is written: JSON with an indent of four, as Huawei's tool writes it."""
    return json.dumps(table, indent=4) + "\n"


def read(path: Path) -> Table:
    """Reads and checks a table. Raises UserError that lists every problem with its field."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give the path of a rank table") from None
    except ValueError as error:
        remedy = "remove comments, and compare with what wrote it"
        raise UserError(f"{path}: not valid JSON: {error}; expected a rank table; {remedy}") from None
    problems = check(table)
    if problems:
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return table


def check(table: Any) -> List[str]:
    """Every way in which the table breaks a rule, as `field: what; expected ...`; empty for a good one."""
    if not isinstance(table, dict):
        return [f"the file: {_kind(table)}; expected a JSON object"]
    checker = _Checker()
    checker.table(table)
    return checker.problems


class _Checker:
    """Goes through a table once, noting problems and what has to be unique or dense over the whole of it."""

    def __init__(self) -> None:
        self.problems: List[str] = []
        self.server_ids: Dict[str, str] = {}
        self.ips: Dict[Any, str] = {}
        self.super_devices: Dict[str, List[Tuple[str, str]]] = {}  # server id -> (field, id)
        self.ranks: List[Tuple[int, int]] = []  # (rank, server index) in the table's order
        self.readable = True  # false once a rank could not be read: then nothing is said about gaps

    def note(self, field: str, what: str, expected: str) -> None:
        self.problems.append(f"{field}: {what}; expected {expected}")

    def text(self, holder: Dict[str, Any], name: str, path: str, required: bool = True) -> Optional[str]:
        """A field that has to be a string; None when it is missing or is not one."""
        field = f"{path}{name}"
        if name not in holder:
            if required:
                self.note(field, "is missing", "a string")
            return None
        value = holder[name]
        if not isinstance(value, str):
            example = json.dumps(str(value)) if isinstance(value, int) else "a string"
            self.note(field, _kind(value), f"{example}: HCCL reads strings only")
            return None
        return value

    def objects(self, holder: Dict[str, Any], name: str, path: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
        """(path, item) of a field that has to be a list of objects, and not empty."""
        value = holder.get(name)
        field = f"{path}{name}"
        if not isinstance(value, list) or not value:
            self.note(field, _kind(value) if name in holder else "is missing", "a list of objects, not empty")
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield f"{field}[{index}].", item
            else:
                self.note(f"{field}[{index}]", _kind(item), "an object")

    def table(self, table: Table) -> None:
        version = self.text(table, "version", "")
        if version is not None and version not in VERSIONS:
            self.note("version", f"{version!r} is not supported", " or ".join(VERSIONS))
        status = self.text(table, "status", "")
        if status is not None and status != COMPLETED:
            self.note("status", f"{status!r}: the table is not finished", repr(COMPLETED))
        servers = list(self.objects(table, "server_list", ""))
        count = self.text(table, "server_count", "", required=version == "1.0")
        if count is not None and count != str(len(servers)):
            self.note("server_count", f"{count!r}", f"{str(len(servers))!r}, the length of server_list")
        for index, (path, server) in enumerate(servers):
            self.server(index, path, server, several=len(servers) > 1)
        self.rank_order(servers)
        if "super_pod_list" in table:
            self.super_pods(table)

    def server(self, index: int, path: str, server: Dict[str, Any], several: bool) -> None:
        server_id = self.text(server, "server_id", path)
        if server_id is not None:
            if not 0 < len(server_id) <= SERVER_ID_CHARACTERS:
                self.note(
                    f"{path}server_id",
                    f"{len(server_id)} characters",
                    f"1 to {SERVER_ID_CHARACTERS} characters",
                )
            self.once(self.server_ids, server_id, f"{path}server_id")
        for name in ("host_ip", "pod_ip"):
            self.addresses(self.text(server, name, path, required=False), f"{path}{name}")
        device_ids: Dict[str, str] = {}
        for place, device in self.objects(server, "device", path):
            self.device(index, place, device, device_ids, needs_ip=several and "host_ip" not in server)
            super_id = self.text(device, "super_device_id", place, required=False)
            if super_id is not None and server_id is not None:
                field = f"{place}super_device_id"
                self.super_devices.setdefault(server_id, []).append((field, super_id))

    def device(
        self, server: int, path: str, device: Dict[str, Any], ids: Dict[str, str], needs_ip: bool
    ) -> None:
        device_id = self.number(self.text(device, "device_id", path), f"{path}device_id", "a device id")
        if device_id is not None:
            self.once(ids, str(device_id), f"{path}device_id")
        ip_text = self.text(device, "device_ip", path, required=needs_ip)
        if ip_text == "" and needs_ip:
            self.note(f"{path}device_ip", "is empty", "an IP address, as there are several servers")
        for address in self.addresses(ip_text, f"{path}device_ip"):
            self.once(self.ips, address, f"{path}device_ip")
        port = self.number(
            self.text(device, "device_port", path, required=False), f"{path}device_port", "1 to 65535"
        )
        if port is not None and not 1 <= port <= 65535:
            self.note(f"{path}device_port", f"{port}", "1 to 65535")
        rank = self.number(self.text(device, "rank_id", path), f"{path}rank_id", "a rank id")
        if rank is None:
            self.readable = False
        else:
            self.ranks.append((rank, server))

    def once(self, seen: Dict[Any, str], value: Any, field: str) -> None:
        if value in seen:
            self.note(field, f"{value} is also at {seen[value]}", "a value that occurs once")
        else:
            seen[value] = field

    def number(self, text: Optional[str], field: str, expected: str) -> Optional[int]:
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            self.note(field, repr(text), f"{expected} in digits")
            return None
        return int(text)

    def addresses(self, text: Optional[str], field: str) -> List[Any]:
        """One address, or several with commas between; the empty text stands for none."""
        found = []
        for part in text.split(",") if text else ():
            try:
                found.append(ipaddress.ip_address(part.strip()))
            except ValueError:
                self.note(field, f"{part!r} is not an IP address", "an IPv4 or IPv6 address")
        return found

    def rank_order(self, servers: Sequence[Any]) -> None:
        versions = {address.version for address in self.ips}
        if len(versions) > 1:
            self.note("device_ip", "IPv4 and IPv6 addresses", "one family in the whole table (HCCL's EI0001)")
        if not self.readable:
            return
        counts = Counter(rank for rank, _ in self.ranks)
        for rank in sorted(rank for rank, count in counts.items() if count > 1):
            self.note("rank_id", f"{rank} occurs {counts[rank]} times", "each rank once")
        absent = sorted(set(range(len(self.ranks))) - set(counts))
        if absent:
            listed = ", ".join(map(str, absent[:8]))
            self.note("rank_id", f"{listed} missing", f"every rank from 0 to {len(self.ranks) - 1}")
        left: Set[int] = set()
        last: Optional[int] = None
        for rank, server in sorted(self.ranks):
            if server != last:
                if server in left:
                    field = f"server_list[{server}]"
                    self.note(
                        field,
                        f"rank {rank} comes after ranks of another server",
                        "the ranks of a server one after the other",
                    )
                    return
                left.add(server)
                last = server

    def super_pods(self, table: Table) -> None:
        pods: Dict[str, str] = {}
        members: Dict[str, str] = {}
        for path, pod in self.objects(table, "super_pod_list", ""):
            pod_id = self.text(pod, "super_pod_id", path)
            if pod_id is not None:
                self.once(pods, pod_id, f"{path}super_pod_id")
            super_devices: Dict[str, str] = {}
            for place, member in self.objects(pod, "server_list", path):
                server_id = self.text(member, "server_id", place)
                if server_id is None:
                    continue
                self.once(members, server_id, f"{place}server_id")
                if server_id not in self.server_ids:
                    self.note(
                        f"{place}server_id", f"{server_id!r} is not in server_list", "one of its servers"
                    )
                for field, super_id in self.super_devices.get(server_id, ()):
                    self.once(super_devices, super_id, field)
        outside = sorted(set(self.server_ids) - set(members))
        if outside:
            self.note(
                "super_pod_list", f"{', '.join(outside)} in no super pod", "every server in one super pod"
            )


def _kind(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "is empty"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return f"is {names.get(type(value), 'unreadable')}"
