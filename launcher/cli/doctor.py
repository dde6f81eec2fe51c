"""`fcn-launch doctor`: what is wrong with the machines, before a training finds out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Sequence, Tuple

import click

from launcher.cli.common import need_cluster
from launcher.cluster import load_cluster
from launcher.cluster_types import Cluster
from launcher.errors import ExitCode


@click.command()
@click.option(
    "--data", "data", multiple=True, metavar="PATH", help="What must be readable on every host; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor(settings: Any, data: Tuple[str, ...], as_json: bool) -> None:
    """Look at every host of --cluster at once: devices, network cards, ports, versions, disk, memory.

    Exits with 3 where something would keep a training from starting or make it hang.
    """
    from launcher.doctor import judge, names
    from launcher.doctor.ask import ask, requests

    cluster = load_cluster(need_cluster(settings.cluster))
    begin = time.monotonic()
    paths = [
        str(Path(path).absolute()) for path in data
    ]  # the same on all hosts, whatever folder they begin in
    asked = requests(cluster, str(settings.runs_dir.absolute()), paths)
    findings = judge(ask(cluster, asked, names(cluster.chip.is_ascend)))
    seconds = time.monotonic() - begin
    if as_json:
        told = [finding._asdict() for finding in findings]
        click.echo(json.dumps({"findings": told, "seconds": round(seconds, 3)}, indent=1))
    else:
        click.echo(describe(cluster, findings, seconds))
    sys.exit(ExitCode.PREFLIGHT if any(finding.fatal for finding in findings) else ExitCode.DONE)


def describe(cluster: Cluster, findings: Sequence[Any], seconds: float) -> str:
    """The findings for a person: what, what it causes, what to do."""
    from launcher.doctor.check import merged

    lines = []
    for finding in merged(findings):
        lines += [
            f"{'FAIL' if finding.fatal else 'warn'}  {finding.culprit}: {finding.what}",
            f"      causes: {finding.causes}",
            f"      remedy: {finding.remedy}",
        ]
    fatal = sum(finding.fatal for finding in findings)
    hosts = "1 host" if len(cluster.hosts) == 1 else f"{len(cluster.hosts)} hosts"
    devices = sum(len(host.devices) for host in cluster.hosts)
    told = f"{fatal} failed, {len(findings) - fatal} warnings" if findings else "all is well"
    return "\n".join([*lines, f"{hosts}, {devices} x {cluster.device_kind}: {told} ({seconds:.1f} s)"])
