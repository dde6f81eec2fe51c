"""Plays rows, many cases of each, and counts what became of them.

    python tests/FOLDER [--full] [--count N] [--seed S] [--only CASE] [--out FILE] [ROW...]

A case is drawn from the seed, its row and its number alone: `ROW --seed S --only CASE` plays it again.
The exit code is 1 where a promise was broken. --full is for a machine that has all of the rows' needs and
nothing else to do: there a row that can not be played is broken too, and so is a median beyond its limit.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import Any, Dict, List, Optional, Sequence

from row import Broken, NotHere, Row

from benchmarks.report import machine

SHOWN = 3  # broken cases of a row; the JSON file has them all
INDENT = " " * 25


def main(rows: Sequence[Row], program: str, description: str) -> int:
    """Plays the rows that the command line asks for; the exit code is 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--full", action="store_true", help="as many cases as the promises speak of")
    parser.add_argument("--count", type=int, metavar="N", help="so many cases of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="CASE", help="this case alone")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the results as JSON; rows that are not played stay",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names, which may hold *; all")
    args = parser.parse_args()
    results, began = [], time.monotonic()
    for row in rows:
        if args.rows and not any(fnmatch(row.name, pattern) for pattern in args.rows):
            continue
        named = (row.full or row.quick) if row.name in args.rows else 0
        count = args.count or (row.full if args.full else row.quick) or named
        if count == 0:
            continue
        numbers = range(count) if args.only is None else [args.only]
        results.append(play(row, args.seed, numbers, strict=args.full))
        show(results[-1])
        if args.out:
            write(args.out, args.seed, results[-1], [row.name for row in rows])
    if not results:
        names = ", ".join(row.name for row in rows)
        parser.error(f"nothing to play of {', '.join(args.rows)}; rows are {names}")
    kept = [result["kept"] for result in results]
    passed_s = time.monotonic() - began
    print(
        f"{kept.count(True)} promises kept, {kept.count(False)} broken, {kept.count(None)} rows without one; "
        f"{passed_s / 60:.1f} minutes"
    )
    return 1 if False in kept else 0


def play(row: Row, seed: int, numbers: Sequence[int], strict: bool) -> Dict[str, Any]:
    """Plays these cases of a row; what came of them. strict: medians count too."""
    began = time.monotonic()
    figures: Dict[str, List[float]] = {}
    broken: List[str] = []
    missing = None
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            try:
                found = row.case(Random(f"{seed} {row.name} {number}"), Path(folder))
            except NotHere as error:
                missing = str(error)
                break
            except Exception as error:  # the other cases are still worth their time
                what = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
                broken.append(f"case {number}: {what}{error}")
            else:
                for name, value in found.items():
                    figures.setdefault(name, []).append(value)
                over = [name for name, limit in row.limits.items() if found[name] > limit]
                if over:
                    broken.append(f"case {number}: {', '.join(f'{name} {found[name]:.4g}' for name in over)}")
    count = 0 if missing else len(numbers)
    right = count - len(broken)
    slow = [name for name, limit in row.medians.items() if statistics.median(figures.get(name, [0])) > limit]
    kept: Optional[bool] = None
    if row.share is not None and (strict or not missing):
        kept = not missing and right >= row.share * count and not (strict and slow)
    return {
        "row": row.name,
        "must": row.must,
        "cases": count,
        "right": right,
        "wanted": None if row.share is None else math.ceil(row.share * count),
        "kept": kept,
        "too_slow": slow,
        "figures": {
            name: {
                "median": statistics.median(values),
                "max": max(values),
                "median_wanted": row.medians.get(name),
                "max_wanted": row.limits.get(name),
            }
            for name, values in figures.items()
        },
        "missing": missing,
        "broken": broken,
        "seconds": round(time.monotonic() - began, 1),
    }


def write(out: Path, seed: int, result: Dict[str, Any], names: Sequence[str]) -> None:
    """The result of a row beside those of others that the file has; in the order of the names."""
    before = json.loads(out.read_text())["rows"] if out.exists() else []
    known = {one["row"]: one for one in (*before, result)}
    content = {"machine": machine(), "seed": seed, "rows": [known[name] for name in names if name in known]}
    out.write_text(json.dumps(content, indent=1) + "\n")


def show(result: Dict[str, Any]) -> None:
    """The row's lines of the table: each figure beside what is wanted of it."""
    kept = {True: "kept", False: "BROKEN", None: "no promise"}[result["kept"]]
    if result["missing"]:
        kept = f"{kept}: {result['missing']}"
    if result["too_slow"]:
        kept += f", too slow: {', '.join(result['too_slow'])}"
    right = f"{result['right']:4} of {result['cases']:<4} "
    right += " " * 12 if result["wanted"] is None else f"wanted {result['wanted']:<4} "
    print(f"{result['row']:24} {right} {result['seconds']:7} s  {kept}")
    print(f"{INDENT}{result['must']}")
    for name, value in result["figures"].items():
        told = [f"{name}: {_beside('median', value)}", _beside("max", value)]
        print(f"{INDENT}{', '.join(told)}")
    for reason in result["broken"][:SHOWN]:
        print(f"{INDENT}{reason}")
    sys.stdout.flush()


def _beside(what: str, value: Dict[str, Any]) -> str:
    wanted = value[f"{what}_wanted"]
    text = f"{'largest' if what == 'max' else what} {value[what]:.4g}"
    return text if wanted is None else f"{text} (wanted: at most {wanted:g})"
