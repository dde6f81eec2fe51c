"""Four settings that make MindSpore usable on CPU, each beside MindSpore's own choice.

When a ratio falls to about 1, this MindSpore no longer needs the setting: remove it from
launcher/environment.py, fcn/onednn.py or fcn/platform.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

from benchmarks.report import report

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = Path(__file__).with_name("kernel_step.py")


def main() -> None:
    """Time of a training step, seconds, with a setting and without."""
    capped = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    # A worker's share of the cores where several run beside each other
    shared = {**capped, "OMP_NUM_THREADS": "1"}
    rows = []
    for name, with_setting, without in (
        ("ONEDNN_MAX_CPU_ISA=AVX2", _step("layers", "no", capped), _step("layers", "no", {})),
        ("7x7 as a matrix product", _step("ours-7", "no", capped), _step("conv-7", "no", capped)),
        ("3x3 with turned kernel", _step("ours-3", "no", capped), _step("conv-3", "no", capped)),
        ("threads as the worker's share, 2 workers", _pair("no", shared), _pair("yes", shared)),
    ):
        rows.append([name, with_setting, without, without / with_setting])
    report("kernels", ["setting", "with_s", "without_s", "ratio"], rows)


def _start(what: str, own_threads: str, env: Dict[str, str]) -> subprocess.Popen:
    clean = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")}
    env = {**clean, **env, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
    command = [sys.executable, str(PROGRAM), what, own_threads]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen) -> float:
    output, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"the measuring program ended with {process.returncode}")
    return float(output.split()[-1])


def _step(what: str, own_threads: str, env: Dict[str, str]) -> float:
    return _result(_start(what, own_threads, env))


def _pair(own_threads: str, env: Dict[str, str]) -> float:
    """Two processes at the same time; the slower one."""
    pair = [_start("layers", own_threads, env) for _ in range(2)]
    return max(_result(process) for process in pair)
