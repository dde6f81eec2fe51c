"""`fcn-launch config`: every key of the trainer's configuration."""

from __future__ import annotations

from typing import Optional, Tuple

import click

from launcher import trainer
from launcher.cli.common import option, trainer_options


@click.command()
@trainer_options
def config(config: Optional[str], overrides: Tuple[str, ...]) -> None:
    """Print every key of the configuration with its value and its meaning, as a file that --config reads.

    Without options: the defaults, which are the original project's.
    """
    sets = [f"--set={item}" for item in overrides]
    answer = trainer.call("fcn.config_file", [*option("--config", config), *sets])
    for warning in answer["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(answer["text"], nl=False)
