"""Breaks launches on purpose, many times, and counts what became of them.

    python tests/faults [--full] [--count N] [--seed S] [--only CASE] [--out FILE] [ROW...]

A case is drawn from the seed, its row and its number alone: `ROW --seed S --only CASE` plays it again.
The exit code is 1 where a promise was broken. How soon things are, in the median, is a promise of --full
alone: of a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import Any, Dict, List, Sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT), str(ROOT / "tests" / "launcher")]

import endings  # noqa: E402
import first_failure  # noqa: E402
import hangs  # noqa: E402
import latency  # noqa: E402
import leftovers  # noqa: E402
import logs  # noqa: E402
import restart  # noqa: E402
import scale  # noqa: E402
from row import Broken, NotHere, Row  # noqa: E402

from benchmarks.report import machine  # noqa: E402

MODULES = (first_failure, leftovers, endings, latency, hangs, scale, logs, restart)
SHOWN = 3  # broken cases of a row; the JSON file has them all
ROWS: List[Row] = [row for module in MODULES for row in module.ROWS]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults", description="Break launches on purpose.")
    parser.add_argument("--full", action="store_true", help="as many cases as the promises speak of")
    parser.add_argument("--count", type=int, metavar="N", help="so many cases of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="CASE", help="this case alone")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="left-over, 'first-*', ...; all")
    args = parser.parse_args()
    results = []
    for row in ROWS:
        if args.rows and not any(fnmatch(row.name, pattern) for pattern in args.rows):
            continue
        count = args.count or (row.full if args.full else row.quick)
        if count == 0:
            continue
        numbers = range(count) if args.only is None else [args.only]
        results.append(play(row, args.seed, numbers, strict=args.full))
        show(results[-1])
    if args.out:
        content = {"machine": machine(), "seed": args.seed, "rows": results}
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    kept = [result["kept"] for result in results]
    print(
        f"{kept.count(True)} promises kept, {kept.count(False)} broken, {kept.count(None)} rows without one"
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
    count = 0 if missing else len(numbers)
    right = count - len(broken)
    slow = too_slow(row, figures)
    kept = None
    if not missing and row.share is not None:
        kept = right >= row.share * count and not (strict and slow)
    return {
        "row": row.name,
        "must": row.must,
        "cases": count,
        "right": right,
        "kept": kept,
        "too_slow": slow,
        "figures": {
            name: {"median": statistics.median(values), "max": max(values)}
            for name, values in figures.items()
        },
        "missing": missing,
        "broken": broken,
        "seconds": round(time.monotonic() - began, 1),
    }


def too_slow(row: Row, figures: Dict[str, List[float]]) -> List[str]:
    """The figures whose medians are beyond the row's limits."""
    return [
        name
        for name, limit in row.medians.items()
        if name in figures and statistics.median(figures[name]) > limit
    ]


def show(result: Dict[str, Any]) -> None:
    """The row's lines of the table."""
    kept = {True: "kept", False: "BROKEN", None: result["missing"] or "no promise"}[result["kept"]]
    if result["too_slow"]:
        kept += f", too slow: {', '.join(result['too_slow'])}"
    print(f"{result['row']:24} {result['right']:4} of {result['cases']:<4} {result['seconds']:7} s  {kept}")
    print(f"{'':24} {result['must']}")
    for name, value in result["figures"].items():
        print(f"{'':24} {name}: median {value['median']:.4g}, largest {value['max']:.4g}")
    for reason in result["broken"][:SHOWN]:
        print(f"{'':24} {reason}")
    sys.stdout.flush()


sys.exit(main())
