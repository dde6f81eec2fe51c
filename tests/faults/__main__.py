"""Breaks launches on purpose, many times, and counts what became of them: see campaign.py."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT), *(str(ROOT / "tests" / name) for name in ("launcher", "hosts"))]

import endings  # noqa: E402
import first_failure  # noqa: E402
import hangs  # noqa: E402
import latency  # noqa: E402
import leftovers  # noqa: E402
import logs  # noqa: E402
import scale  # noqa: E402
import training  # noqa: E402
from campaign import main  # noqa: E402

MODULES = (first_failure, leftovers, endings, latency, hangs, scale, logs, training)
ROWS = [row for module in MODULES for row in module.ROWS]

sys.exit(main(ROWS, "python tests/faults", "Break launches on purpose."))
