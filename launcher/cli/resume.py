"""`fcn-launch resume`."""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click

from launcher.cli.common import (
    check,
    json_option,
    leave_when_preempted,
    option,
    restarts_option,
    set_option,
)
from launcher.cli.train import WORKER_COMMAND
from launcher.cli.trained import cluster_for
from launcher.cluster_types import Cluster
from launcher.errors import ExitCode, UserError
from launcher.retry import Limits
from launcher.run import Run, find_interrupted


@click.command()
@click.argument("run_name", metavar="[RUN]", required=False)
@set_option
@restarts_option
@json_option
@click.pass_obj
def resume(
    settings: Any, run_name: Optional[str], overrides: Tuple[str, ...], max_restarts: int, as_json: bool
) -> None:
    """Go on with a training that was interrupted, from its newest checkpoint that is whole.

    Without RUN: the newest one that is neither finished nor running. It goes on in its own directory, on its
    own cluster or on --cluster, to the bits that it would have ended with. --set takes what does not change
    them, such as save_steps or the new path of the same data, and more train_epochs.
    """
    from launcher.console import make_console
    from launcher.launch import launch
    from launcher.run_lock import owned

    leave_when_preempted()
    run = find_interrupted(settings.runs_dir, run_name)
    with owned(run.path):
        if run.is_finished() and not overrides:
            sys.exit(_finished(run))
        cluster = cluster_for(settings.cluster, run)
        _require_platform(run, cluster)
        devices = [*option("--world-size", cluster.world_size), *option("--platform", cluster.chip.platform)]
        answer = check("resume", [f"--run={run.path}", *devices], overrides)
        if run.is_finished() and answer["step"] >= answer["total_steps"]:
            sys.exit(_finished(run))
        for line in answer["lines"]:
            click.echo(line, err=True)
        _note(run, cluster, answer)
        limits, global_batch = Limits(max_restarts), answer["config"]["global_batch"]
        console = make_console(as_json)
        sys.exit(launch(run, cluster, WORKER_COMMAND, "train", console, None, limits, global_batch))


def _finished(run: Run) -> ExitCode:
    newest = next(iter(run.checkpoints()), None)
    what = f"; its last checkpoint is {newest.path}, of step {newest.step}" if newest else ""
    click.echo(f"{run.path}: is finished{what}; --set train_epochs=N trains on", err=True)
    return ExitCode.DONE


def _require_platform(run: Run, cluster: Cluster) -> None:
    before = cluster_for(None, run)
    if cluster.chip.platform != before.chip.platform:
        raise UserError(
            f"{cluster.source}: device_kind {cluster.device_kind}: {run.path} was trained on "
            f"{before.device_kind}, in another precision; give a cluster of that kind, or start another run "
            "with ckpt_pre_trained"
        )


def _note(run: Run, cluster: Cluster, answer: Mapping[str, Any]) -> None:
    """Has the journal hold what is changed, then run.yaml what the workers are to read."""
    before = run.record()
    now = {"source": cluster.source, **cluster.to_dict()}
    changes: Dict[str, List[Any]] = {
        key: [before["config"].get(key), value]
        for key, value in answer["config"].items()
        if before["config"].get(key) != value
    }
    if before["cluster"] != now:
        changes["cluster"] = [before["cluster"]["source"], cluster.source]
    event = {"event": "resume", "time_ns": time.time_ns(), "command": sys.argv, "step": answer["step"]}
    try:
        run.journal({**event, "changes": changes})
    except OSError as error:
        raise UserError(f"{run.path}: can not be written: {error}; make room, or see to the disk") from None
    run.change(config=answer["config"], cluster=now)
