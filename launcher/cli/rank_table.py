"""`fcn-launch rank-table`: look into rank tables of HCCL, check, merge and convert them."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Optional, Tuple

import click

from launcher import rank_table_file, rank_table_forms
from launcher.chips import CHIPS, Chip
from launcher.errors import UserError
from launcher.rank_table import RankTable, merge

_KINDS = [kind for kind, chip in CHIPS.items() if chip.is_ascend]
_FILES = click.argument("files", metavar="FILE...", nargs=-1, required=True)
_KIND = click.option("--kind", type=click.Choice(_KINDS), help="Kind of device: adds what its chip demands.")
_OUT = click.option(
    "--out", metavar="FILE", help="Write it there, replacing the file as a whole.  [default: print]"
)


@click.group("rank-table")
def rank_table() -> None:
    """Show, check, merge and convert rank tables of HCCL: versions 1.0, 1.2, 2.0 and the old group_list."""


@rank_table.command()
@_FILES
def show(files: Tuple[str, ...]) -> None:
    """Print rank -> host -> device -> address."""
    from launcher.plan_files import columns

    for file in files:
        table = rank_table_file.read(Path(file))
        click.echo(f"{file}: {_summary(table)}")
        cells = [
            (str(rank.rank_id), server.server_id, str(rank.device_id), rank.device_ip or "-")
            for server, rank in table.by_rank()
        ]
        click.echo("\n" + columns([("RANK", "HOST", "DEVICE", "ADDRESS"), *cells]))


@rank_table.command()
@_FILES
@_KIND
def check(files: Tuple[str, ...], kind: Optional[str]) -> None:
    """Tell every broken rule with its field, value and remedy; exit code 2 if there is one."""
    problems = []
    for file in files:
        try:
            table = _read(file, _chip(kind))
            click.echo(f"{file}: good, {_summary(table)}")
            if not table.is_in_order:
                what = "MindSpore's guide wants ranks in the dictionary order of server ids, per super pod"
                click.echo(f"note: {file}: {what}; `rank-table merge {file}` numbers them so")
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


@rank_table.command("merge")
@_FILES
@_OUT
@_KIND
def merge_tables(files: Tuple[str, ...], out: Optional[str], kind: Optional[str]) -> None:
    """One table of several servers' tables, ranks numbered anew; what two of them both have is refused."""
    if len(set(files)) < len(files):
        raise UserError("a file is named twice; name each once")
    table = merge({file: _read(file, None) for file in files})
    values = rank_table_file.checked("the merged table", rank_table_forms.render(table), _chip(kind))
    _write(rank_table_forms.to_text(values), out)


@rank_table.command()
@click.argument("file")
@_OUT
@_KIND
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="SERVER=IP",
    help="Of a host that the table only names; repeatable.",
)
def convert(file: str, out: Optional[str], kind: Optional[str], addresses: Tuple[str, ...]) -> None:
    """A cluster file of a rank table, or the rank table of a cluster file, without loss.

    From a table: --kind is needed where chips of several kinds read its version.
    """
    if Path(file).suffix in (".yaml", ".yml"):
        _write(_table_of_cluster(file), out)
    else:
        _write(_cluster_of_table(file, kind, _pairs(addresses)), out)


def _table_of_cluster(file: str) -> str:
    from launcher.cluster import load_cluster
    from launcher.conversion import rank_table_of

    cluster = load_cluster(file)
    values = rank_table_forms.render(rank_table_of(cluster))
    return rank_table_forms.to_text(rank_table_file.checked(f"the table of {file}", values, cluster.chip))


def _cluster_of_table(file: str, kind: Optional[str], addresses: Dict[str, str]) -> str:
    import yaml

    from launcher.cluster import cluster_from
    from launcher.conversion import cluster_values

    table = _read(file, _chip(kind))
    if kind is None:
        kinds = [known for known in _KINDS if table.version in CHIPS[known].table_versions]
        if len(kinds) > 1:
            raise UserError(
                f"{file}: version {table.version} is read by {', '.join(kinds)}; "
                "name the devices' kind with --kind"
            )
        kind = kinds[0]
    values = cluster_values(table, kind, addresses)
    cluster_from(values, f"the cluster file of {file}")
    return yaml.safe_dump(values, sort_keys=False)


def _pairs(addresses: Tuple[str, ...]) -> Dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in addresses)
    for server, address in pairs.items():
        if not (server and address):
            raise UserError(f"--address {server}: expected SERVER=IP; write for example node_0=10.0.0.1")
    return pairs


def _read(file: str, chip: Optional[Chip]) -> RankTable:
    """A table of a file that HCCL itself could be given."""
    if Path(file).suffix != ".json":
        raise UserError(
            f"{file}: HCCL reads no file of this name (EI0004); expected one that ends in .json; rename it"
        )
    return rank_table_file.read(Path(file), chip)


def _chip(kind: Optional[str]) -> Optional[Chip]:
    return None if kind is None else CHIPS[kind]


def _summary(table: RankTable) -> str:
    servers = f"{len(table.servers)} server" + ("s" if len(table.servers) > 1 else "")
    return f"version {table.version}, {table.world_size} ranks on {servers}"


def _write(text: str, out: Optional[str]) -> None:
    from launcher.files import write_atomic

    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_atomic(Path(out), text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}; name a file that can be") from None
