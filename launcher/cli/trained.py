"""What the verbs that use a trained network share: which run, which checkpoint, which devices."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import click

from launcher.cli.common import option
from launcher.cluster import cluster_from, load_cluster
from launcher.errors import ExitCode, UserError
from launcher.trainer import call

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster
    from launcher.run import Run

CLUSTER_OF_A_LONE_FILE = "1xcpu.yaml"  # runs on every machine


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the devices to use it on; `arguments` name it to the trainer's check."""

    cluster: Cluster
    arguments: List[str]


def trained_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--run, --ckpt and --best, which choose the checkpoint."""
    for decorate in (
        click.option("--best", is_flag=True, help="The run's best checkpoint in place of its newest."),
        click.option(
            "--ckpt", metavar="FILE", help="This checkpoint; on one CPU worker unless --cluster is given."
        ),
        click.option(
            "--run", "run_name", metavar="RUN", help="Its newest checkpoint.  [default: the newest run]"
        ),
    ):
        command = decorate(command)
    return command


def find_trained(
    settings: Any,
    run_name: Optional[str],
    ckpt: Optional[str],
    best: bool,
    config: Optional[str],
    overrides: Tuple[str, ...],
) -> Trained:
    """The checkpoint that the options choose, or the `ckpt_file` of the configuration. Raises UserError."""
    from launcher.run import BEST, CHECKPOINTS, find_run

    is_set = any(item.startswith("ckpt_file=") for item in overrides)
    if ckpt and is_set:
        raise UserError("--ckpt and --set ckpt_file: give one of them")
    place = "--ckpt"
    if ckpt is None and (config or is_set):
        words = [*option("--config", config), *(f"--set={item}" for item in overrides)]
        ckpt = call("fcn.check", ["checkpoint", *words])["ckpt_file"] or None
        place = f"ckpt_file {ckpt} of the configuration (`--set ckpt_file=` leaves it out)"
    if ckpt is not None:
        if run_name or best:
            raise UserError(f"{'--run' if run_name else '--best'} and {place}: give one of them")
        return Trained(load_cluster(settings.cluster or CLUSTER_OF_A_LONE_FILE), [f"--set=ckpt_file={ckpt}"])
    folder = BEST if best else CHECKPOINTS
    run = find_run(settings.runs_dir, run_name, verb="train", needs=folder)
    words = ["--run", str(run.path), "--checkpoints", str(run.path / folder)]
    return Trained(cluster_for(settings.cluster, run), words)


def cluster_for(name: Optional[str], run: Run) -> Cluster:
    """The cluster that is named, or that of the run. Raises UserError."""
    if name is not None:
        return load_cluster(name)
    record = run.record()["cluster"]
    return cluster_from({k: v for k, v in record.items() if k != "source"}, record["source"])


def run_on(cluster: Cluster, verb: str, answer: Dict[str, Any], as_json: bool) -> Tuple[Run, ExitCode]:
    """Run what the trainer's check has answered for the verb, as a new run."""
    from launcher.console import make_console
    from launcher.launch import launch
    from launcher.run import Run

    root = Path(answer["config"]["train_dir"])
    run = Run.create(root, cluster, verb, sys.argv, answer["config"], answer["data"], answer["options"])
    return run, launch(run, cluster, ("-m", "fcn.worker", verb), verb, make_console(as_json))
