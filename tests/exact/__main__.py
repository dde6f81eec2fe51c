"""Interrupts trainings in every way and compares what they end with to the last bit; breaks off saves, and
looks at what is left of them: see campaign.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[1:1] = [str(ROOT), str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "launcher")]

import devices  # noqa: E402
import killed  # noqa: E402
import preempted  # noqa: E402
import saves  # noqa: E402
from campaign import main  # noqa: E402

MODULES = (killed, preempted, devices, saves)

ROWS = [row for module in MODULES for row in module.ROWS]

sys.exit(main(ROWS, "python tests/exact", "Interrupt trainings and saves."))
