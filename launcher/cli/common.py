"""What the verbs that start workers share."""

from __future__ import annotations

import signal
import sys
from typing import Any, Callable, Dict, List, Sequence

import click

from launcher import trainer
from launcher.errors import ExitCode, UserError
from launcher.retry import REFILL_STEPS


def trainer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --set, which are the trainer's to understand."""
    command = set_option(command)
    return click.option("--config", metavar="FILE", help="Configuration: a YAML file or a shipped recipe.")(
        command
    )


def set_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--set alone, where the configuration is a run's."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a key of the configuration; repeatable.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line.")(command)


def restarts_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--max-restarts of a training."""
    return click.option(
        "--max-restarts",
        type=click.IntRange(0),
        default=10,
        show_default=True,
        metavar="N",
        help="Restarts after a failure of the infrastructure or a hang; an attempt that gets "
        f"{REFILL_STEPS} steps further gives all of them back. 0: none.",
    )(command)


def leave_when_preempted() -> None:
    """Have the signals of a preemption end this process with 75, until a launch answers them itself."""
    from launcher.policy import PREEMPTING

    for number in PREEMPTING:
        signal.signal(number, lambda *_: sys.exit(ExitCode.PREEMPTED))


def check(verb: str, arguments: Sequence[str], overrides: Sequence[str]) -> Dict[str, Any]:
    """Have the trainer check everything that it can before a worker is started; print its warnings."""
    sets = [f"--set={item}" for item in overrides]
    answer = trainer.call("fcn.check", [verb, *arguments, *sets])
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    return answer


def option(name: str, value: Any) -> List[str]:
    """An option of the trainer's command line, or nothing where there is no value."""
    return [] if value is None else [f"{name}={value}"]


def need_cluster(name: Any) -> str:
    """The --cluster that was given, or an error that lists the shipped files.

    Raises UserError too where a job of MindCluster or ModelArts has started several launchers.
    """
    from launcher.cluster import shipped_clusters
    from launcher.job_environment import require_one_launcher

    require_one_launcher()
    if name is None:
        raise UserError(
            "no cluster is named; write `fcn-launch --cluster FILE VERB`, FILE a path or one of "
            + ", ".join(shipped_clusters())
        )
    return str(name)
