"""`fcn-launch discover`: which devices hosts have, as a cluster file."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Any, List, Optional

import click

from launcher.cluster_types import Cluster, Device, Host
from launcher.errors import PreflightError, UserError

LOCAL = "127.0.0.1"
FACTS = ("npus", "device_ips", "address")


@click.command()
@click.option("--hosts", metavar="A,B", help="Names that `ssh NAME` reaches.  [default: this machine]")
def discover(hosts: Optional[str]) -> None:
    """Ask hosts for their Ascend devices and print a cluster file: fcn-launch discover > cluster.yaml.

    The same python and fcn-launch must be there at the same path. What the host's tools do not say clearly
    is refused, with exit code 3 and nothing printed.
    """
    from launcher.discovery import cluster_text, needs_table, unhealthy
    from launcher.doctor.ask import ask
    from launcher.doctor.check import Request

    names = [name.strip() for name in hosts.split(",")] if hosts is not None else []
    if not all(names) or len(set(names)) != len(names):
        raise UserError(f"--hosts {hosts}: expected names, each once; for example `--hosts node1,node2`")
    cluster = _to_ask(names)
    view = ask(cluster, {host.name: Request(address=LOCAL) for host in cluster.hosts}, FACTS)
    found = _found(cluster, view.facts, view.unknown)
    text = cluster_text(found)
    for name, ids in unhealthy(found).items():
        devices = ", ".join(map(str, ids))
        click.echo(f"warning: host {name}: npu-smi does not call device {devices} OK; leave it out", err=True)
    if needs_table(found):
        click.echo("note: a rank table is needed, which is not made here: see `rank_table` below", err=True)
    sys.stdout.write(text)


def _to_ask(names: List[str]) -> Cluster:
    """A cluster to ask by, with devices and addresses that are still to be found."""
    hosts = [Host(name, LOCAL, (Device(0),), ("ssh", name)) for name in names]
    local = Host(os.uname().nodename, LOCAL, (Device(0),))
    return Cluster("ascend910", tuple(hosts) or (local,), "exec" if names else "local", "scheduler")


def _found(cluster: Cluster, facts: Any, unknown: Any) -> List[Any]:
    """What discovery.py makes a file of. Raises PreflightError with the reasons of all that give none."""
    from launcher.discovery import Found, address_of

    found, problems = [], []
    for host in cluster.hosts:
        npus = facts[host.name].get("npus")
        if npus is None:
            why = unknown[host.name].get("npus", "there is no Ascend device (no /dev/davinci*)")
            problems.append(f"host {host.name}: {why}")
            continue
        ips = {int(device): ip for device, ip in facts[host.name].get("device_ips", {}).items()}
        try:
            main = facts[host.name].get("address", {}).get("main")
            address = address_of(host.name, _resolve(host.name) if host.prefix else None, main)
        except PreflightError as error:
            problems.append(str(error))
            continue
        found.append(Found(host.name, address, npus, ips, host.prefix))
    if problems:
        raise PreflightError("\n".join(problems))
    return found


def _resolve(name: str) -> Optional[str]:
    """The address that a host's name means here; a name of ~/.ssh/config alone means none."""
    try:
        return str(ipaddress.ip_address(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]))
    except (OSError, ValueError):
        return None
