"""`fcn-launch`: the options that every verb shares, and the verbs."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import click

from launcher.errors import ExitCode, LaunchError

# A verb is `launcher/cli/VERB.py`, `_` for `-`, imported when it is used: --help must not wait for it.
VERBS = {
    "train": "Train on every device of the cluster.",
    "resume": "Go on with a training that was interrupted.",
    "eval": "Score a checkpoint: mean IoU over a validation list.",
    "predict": "Masks, overlays and probabilities of images.",
    "export": "Write a trained network as ONNX, MindIR or AIR.",
    "bench": "Time training steps: images/s, TFLOPS, waiting for data.",
    "config": "Show every key of the configuration, its value and its meaning.",
    "discover": "Ask hosts for their devices; print a cluster file.",
    "doctor": "Look for what is wrong with the machines of a cluster.",
    "plan": "Show what train would execute; start nothing.",
    "rank-table": "Show, check, merge and convert rank tables of HCCL.",
    "logs": "Show what the workers wrote.",
    "diagnose": "Explain the logs of a failed job, of any job: first cause, what to do.",
    "data": "Make data sets, and look into them.",
}


_FUNCTIONS = {"eval": "eval_"}  # the verb's name is taken in Python


@dataclass(frozen=True)
class Settings:
    """The shared options."""

    cluster: Optional[str]
    runs: Optional[str]

    @property
    def runs_dir(self) -> Path:
        """The folder in which runs are looked for."""
        return Path(self.runs or "runs")


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in VERBS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"launcher.cli.{name}")
        command: click.Command = getattr(module, _FUNCTIONS.get(name, name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cluster", metavar="FILE", help="Cluster file: a path, or a shipped one such as 2xcpu.yaml.")
@click.option("--runs", metavar="DIR", help="Folder of the run directories.  [default: runs]")
@click.pass_context
def cli(context: click.Context, cluster: Optional[str], runs: Optional[str]) -> None:
    """Train FCN-8s on every device of a cluster: Ascend servers, or the CPUs of one machine.

    \b
    fcn-launch --cluster 2xcpu.yaml train --config demo --set data_file=demo/train.mindrecord
    fcn-launch eval
    fcn-launch logs --rank 0

    \b
    Exit codes: 0 done, 2 usage or a bad file, 3 machines not ready, 4 the training
    code failed, 5 the infrastructure failed, 6 hang, 7 no progress in several
    attempts, 75 preempted, 130 stopped by the user.
    """
    context.obj = Settings(cluster, runs)


def main() -> None:
    """The entry point: every error of ours is one message and its exit code."""
    try:
        cli.main(prog_name="fcn-launch", standalone_mode=False)
    except LaunchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.STOPPED)
