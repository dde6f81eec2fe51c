"""A rank table in a cluster file, as `rank_table: FILE` or the table itself: it says who has which rank.

The file itself ends up in the place of its path, so that the rest of the program, and a run's record, know
only the table.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from launcher import job_environment, rank_table_file, rank_table_forms, rank_table_rules
from launcher.chips import CHIPS, Chip
from launcher.cluster_fields import is_name
from launcher.rank_table import Rank, RankTable, Server
from launcher.yaml_lines import Document, Problem

if TYPE_CHECKING:
    from launcher.cluster_types import Host

AUTO = "auto"  # the table that the job's environment names
FIELD = ("rank_table",)
WAIT_S = 600.0  # for a table that is being written, where the file has no `timeouts: {start_s}`


def loaded(document: Document) -> Document:
    """The document with the table in place of the path of one, once that table is finished.

    One that is not there yet is waited for in a job of a cluster's manager only: elsewhere its name is wrong.
    Raises UserError: no such file, no JSON; PreflightError: not finished within `timeouts.start_s`.
    """
    value = document.value.get("rank_table") if isinstance(document.value, dict) else None
    if value is None:
        _say_of_unused(document)
    if not isinstance(value, str):
        return document
    if value == AUTO:
        path = job_environment.rank_table_path()
        if path is None:
            what = "nothing in the environment names a rank table"
            remedy = "write the path of one, or leave it out"
            expected = "RANK_TABLE_FILE, or the table of a job of MindCluster or ModelArts"
            raise document.error([Problem(FIELD, what, expected, remedy)])
    else:
        path = Path(document.path).parent / value
    if path.exists() or job_environment.recognised() is not None:
        table = rank_table_file.wait_for(path, _limit_s(document), _say)
    else:
        table = rank_table_file.load(path)
    return replace(document, value={**document.value, "rank_table": table})


def _limit_s(document: Document) -> float:
    """`timeouts.start_s`, where it can be read; what is wrong with it is told later."""
    timeouts = document.value.get("timeouts")
    limit_s = timeouts.get("start_s") if isinstance(timeouts, dict) else None
    return limit_s if isinstance(limit_s, (int, float)) else WAIT_S


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_of_unused(document: Document) -> None:
    """A job of MindCluster or ModelArts has a rank table, which a cluster file may pass over by oversight."""
    job = job_environment.recognised()
    is_ascend = isinstance(document.value, dict) and document.value.get("device_kind") not in (None, "cpu")
    path = job_environment.rank_table_path() if job is not None and is_ascend else None
    if job is not None and path is not None:
        remedy = f"`rank_table: {AUTO}` in the cluster file takes it"
        _say(f"note: this is a job of {job.manager}, whose rank table {path} is not used; {remedy}")


def filled(document: Document) -> Tuple[Any, Optional[RankTable]]:
    """The document's value with what its rank table says of the hosts, and that table; None without one.

    Raises UserError that lists what is wrong with the table, or which server is whose.
    """
    value = document.value
    if not isinstance(value, dict) or value.get("rank_table") is None:
        return value, None
    chip = CHIPS.get(value.get("device_kind", ""))
    problems = [
        problem._replace(where=(*FIELD, *problem.where))
        for problem in rank_table_rules.check(value["rank_table"], chip)
    ]
    if problems:
        raise document.error(problems)
    table = rank_table_forms.parse(value["rank_table"])
    if value.get("hosts") is None:
        value = {**value, **_hosts_of(table, chip, problems)}
    elif isinstance(value["hosts"], list):
        hosts = [_host_of(i, item, table, chip, problems) for i, item in enumerate(value["hosts"])]
        value = {**value, "hosts": hosts}
        found = {item.get("server_id") for item in hosts if isinstance(item, dict)}
        for server in table.servers:
            if server.server_id not in found and not problems:
                what = f"has no host for server {server.server_id!r} of the rank table"
                remedy = f"add `{{server_id: {server.server_id}, address: ...}}`, or give a table without it"
                problems.append(Problem(("hosts",), what, "every server of the table", remedy))
    if problems:
        raise document.error(problems)
    return value, table


def _hosts_of(table: RankTable, chip: Optional[Chip], problems: List[Problem]) -> Dict[str, Any]:
    """`hosts` and `engine` of a file that leaves them to the table."""
    nameless = [server.server_id for server in table.servers if server.address is None]
    if nameless:
        what = f"has no address of {', '.join(nameless[:8])}"
        remedy = f"write `hosts: [{{server_id: {nameless[0]}, address: 10.0.0.1}}, ...]`"
        problems.append(Problem(FIELD, what, "pod_ip, host_ip or an address as server_id", remedy))
        return {}
    hosts = [entry({}, server, chip) for server in table.servers]
    if len(hosts) == 1:
        return {"hosts": hosts}
    return {"engine": "exec", "hosts": [{**host, "prefix": ["ssh", host["address"]]} for host in hosts]}


def _host_of(index: int, item: Any, table: RankTable, chip: Optional[Chip], problems: List[Problem]) -> Any:
    """An entry of `hosts` with what its server in the table says and the entry does not."""
    given = {"address": item} if isinstance(item, str) else item
    if not isinstance(given, dict):
        return item
    server = _server_of(given, table)
    if server is None:
        listed = ", ".join(server.server_id for server in table.servers[:8])
        what = (
            f"{given.get('server_id', given.get('name', given.get('address')))!r} is no server of the table"
        )
        where = ("hosts", index)
        problems.append(Problem(where, what, f"one of {listed}", "write `server_id: NAME` of its server"))
        return item
    return entry(given, server, chip)


def _server_of(host: Mapping[str, Any], table: RankTable) -> Optional[Server]:
    by_id = {server.server_id: server for server in table.servers}
    if host.get("server_id") is not None:
        return by_id.get(host["server_id"])
    by_address = {server.address: server for server in table.servers if server.address is not None}
    address, name = str(host.get("address")), str(host.get("name"))
    return by_id.get(address) or by_address.get(address) or by_id.get(name)


def entry(given: Mapping[str, Any], server: Server, chip: Optional[Chip]) -> Dict[str, Any]:
    """An entry of `hosts`: what the table says of this server, and what is given, which counts more."""
    ids = sorted(rank.device_id for rank in server.ranks)
    ips = {rank.device_id: _ip(rank) for rank in server.ranks}
    has_ips = chip is not None and chip.is_ascend and any(ips.values())
    says: Dict[str, Any] = {
        "server_id": server.server_id,
        "devices": {i: ips[i] for i in ids} if has_ips else ids,
    }
    if server.address is not None:
        says["address"] = server.address
    if is_name(server.server_id):
        says["name"] = server.server_id
    return {**says, **given}


def _ip(rank: Rank) -> Optional[str]:
    """The device's address, where it is an IP address: in version 2.0 it may be another one."""
    try:
        return str(ipaddress.ip_address(rank.first_ip or ""))
    except ValueError:
        return None


