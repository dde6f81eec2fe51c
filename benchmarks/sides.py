"""Programs that are measured call by call in turn: ours as a CPU worker runs it, and its peers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from launcher.agent import observe
from launcher.cluster import load_cluster
from launcher.plan import make_plan
from launcher.plan_types import HostFacts, Job

ROOT = Path(__file__).resolve().parents[1]

# A program ends with `serve(call)`: each line that comes is answered with the seconds that the call took.
SERVE = """
import json, sys, time
from pathlib import Path

def serve(call, **facts):
    call()  # compiles, and makes what lasts
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        call()
        print(time.perf_counter() - begin, flush=True)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(peak_kb * 1024 / 1e9, flush=True)
"""


class Side(NamedTuple):
    """A program and the environment that it is run in."""

    program: str
    env: Mapping[str, str]


class Result(NamedTuple):
    """`facts`: what the program said of itself; `times`: seconds of each call; peak memory while they ran."""

    facts: Dict[str, Any]
    times: List[float]
    peak_gb: float

    def figures(self) -> List[float]:
        """The least time, the median, the peak."""
        return [min(self.times), statistics.median(self.times), self.peak_gb]


def worker_environment(workers: int = 1) -> Dict[str, str]:
    """What the plan gives the first of this many workers on this host."""
    cluster = load_cluster(f"{workers}xcpu.yaml")
    facts = {cluster.hosts[0].name: HostFacts.from_dict(observe.facts())}
    plan = make_plan(cluster, Job("train", "runs", ("-m", "fcn.worker", "train")), facts)
    return dict(plan.processes[0].env)


def peer_environment(workers: int = 1) -> Dict[str, str]:
    """As many threads as the worker has, and the instruction set of the peer's own choice."""
    return {"OMP_NUM_THREADS": worker_environment(workers)["OMP_NUM_THREADS"]}


def measure(sides: Mapping[str, Side], arguments: Sequence[Any], rounds: int) -> Dict[str, Result]:
    """Start every program, then let each make one call in turn: what slows the machine slows them all."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(_Served(name, side, arguments)) for name, side in sides.items()}
        times: Dict[str, List[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, program in started.items():
                times[name].append(program.call())
        return {name: Result(one.facts, times[name], one.end()) for name, one in started.items()}


class _Served:
    """A program that has started and waits for calls."""

    def __init__(self, name: str, side: Side, arguments: Sequence[Any]) -> None:
        kept = {key: value for key, value in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
        self._name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the program
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE + side.program, *map(str, arguments)],
            env={**kept, **side.env, "PYTHONPATH": str(ROOT), "GLOG_v": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.facts: Dict[str, Any] = self._answer()

    def __enter__(self) -> _Served:
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def call(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def end(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            sys.exit(f"{self._name}: the program has ended:\n{self._log.read()[-2000:]}")
        return json.loads(line)
