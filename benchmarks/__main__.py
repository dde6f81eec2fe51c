"""Run one benchmark, or all: `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import importlib
import sys

NAMES = ("start", "plan", "first_step", "kernels", "pipeline", "evaluation", "inference", "train_step")
NAMES += ("exactness", "save")

for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"no benchmark {name}; there are {', '.join(NAMES)}")
    importlib.import_module(f"benchmarks.{name}").main()
