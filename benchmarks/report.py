"""How a benchmark tells its figures: a table for people, a JSON file for programs."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Dict, List, Sequence

RESULTS = Path(__file__).resolve().parent / "results"


def report(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **figures: Any) -> None:
    """Print the table and the figures, and write both to results/NAME.json."""
    lines = [columns, *[[_text(value) for value in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(name)
    for line in lines:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    for key, value in figures.items():
        print(f"  {key}: {_text(value)}")
    RESULTS.mkdir(exist_ok=True)
    table: List[Dict[str, Any]] = [dict(zip(columns, row)) for row in rows]
    content = {"machine": machine(), "table": table, **figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def machine() -> Dict[str, Any]:
    """What the figures were measured on; `load` says whether it was quiet."""
    return {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
