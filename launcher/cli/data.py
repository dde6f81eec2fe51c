"""`fcn-launch data`: make data sets, and look into them. The work is the trainer's, `python -m fcn.data`."""

from __future__ import annotations

import json
import sys
from typing import Any, Callable, Dict, List, Tuple

import click

from launcher import trainer
from launcher.errors import ExitCode

_MODULE = "fcn.data"

# Options are the trainer's own, its --help among them; only --json is taken here.
_FORWARD = {"ignore_unknown_options": True, "help_option_names": []}
_DATA_SET = "{data_file}: {samples:,} samples in {files}, {megabytes:,.1f} MB, fingerprint {fingerprint:.12}"

_Show = Callable[[Dict[str, Any]], List[str]]


@click.group()
def data() -> None:
    """Make data sets, and look into them."""


def _verb(name: str, short_help: str) -> Callable[[_Show], _Show]:
    """Make a verb of a function that puts the trainer's answer into lines of text."""

    def add(show: _Show) -> _Show:
        @data.command(name, context_settings=_FORWARD, short_help=short_help, help=show.__doc__)
        @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
        @click.argument("args", nargs=-1, type=click.UNPROCESSED)
        def command(args: Tuple[str, ...], as_json: bool) -> None:
            if {"-h", "--help"} & set(args):
                sys.exit(trainer.show_help(_MODULE, [name, "--help"]))
            answer = trainer.call(_MODULE, [name, *args])
            click.echo(json.dumps(answer) if as_json else "\n".join(show(answer)))
            sys.exit(ExitCode.USAGE if answer.get("bad") else ExitCode.DONE)

        return show

    return add


@_verb("build", "MindRecord files from a list of images and masks")
def build(answer: Dict[str, Any]) -> List[str]:
    """Check every sample of a list and write MindRecord files with a manifest."""
    total = sum(answer["class_pixels"]) + answer["ignored_pixels"]
    pixels = enumerate(answer["class_pixels"])
    shares = [f"{label}: {count / total:.1%}" for label, count in pixels if count]
    ignored = f"ignored: {answer['ignored_pixels'] / total:.1%}"
    return [_data_set(answer, answer["shards"]), f"pixels by class  {'  '.join([*shares, ignored])}"]


@_verb("voc", "PASCAL VOC 2012, alone or with SBD")
def voc(answer: Dict[str, Any]) -> List[str]:
    """Make the training and validation sets of PASCAL VOC 2012, and their lists."""
    return [*build(answer["train"]), *build(answer["val"]), _validation(answer)]


@_verb("make-demo", "Draw a small labelled set")
def make_demo(answer: Dict[str, Any]) -> List[str]:
    """Draw images of shapes with their masks, and build a data set of them."""
    return [*build(answer), _validation(answer)]


@_verb("info", "What a data set holds")
def info(answer: Dict[str, Any]) -> List[str]:
    """Show counts, image sizes, class frequencies and files, and write a contact sheet."""
    total = sum(row["pixels"] for row in answer["classes"]) + answer["ignored_pixels"]
    lines = [
        _data_set(answer, len(answer["shards"])),
        f"images are stored {'decoded' if answer['decoded'] else 'as the files they were'}",
    ]
    for side, size in answer["image_sizes"].items():
        lines.append(f"{side:<7} {size['min']:,} to {size['max']:,} pixels, median {size['median']:,.0f}")
    lines += ["", f"CLASS  {'NAME':<14}{'PIXELS':>16}{'SHARE':>8}{'IMAGES':>9}"]
    for row in answer["classes"]:
        share = f"{row['pixels'] / total:.2%}"
        lines.append(f"{row['label']:>5}  {row['name']:<14}{row['pixels']:>16,}{share:>8}{row['images']:>9,}")
    ignored = answer["ignored_pixels"]
    lines.append(f"{answer['ignore_label']:>5}  {'ignored':<14}{ignored:>16,}{f'{ignored / total:.2%}':>8}")
    lines += ["", *(_file(row) for row in answer["shards"]), f"contact sheet  {answer['sheet']}"]
    return lines


@_verb("verify", "Read every sample of a data set")
def verify(answer: Dict[str, Any]) -> List[str]:
    """Compare every sample of a data set with what was written; exit code 2 where one differs."""
    what = f"{answer['data_file']}: {answer['samples']:,} samples in {_files(answer['shards'])}"
    if not answer["bad"]:
        return [f"{what}, all as they were built, fingerprint {answer['fingerprint']:.12}"]
    lines = [f"{what}, not all as they were built:"]
    for row in answer["bad"]:
        sample = "" if row["id"] is None else f"sample {row['id']} ({row['name']}): "
        lines.append(f"  {row['file']}: {sample}{row['problem']}")
    return [*lines, f"build the data set again:\n  {answer['rebuild']}"]


def _data_set(answer: Dict[str, Any], shards: int) -> str:
    values = {**answer, "files": _files(shards), "megabytes": answer["bytes"] / 1e6}
    return _DATA_SET.format(**values)


def _files(count: int) -> str:
    return f"{count} file{'s' if count > 1 else ''}"


def _file(row: Dict[str, Any]) -> str:
    return f"{row['file']}  {row['samples']:,} samples, {row['bytes'] / 1e6:,.1f} MB"


def _validation(answer: Dict[str, Any]) -> str:
    return f"validation: --root {answer['root']} --list {answer['val_list']}"