def problems_with(
    table: Optional[RankTable],
    version: Optional[str],
    chip: Optional[Chip],
    engine: str,
    hosts: Sequence[Host],
) -> Iterator[Problem]:
    """In what the hosts of a cluster file contradict its rank table, or what the file's table would lack."""
    devices = sum(len(host.devices or ()) for host in hosts)
    if table is None:
        if chip is not None and chip.table_versions[0] == "2.0" and devices > 1:
            what = "is missing: the ports and planes of the devices are not known here"
            remedy = "write `rank_table: FILE`, as the cluster's manager or Huawei's tool makes it"
            yield Problem(FIELD, what, f"a rank table of version 2.0 for {chip.product}", remedy)
        elif chip is not None and version is not None and version not in chip.table_versions:
            expected = " or ".join(chip.table_versions)
            what = f"{version!r} is not read by {chip.product}"
            yield Problem(("rank_table_version",), what, expected, "leave it out to take the usual one")
        return
    if version not in (None, table.version):
        what, expected = f"{version!r}, but the rank table has {table.version!r}", "the table's, or none"
        yield Problem(("rank_table_version",), what, expected, "leave it out")
    by_id = {server.server_id: server for server in table.servers}
    for i, host in enumerate(hosts):
        server = by_id.get(host.server_id or "")
        if server is None:
            continue  # what is wrong with the host is told
        if engine == "exec" and server.pod_ip not in (None, host.address):
            what = f"{host.address}, but the rank table's pod_ip of {server.server_id} is {server.pod_ip}"
            remedy = "correct the wrong one: it is the address that the host's workers register with"
            yield Problem(("hosts", i, "address"), what, "the same address", remedy)
        known = {rank.device_id: _ip(rank) for rank in server.ranks}
        for device in host.devices or ():
            where = ("hosts", i, "devices", device.id)
            if device.id not in known:
                what = f"device {device.id} is not in the rank table"
                remedy = "leave `devices` out to take the table's"
                yield Problem(where, what, f"some of {sorted(known)}", remedy)
            elif device.ip not in (None, known[device.id]):
                what = f"{device.ip}, but the rank table says {known[device.id]}"
                yield Problem(where, what, "the same address", "leave `devices` out to take the table's")
