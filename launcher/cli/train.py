"""`fcn-launch train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Optional, Tuple

import click

from launcher.cli.common import (
    check,
    json_option,
    leave_when_preempted,
    need_cluster,
    option,
    restarts_option,
    trainer_options,
)
from launcher.cluster import load_cluster
from launcher.inject import DEFAULT_STEP, FAULTS, parse
from launcher.retry import Limits

WORKER_COMMAND = ("-m", "fcn.worker", "train")


@click.command()
@trainer_options
@click.option("--device-id", type=int, metavar="N", help="Train on this device of the first host alone.")
@restarts_option
@click.option(
    "--inject",
    "fault",
    metavar="FAULT[@step][:rank]",
    help=f"Rehearse a failure: {', '.join(FAULTS)}.  [default: before step {DEFAULT_STEP} of the last rank]",
)
@json_option
@click.pass_obj
def train(
    settings: Any,
    config: Optional[str],
    overrides: Tuple[str, ...],
    device_id: Optional[int],
    max_restarts: int,
    fault: Optional[str],
    as_json: bool,
) -> None:
    """Train on every device of --cluster, as a new run.

    The data set is `data_file`, a MindRecord file that `fcn-launch data build` makes.
    """
    from launcher.console import make_console
    from launcher.launch import launch
    from launcher.run import Run

    leave_when_preempted()
    cluster = load_cluster(need_cluster(settings.cluster))
    if device_id is not None:
        cluster = cluster.only_device(device_id)
    injection = None if fault is None else parse(fault, cluster)
    overrides += (f"train_dir={settings.runs}",) if settings.runs else ()
    arguments = [*option("--config", config), *option("--world-size", cluster.world_size)]
    answer = check("train", [*arguments, *option("--platform", cluster.chip.platform)], overrides)
    for line in answer["data"]["weights"]:
        click.echo(line, err=True)
    root = Path(answer["config"]["train_dir"])
    run = Run.create(root, cluster, "train", sys.argv, answer["config"], answer["data"], answer["options"])
    limits, global_batch = Limits(max_restarts), answer["config"]["global_batch"]
    console = make_console(as_json)
    sys.exit(launch(run, cluster, WORKER_COMMAND, "train", console, injection, limits, global_batch))
