"""`fcn-launch plan`: what `train` would execute, without starting anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional

import click

from launcher.cli.common import need_cluster
from launcher.cli.train import WORKER_COMMAND
from launcher.cluster import load_cluster
from launcher.cluster_types import Cluster
from launcher.plan import make_plan
from launcher.plan_types import HostFacts, Job, Plan
from launcher.selection import reserve_notes, select

NEW_RUN = "runs/NEW-RUN"  # stands for the run folder, which only `train` makes


@click.command()
@click.option("--out", metavar="DIR", help="Write the plan's files to this new or empty folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
@click.pass_obj
def plan(settings: Any, out: Optional[str], as_json: bool) -> None:
    """Show the ranks, environments, commands and the rank table of a run on --cluster, and start nothing."""
    whole = load_cluster(need_cluster(settings.cluster))
    cluster = select(whole)
    folder = None if out is None else str(Path(out).resolve())
    job = Job("train", folder or NEW_RUN, WORKER_COMMAND, plan_dir=folder)
    planned = make_plan(cluster, job, observe(cluster))
    planned = replace(planned, notes=(*planned.notes, *reserve_notes(whole)))
    if folder is not None:
        from launcher.plan_files import write_plan

        write_plan(planned, Path(folder))
    if as_json:
        click.echo(json.dumps(planned.to_dict(), indent=2))
    else:
        click.echo(describe(cluster, planned, folder))


def observe(cluster: Cluster) -> Dict[str, HostFacts]:
    """Facts of the hosts that can be asked without starting an agent: this machine, for engine local."""
    if cluster.engine != "local":
        return {}
    from launcher.agent.observe import facts

    host = cluster.hosts[0]
    unknown = tuple(device.id for device in host.devices if cluster.chip.is_ascend and device.ip is None)
    known = facts(cluster.master_port, unknown, bind=cluster.bind_cpus)
    if cluster.chip.is_ascend:
        from launcher.devices import logical_ids

        known["logical"] = logical_ids()
    return {host.name: HostFacts.from_dict(known)}


def describe(cluster: Cluster, planned: Plan, folder: Optional[str]) -> str:
    """The plan for a person: ranks, then rank 0's command and environment."""
    from launcher.plan_files import ranks_text

    first = next(process for process in planned.processes if process.rank == 0)
    meeting = f"rendezvous {planned.rendezvous}"
    if planned.master_address:
        meeting += f" at {planned.master_address}:{planned.master_port or 'a free port'}"
    lines = [
        f"{cluster.source}: {planned.world_size} x {cluster.device_kind}, {meeting}",
        "",
        ranks_text(planned),
        f"{first.name} on {first.host} runs: {' '.join(first.argv)}",
        *(f"  {name}={value}" for name, value in first.env.items()),
        "",
        *(f"note: {note}" for note in planned.notes),
        f"files: {folder}"
        if folder
        else "no files written: --out DIR writes the rank table and each rank's environment",
    ]
    return "\n".join(lines)
