"""`fcn-launch diagnose`: what the logs of a failed job say, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

import click

from launcher.catalogue import Role, catalogue
from launcher.diagnosis import spans
from launcher.errors import UserError
from launcher.explanation import Explanation, Process, explain, in_order
from launcher.known import PLOGS
from launcher.log_scan import logs_below, scan
from launcher.run import Attempt, Run, find_run

if TYPE_CHECKING:
    from launcher.log_scan import Found

UNEXPLAINED = 1  # exit code; no other verb has it
SHOWN_CHARACTERS = 240  # of a line of a log
ALSO_SHOWN = 2  # other errors of the process that failed first

Verdict = Dict[str, Any]


@click.command()
@click.argument("logs", nargs=-1, metavar="[LOG_OR_DIR]...", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known as JSON.")
@click.pass_context
def diagnose(context: click.Context, logs: Tuple[Path, ...], as_json: bool) -> None:
    """Explain the logs of a failed job: the first cause, the order of the ranks, what to do.

    Takes logs, folders of logs (of msrun, of CANN's plog, of any job), a run directory, of which it reads the
    newest attempt, or the folder of one attempt; default: the newest run. It reads only; nothing is stopped.

    Exit codes: 0 explained, 1 no known error was found (the last error lines are shown), 2 usage.
    """
    paths: List[Path] = []
    verdict: Optional[Verdict] = None
    for place in logs or (find_run(context.obj.runs_dir).path,):
        found, told = _logs_of(place)
        paths += found
        verdict = verdict or told
    try:
        scans = [scan(str(path), catalogue()) for path in dict.fromkeys(paths)]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    explanation = explain(scans, None if verdict is None else _name(verdict))
    if as_json:
        click.echo(json.dumps({"verdict": verdict, "logs": len(scans), **explanation.to_dict()}, indent=1))
    else:
        for line in _lines(explanation, verdict):
            click.echo(line)
    if explanation.first is None and verdict is None:
        context.exit(UNEXPLAINED)


def _logs_of(place: Path) -> Tuple[List[Path], Optional[Verdict]]:
    """The logs to read, and what the launcher itself has named as the first failure."""
    if place.is_file():
        return [place], None
    attempt, run = None, None
    if (place / "run.yaml").is_file():
        run = Run.open(place)
        attempt = next(reversed(run.attempts()), None)
    elif (place.absolute().parent / "run.yaml").is_file():
        run = Run.open(place.absolute().parent)
        attempt = next((a for a in run.attempts() if a.folder == place.absolute()), None)
    found = logs_below(place) if attempt is None else [*attempt.logs(), *logs_below(attempt.folder / PLOGS)]
    if not found:
        raise UserError(
            f"{place}: holds no logs (*.log, *.out, *.err, *.txt, log); name the files themselves"
        )
    return found, None if run is None or attempt is None else _verdict(run, attempt)


def _verdict(run: Run, attempt: Attempt) -> Optional[Verdict]:
    events = (e for e in run.events() if e.get("event") == "verdict" and e.get("attempt") == attempt.number)
    verdicts = [{key: event[key] for key in ("name", "rank", "host", "text")} for event in events]
    return verdicts[-1] if verdicts else None


def _name(verdict: Verdict) -> str:
    """As explanation.py names a process."""
    return str(verdict["name"]) if verdict["rank"] is None else f"rank {verdict['rank']}"


def _lines(explanation: Explanation, verdict: Optional[Verdict]) -> Iterator[str]:
    if verdict is not None:
        yield f"verdict  {verdict['text']}"
    first = explanation.first
    if first is not None:
        yield from _first(explanation, first)
    else:
        if verdict is None:
            yield "no error that is known is in these logs"
        for path, line, text in explanation.unknown:
            yield f"  {path}:{line}: {_shown(text)}"
    if explanation.processes[1:] or (explanation.processes and first is None):
        yield "order"
        yield from _order(explanation)
    if len(explanation.collectives) > 1:
        waits = (f"{_names(names)} in {what}" for what, names in explanation.collectives.items())
        yield f"differ   {'; '.join(waits)}: they run different collectives"
    if explanation.processes and explanation.silent:
        yield f"nothing  {_names(explanation.silent)}"


def _first(explanation: Explanation, first: Process) -> Iterator[str]:
    signature = first.error.signature
    yield f"first    {first.name}{_at(first.error)}: {signature.name}"
    yield f"         {_place(first.error)}"
    if signature.role is Role.CONSEQUENCE:
        yield f"         {_elsewhere(explanation)}"
    yield f"cause    {signature.cause}"
    yield f"to do    {signature.remedy}"
    telling = [other for other in first.others if other.signature.role is not Role.SYMPTOM]
    for other in telling[:ALSO_SHOWN]:
        yield f"also     {other.signature.name}: {_place(other)}"


def _elsewhere(explanation: Explanation) -> str:
    text = "It follows from another process's failure, whose cause is in none of these logs"
    if not explanation.silent:
        return f"{text}."
    return f"{text}; no error is in that of {_names(explanation.silent)}: killed (see `dmesg`), or hanging?"


def _order(explanation: Explanation) -> Iterator[str]:
    """A line for those that failed after each other with the same error."""
    groups: List[List[Process]] = []
    for process in in_order(explanation.processes):
        if groups and groups[-1][0].error.signature is process.error.signature:
            groups[-1].append(process)
        else:
            groups.append([process])
    for members in groups:
        error = members[0].error
        who, what = _names([member.name for member in members]), error.signature
        yield f"  {error.time or 'unknown time':26}  {who}: {what.name} ({what.role.value})"


def _names(names: Sequence[str]) -> str:
    """["rank 0", "rank 1", "scheduler"] as "ranks 0-1, scheduler"."""
    ranks = sorted({int(name[5:]) for name in names if name.startswith("rank ")})
    others = [name for name in names if not name.startswith("rank ")]
    if ranks:
        others.insert(0, f"{'rank' if len(ranks) == 1 else 'ranks'} {spans(ranks)}")
    return ", ".join(others)


def _at(found: Found) -> str:
    return f", {found.time}" if found.time else ""


def _place(found: Found) -> str:
    return f"{found.path}:{found.line}: {_shown(found.text, found.signature.position(found.text))}"


def _shown(text: str, position: int = 0) -> str:
    """A line as far as it is worth reading: around what it tells."""
    start = max(0, position - SHOWN_CHARACTERS // 2)
    shown = text[start : start + SHOWN_CHARACTERS].strip()
    return f"{'... ' if start else ''}{shown}{' ...' if start + SHOWN_CHARACTERS < len(text) else ''}"
