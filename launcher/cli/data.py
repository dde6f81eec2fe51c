"""`fcn-launch data`: make data sets. The work is the trainer's, `python -m fcn.data`."""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, Tuple

import click

from launcher import trainer

_MODULE = "fcn.data"

# Options are the trainer's own, its --help among them; only --json is taken here.
_FORWARD = {"ignore_unknown_options": True, "help_option_names": []}
_DATA_SET = "{data_file}: {samples:,} samples in {files}, {megabytes:,.1f} MB, fingerprint {fingerprint:.12}"


@click.group()
def data() -> None:
    """Make data sets."""


@data.command(
    "build", context_settings=_FORWARD, short_help="MindRecord files from a list of images and masks"
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def build(args: Tuple[str, ...], as_json: bool) -> None:
    """Check every sample of a list and write MindRecord files with a manifest."""
    _print(_ask("build", args), as_json)


@data.command("make-demo", context_settings=_FORWARD, short_help="Draw a small labelled set")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def make_demo(args: Tuple[str, ...], as_json: bool) -> None:
    """Draw images of shapes with their masks, and build a data set of them."""
    answer = _ask("make-demo", args)
    _print(answer, as_json)
    if not as_json:
        click.echo(f"validation: --root {answer['root']} --list {answer['val_list']}")


def _ask(verb: str, args: Tuple[str, ...]) -> Dict[str, Any]:
    if {"-h", "--help"} & set(args):
        sys.exit(trainer.show_help(_MODULE, [verb, "--help"]))
    return trainer.call(_MODULE, [verb, *args])


def _print(answer: Dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    files = f"{answer['shards']} file{'s' if answer['shards'] > 1 else ''}"
    click.echo(_DATA_SET.format(files=files, megabytes=answer["bytes"] / 1e6, **answer))
    labelled = sum(answer["class_pixels"])
    total = labelled + answer["ignored_pixels"]
    shares = [
        f"{label}: {pixels / total:.1%}" for label, pixels in enumerate(answer["class_pixels"]) if pixels
    ]
    click.echo(f"pixels by class  {'  '.join(shares)}  ignored: {answer['ignored_pixels'] / total:.1%}")
