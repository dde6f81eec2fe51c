"""A thousand workers on 16 simulated hosts under one supervisor: what each part of their life takes."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from programs import OURS, cpu_s, job, kill, peak_mb
from row import Broken, Case, Figures, Row

from launcher.agent import processes

HOSTS = 16
START_LIMIT_S = 120
WORKER = Path(__file__).with_name("tiny_worker.py")


def workers(devices: int, quiet_s: int) -> Case:
    """devices: of each host. quiet_s: of heartbeats, before one worker is killed."""
    return lambda dice, folder: _workers(dice, folder, devices, quiet_s)


def _workers(dice: Random, folder: Path, devices: int, quiet_s: int) -> Figures:
    ranks = HOSTS * devices
    with job(OURS, folder, ranks, f"worker=-S -E {WORKER}", cluster=cluster(devices)) as one:
        one.until(lambda: len(one.events("phase")) == ranks, "the workers do not start", START_LIMIT_S)
        start_s = (one.events("phase")[-1]["time_ns"] - one.began_ns) / 1e9
        first_s = (one.events("started")[0]["time_ns"] - one.began_ns) / 1e9
        pids = {event["rank"]: event["pid"] for event in one.events("started")}
        below = processes.descendants(one.process.pid)
        agents = [process.pid for process in below if process.pid not in set(pids.values())]
        ours_s, agents_s, began = cpu_s(one.process.pid), sum(map(cpu_s, agents)), time.monotonic()
        time.sleep(quiet_s)
        passed = time.monotonic() - began
        figures = {
            "first_started_s": first_s,
            "all_in_training_s": start_s,
            "launcher_cpu_percent": 100 * (cpu_s(one.process.pid) - ours_s) / passed,
            "agents_cpu_percent": 100 * (sum(map(cpu_s, agents)) - agents_s) / passed,
            "launcher_mb": peak_mb(one.process.pid),
            "an_agent_and_its_guard_mb": sum(map(peak_mb, agents)) / HOSTS,
        }
        if one.events("exit") or one.events("verdict"):
            raise Broken(f"false alarm: {one.said()[-600:]}")
        victim = dice.randrange(ranks)
        killed_ns = kill(pids[victim])
        one.wait()
        figures["end_s"] = (time.time_ns() - killed_ns) / 1e9
        verdicts = one.events("verdict")
        if [verdict["rank"] for verdict in verdicts] != [victim]:
            raise Broken(f"not rank {victim} is named but {verdicts}")
        figures["verdict_s"] = (verdicts[0]["time_ns"] - killed_ns) / 1e9
        if one.left():
            raise Broken(f"{len(one.left())} processes are left")
        return figures


def cluster(devices: int) -> str:
    hosts = [
        f"  - {{name: h{i:02}, address: 127.0.1.{i + 1}, devices: {devices}, prefix: [env]}}"
        for i in range(HOSTS)
    ]
    lines = ["device_kind: cpu", "engine: exec", "hosts:", *hosts, "timeouts: {start_s: 120, grace_s: 2}"]
    return "\n".join(lines) + "\n"


MUST = "kill of one, verdict within 2 s, 0 left"
LIMITS = {"verdict_s": 2.0}
ROWS = [
    Row("scale", f"1,024 workers: start, 60 s, {MUST}", workers(64, 60), 1, 0, limits=LIMITS),
    Row("scale-short", f"256 workers: start, 10 s, {MUST}", workers(16, 10), 0, 1, limits=LIMITS),
]
