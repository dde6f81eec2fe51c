"""Starts real ranks by hand, as the worker contract has it, without a launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

HERE = Path(__file__).resolve().parent
END_S = 240


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(rank: int, size: int, rendezvous: str, port: int) -> Dict[str, str]:
    common = {
        "RANK_ID": str(rank),
        "RANK_SIZE": str(size),
        "FCN_RENDEZVOUS": rendezvous if size > 1 else "none",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parents[1]),
        "GLOG_v": "3",
    }
    if rendezvous == "store":
        return {**common, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    cluster = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port), "MS_WORKER_NUM": str(size)}
    retry = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1", "MS_TOPO_TIMEOUT": "120"}
    return {**common, **cluster, **retry, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)}


def train(out: Path, config: dict, size: int, rendezvous: str = "store") -> List[Dict[str, np.ndarray]]:
    """Train with `size` ranks; the recorded arrays of each rank. Fails with the log of a rank that fails."""
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config))
    run(out, [str(HERE / "rank_program.py"), str(out), str(out / "config.json")], size, rendezvous)
    return [dict(np.load(out / f"rank-{rank}.npz")) for rank in range(size)]


def work(verb: str, run_dir: Path, config: dict, options: dict, size: int) -> None:
    """A verb of `fcn.worker` on `size` ranks, in a run directory as the launcher makes it.

    Threads are those of one host with two cores. Fails with the log of a rank that fails.
    """
    run_dir.mkdir(parents=True)
    (run_dir / "run.yaml").write_text(json.dumps({"verb": verb, "config": config, "options": options}))
    threads = {"OMP_NUM_THREADS": str(max(1, 2 // size))}
    run(run_dir, ["-m", "fcn.worker", verb, "--run-dir", str(run_dir)], size, environ=threads)


def run(
    out: Path,
    program: Sequence[str],
    size: int,
    rendezvous: str = "store",
    environ: Optional[Mapping[str, str]] = None,
) -> None:
    """Run `python PROGRAM` on each rank to its end, its log in `out`."""
    port = free_port()
    command = [sys.executable, *program]
    started = []
    for rank in range(size):
        env = {**os.environ, **environment(rank, size, rendezvous, port), **(environ or {})}
        started.append((rank, _start(command, env, out / f"rank-{rank}.log")))
    if size > 1 and rendezvous == "scheduler":
        env = {**os.environ, **environment(0, size, rendezvous, port), "MS_ROLE": "MS_SCHED"}
        started.append(
            ("scheduler", _start([sys.executable, "-m", "fcn.distributed"], env, out / "scheduler.log"))
        )
    try:
        for name, process in started:
            code = process.wait(END_S)
            assert code == 0, f"{name} ended with {code}:\n{_tail(out, name)}"
    finally:
        for _, process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _start(command: List[str], env: Dict[str, str], log: Path) -> subprocess.Popen:
    with log.open("wb") as file:
        return subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)


def _tail(out: Path, name: object) -> str:
    log = out / (f"{name}.log" if name == "scheduler" else f"rank-{name}.log")
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
