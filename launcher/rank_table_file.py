"""Files of rank tables: read, waited for while a cluster's manager still writes them, and checked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from launcher import rank_table_forms, rank_table_rules
from launcher.chips import Chip
from launcher.errors import PreflightError, UserError
from launcher.rank_table import COMPLETED, RankTable
from launcher.yaml_lines import Document, Problem

POLL_S = 0.5  # of a table that is not finished


def read(path: Path, chip: Optional[Chip] = None) -> RankTable:
    """The table of a file. Raises UserError that lists every problem with its field."""
    return rank_table_forms.parse(checked(str(path), load(path), chip))


def checked(name: str, values: Any, chip: Optional[Chip] = None) -> Any:
    """The JSON of a table, if no rule is broken. Raises UserError that lists every problem with its field."""
    problems = rank_table_rules.check(values, chip)
    if problems:
        raise Document(name, values).error(problems)
    return values


def load(path: Path) -> Any:
    """The JSON of a table, as it is. Raises UserError: no such file, no JSON, a key that is given twice."""
    twice: List[str] = []

    def pairs(items: List[Tuple[str, Any]]) -> Dict[str, Any]:
        values = dict(items)
        if len(values) < len(items):
            names = [name for name, _ in items]
            twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return values

    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give the path of a rank table") from None
    except ValueError as error:
        remedy = "remove comments, and compare with what wrote it"
        raise UserError(f"{path}: not valid JSON: {error}; expected a rank table; {remedy}") from None
    if twice:
        problem = Problem((), f"{', '.join(twice)} is given twice in one object", "one value", "remove one")
        raise Document(str(path), values).error([problem])
    return values


def wait_for(path: Path, limit_s: float, say: Callable[[str], None]) -> Any:
    """The JSON of a table whose status is `completed`, waited for.

    A table that MindCluster or ModelArts writes is there before it is finished, or comes later.
    say: told once what is waited for. Raises PreflightError when the time is over, UserError for what is no
    JSON then.
    """
    end = time.monotonic() + limit_s
    is_said = False
    while True:
        state = _unfinished(path)
        if state is None:
            return load(path)
        if time.monotonic() >= end:
            raise PreflightError(
                f"{path}: {state}, still after {limit_s:g} s; look at what writes it (MindCluster: the log "
                "of ascend-operator, `kubectl describe`), or wait longer with `timeouts: {start_s: N}`"
            )
        if not is_said:
            say(f"waiting for {path}: {state}; at most {limit_s:g} s")
            is_said = True
        time.sleep(POLL_S)


def _unfinished(path: Path) -> Optional[str]:
    """Why the table cannot be used yet; None where it can, or where waiting does not help."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return "no such file yet"
    except (OSError, UnicodeDecodeError):
        return None  # `load` says it
    try:
        values = json.loads(text)
    except ValueError:
        return "not whole yet" if not text.rstrip().endswith("}") else None
    status = values.get("status", COMPLETED) if isinstance(values, dict) else COMPLETED
    return f"its status is {status!r}" if status == "initializing" else None
