"""Checks that the machines are as the cluster file says, before anything is started.

A check is a function (cluster, facts) -> findings; adding one is writing it, naming it in CHECKS, and a test.
What a host did not report is unknown, and is not held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from launcher.cluster import Cluster, Host
from launcher.errors import PreflightError
from launcher.plan import HostFacts


@dataclass(frozen=True)
class Finding:
    """`host`, or a `device` on it: the culprit. `what`: what is wrong. `remedy`: what to do."""

    host: str
    what: str
    remedy: str
    device: Optional[int] = None

    def __str__(self) -> str:
        culprit = self.host if self.device is None else f"{self.host} device {self.device}"
        return f"{culprit}: {self.what}; {self.remedy}"


Check = Callable[[Cluster, Mapping[str, HostFacts]], Iterator[Finding]]


def compare(cluster: Cluster, facts: Mapping[str, HostFacts]) -> List[Finding]:
    """Everything in which the hosts' facts (by host name) contradict the cluster file."""
    return [finding for check in CHECKS for finding in check(cluster, facts)]


def require_ready(cluster: Cluster, facts: Mapping[str, HostFacts]) -> None:
    """Raises PreflightError with all findings, one a line."""
    findings = compare(cluster, facts)
    if findings:
        raise PreflightError("\n".join(map(str, findings)), findings[0].host, findings[0].device)


def _hosts_with_devices(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Tuple[Host, HostFacts]]:
    """The hosts that are to give Ascend devices, and have some."""
    for host in cluster.hosts:
        if cluster.chip.is_ascend and host.name in facts and not _has_none(facts[host.name]):
            yield host, facts[host.name]


def _has_none(facts: HostFacts) -> bool:
    return facts.devices == () and not facts.device_ips


def no_ascend_devices(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for host in cluster.hosts:
        if cluster.chip.is_ascend and host.name in facts and _has_none(facts[host.name]):
            yield Finding(
                host.name,
                "has no Ascend devices (no /dev/davinci*, no answer from hccn_tool), but "
                f"{cluster.source} wants {len(host.devices)} of kind {cluster.device_kind}",
                "name another host, or use device_kind cpu; in a container, pass the devices in",
            )


def device_absent(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for host, known in _hosts_with_devices(cluster, facts):
        for device in host.devices:
            if known.devices is not None and device.id not in known.devices:
                present = ", ".join(map(str, known.devices)) or "none"
                yield Finding(
                    host.name,
                    f"is not there (no /dev/davinci{device.id}; there are: {present})",
                    f"correct the devices of {host.name} in {cluster.source}",
                    device.id,
                )


def device_ip_differs(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for host, known in _hosts_with_devices(cluster, facts):
        for device in host.devices:
            reported = known.device_ips.get(device.id)
            if device.ip is not None and reported is not None and reported != device.ip:
                yield Finding(
                    host.name,
                    f"has the address {reported}, but {cluster.source} says {device.ip}",
                    "correct the file, or the card with `hccn_tool -i "
                    f"{device.id} -ip -s address {device.ip} netmask MASK`",
                    device.id,
                )


def host_names_equal(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    """MindSpore counts a worker's device from 0 among those of the same host name."""
    first: Dict[str, str] = {}
    for host in cluster.hosts:
        hostname = facts[host.name].hostname if host.name in facts else None
        if (
            cluster.rendezvous == "scheduler"
            and hostname
            and first.setdefault(hostname, host.name) != host.name
        ):
            yield Finding(
                host.name,
                f"calls itself {hostname!r}, as {first[hostname]} does",
                "give each host a name of its own with `hostnamectl set-hostname`",
            )


CHECKS: Tuple[Check, ...] = (no_ascend_devices, device_absent, device_ip_differs, host_names_equal)
