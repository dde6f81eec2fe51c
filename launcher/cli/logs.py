"""`fcn-launch logs`: what the workers wrote."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Dict, List, Optional

import click

from launcher.errors import UserError
from launcher.logfile import Follower, merged
from launcher.run import Attempt, Run, find_run

LOOK_EVERY_S = 0.2  # for new lines


@click.command()
@click.argument("run", required=False)
@click.option("--rank", type=int, help="Only the log of this rank.")
@click.option("--attempt", type=int, help="The logs of this attempt; default: the newest.")
@click.option(
    "--merge", is_flag=True, help="One stream by the time stamps in the lines, the rank before each."
)
@click.option("--follow", is_flag=True, help="Goes on until the run has ended; lines as they come.")
@click.pass_context
def logs(
    context: click.Context,
    run: Optional[str],
    rank: Optional[int],
    attempt: Optional[int],
    merge: bool,
    follow: bool,
) -> None:
    """Print the logs of RUN, a run directory or its name; default: the newest run.

    With --merge a line without a time stamp stays behind the line before it, and logs that have none come one
    after the other.
    """
    found = find_run(context.obj.runs_dir, run)
    if follow:
        _follow(found, rank, attempt)
        return
    paths = _logs(_attempt(found, attempt), rank)
    if merge:
        for name, line in merged((path.stem, str(path)) for path in paths):
            click.echo(f"[{name}] {line}")
        return
    for path in paths:
        if len(paths) > 1:
            click.echo(f"==> {path} <==")
        for line in Follower(str(path)).new_lines(at_end=True):
            click.echo(line)


def _attempt(run: Run, number: Optional[int]) -> Attempt:
    attempts = run.attempts()
    if not attempts:
        raise UserError(f"{run.path}: has no attempt yet, so no logs")
    if number is None:
        return attempts[-1]
    for attempt in attempts:
        if attempt.number == number:
            return attempt
    raise UserError(f"{run.path}: has no attempt {number}; expected 1 to {attempts[-1].number}")


def _logs(attempt: Attempt, rank: Optional[int]) -> List[Path]:
    paths = attempt.logs()
    if not paths:
        raise UserError(
            f"{attempt.folder}: no process was started, so no logs; events.jsonl beside it says why"
        )
    wanted = _of_rank(paths, rank)
    if rank is not None and not wanted:
        there = ", ".join(path.name for path in paths)
        raise UserError(f"{attempt.folder}: has no log of rank {rank}; there are: {there}")
    return wanted


def _of_rank(paths: List[Path], rank: Optional[int]) -> List[Path]:
    return [path for path in paths if rank is None or _rank(path) == rank]


def _rank(log: Path) -> Optional[int]:
    """The rank whose log this is; names have as many digits as the largest rank needs."""
    match = re.fullmatch(r"rank-(\d+)\.log", log.name)
    return int(match.group(1)) if match else None


def _follow(run: Run, rank: Optional[int], number: Optional[int]) -> None:
    """From the newest attempt on, or of the one with this number."""
    first = _attempt(run, number)
    followers: Dict[Path, Follower] = {}
    while True:
        ended = run.is_running() is False  # looked at first: what was written before it is still shown
        attempts = [a for a in run.attempts() if a.number >= first.number] if number is None else [first]
        for attempt in attempts:
            at_end = ended or attempt is not attempts[-1]
            _show_new(_of_rank(attempt.logs(), rank), followers, rank is None, at_end)
        if ended:
            _logs(attempts[-1], rank)  # says so where there are none
            return
        time.sleep(LOOK_EVERY_S)


def _show_new(paths: List[Path], followers: Dict[Path, Follower], with_name: bool, at_end: bool) -> None:
    for path in paths:
        follower = followers.setdefault(path, Follower(str(path)))
        for line in follower.new_lines(at_end=at_end):
            click.echo(f"[{path.stem}] {line}" if with_name else line)
