"""The rules between the hosts of a cluster file: what no field can break alone."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, Optional, Sequence, Tuple

from launcher.chips import Chip, choose, subset_problems
from launcher.yaml_lines import Problem, Where, name_of

if TYPE_CHECKING:
    from launcher.cluster_types import Host


def host_problems(
    chip: Optional[Chip], engine: Optional[str], hosts: Sequence[Host], has_table: bool = False
) -> Iterator[Problem]:
    """The rules between hosts. Fields that could not be read are None and are passed over.

    has_table: a rank table is given, which says what the devices' addresses are.
    """
    if engine == "local" and len(hosts) > 1:
        what = f"{len(hosts)} hosts with engine local, which starts workers on this machine only"
        remedy = "write `engine: exec` and a `prefix` for each host"
        yield Problem(("hosts",), what, "one host", remedy)
    for i, host in enumerate(hosts):
        if engine == "exec" and host.prefix == ():
            remedy = f"write for example `prefix: [ssh, {host.name}]`"
            yield Problem(("hosts", i, "prefix"), "is missing", "what runs a command on this host", remedy)
        if engine == "local" and host.prefix:
            remedy = "remove it, or write `engine: exec`"
            yield Problem(("hosts", i, "prefix"), "has no use with engine local", "no prefix", remedy)
    names = [(("hosts", i, "name"), host.name) for i, host in enumerate(hosts)]
    addresses = [(("hosts", i, "address"), host.address) for i, host in enumerate(hosts)]
    ips = [
        (("hosts", i, "devices", device.id), device.ip)
        for i, host in enumerate(hosts)
        for device in host.devices or ()
    ]
    for what, values in (("name", names), ("address", addresses), ("device IP", ips)):
        yield from _duplicates(what, values)
    yield from _mixed_families("host", addresses)
    yield from _loopback_among_others(addresses)
    yield from _mixed_families("device", ips)
    if chip is not None:
        yield from _device_problems(chip, hosts, has_table)


def _device_problems(chip: Chip, hosts: Sequence[Host], has_table: bool) -> Iterator[Problem]:
    ids = [None if host.devices is None else [device.id for device in host.devices] for host in hosts]
    for found in subset_problems(chip, ids):
        yield Problem(("hosts", found.server, "devices"), found.what, found.expected, found.remedy)
    for i, host in enumerate(hosts):
        unknown = [device.id for device in host.devices or () if device.ip is None]
        if chip.is_ascend and len(hosts) > 1 and unknown and not has_table:
            what = f"no IP address for device {', '.join(map(str, unknown))}"
            expected = "the IP address of every device where there are several servers"
            first = unknown[0]
            remedy = f"write `{{{first}: 192.1.27.6, ...}}` with what `hccn_tool -i {first} -ip -g` shows"
            yield Problem(("hosts", i, "devices"), what, expected, remedy)
        if not chip.is_ascend and any(device.ip for device in host.devices or ()):
            where: Where = ("hosts", i, "devices")
            yield Problem(where, "a CPU worker has no address", "a number of workers", "write the number")


def reserve_problems(chip: Chip, hosts: Sequence[Host], spares: int) -> Iterator[Problem]:
    """Whether the chip lets a job use all devices but the spares. For hosts without problems."""
    servers = [[device.id for device in host.devices] for host in hosts]
    total = sum(map(len, servers))
    if choose(chip, servers, total - spares) is None:
        fewer = next(count for count in range(total - spares, 0, -1) if choose(chip, servers, count))
        what = f"leaves {total - spares} of {total} devices, which {chip.product} does not use together"
        yield Problem(("spares",), what, f"for example {total - fewer}", "keep another number in reserve")


def _duplicates(what: str, values: Iterable[Tuple[Where, Optional[str]]]) -> Iterator[Problem]:
    first: Dict[str, Where] = {}
    for where, value in values:
        if value is not None and first.setdefault(value, where) != where:
            yield Problem(
                where,
                f"{value} is also the {what} at {name_of(first[value])}",
                f"every {what} once",
                "correct one of them",
            )


def _loopback_among_others(addresses: Sequence[Tuple[Where, Optional[str]]]) -> Iterator[Problem]:
    """All on loopback is one machine that plays several hosts; one alone cannot be reached by the others."""
    known = [(where, value) for where, value in addresses if value is not None]
    loopback = [(where, value) for where, value in known if ipaddress.ip_address(value).is_loopback]
    if len(loopback) < len(known):
        for where, value in loopback:
            what = f"{value} is the loopback address, which the other hosts cannot connect to"
            remedy = "write the address of this host in the network that the hosts share"
            yield Problem(where, what, "an address that every host can reach", remedy)


def _mixed_families(whose: str, values: Iterable[Tuple[Where, Optional[str]]]) -> Iterator[Problem]:
    """HCCL refuses IPv4 and IPv6 in one job (EI0001). The first address decides; the first other is told."""
    known = [(where, ipaddress.ip_address(value)) for where, value in values if value is not None]
    for where, address in known:
        if address.version != known[0][1].version:
            what = f"{address} is IPv{address.version}, but {known[0][1]} at {name_of(known[0][0])} is not"
            yield Problem(
                where, what, f"one IP family for all {whose} addresses", "write all as IPv4 or as IPv6"
            )
            return
