"""1,024 workers on 16 simulated hosts under one supervisor: what each part of their life takes."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from programs import OURS, cpu_s, job, kill, peak_mb
from row import Broken, Figures, Row

from launcher.agent import processes

HOSTS, DEVICES = 16, 64
RANKS = HOSTS * DEVICES
QUIET_S = 60
VERDICT_S = 2.0
START_LIMIT_S = 120
WORKER = Path(__file__).with_name("tiny_worker.py")


def case(dice: Random, folder: Path) -> Figures:
    with job(OURS, folder, RANKS, f"worker=-S -E {WORKER}", cluster=cluster()) as one:
        one.until(lambda: len(one.events("phase")) == RANKS, "the workers do not start", START_LIMIT_S)
        start_s = (one.events("phase")[-1]["time_ns"] - one.began_ns) / 1e9
        first_s = (one.events("started")[0]["time_ns"] - one.began_ns) / 1e9
        pids = {event["rank"]: event["pid"] for event in one.events("started")}
        below = processes.descendants(one.process.pid)
        agents = [process.pid for process in below if process.pid not in set(pids.values())]
        ours_s, agents_s, began = cpu_s(one.process.pid), sum(map(cpu_s, agents)), time.monotonic()
        time.sleep(QUIET_S)
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
        victim = dice.randrange(RANKS)
        killed_ns = kill(pids[victim])
        one.wait()
        figures["end_s"] = (time.time_ns() - killed_ns) / 1e9
        verdicts = one.events("verdict")
        if [verdict["rank"] for verdict in verdicts] != [victim]:
            raise Broken(f"not rank {victim} is named but {verdicts}")
        figures["verdict_s"] = (verdicts[0]["time_ns"] - killed_ns) / 1e9
        if figures["verdict_s"] > VERDICT_S or one.left():
            raise Broken(f"verdict after {figures['verdict_s']:.2f} s, {len(one.left())} processes are left")
        return figures


def cluster() -> str:
    hosts = [
        f"  - {{name: h{i:02}, address: 127.0.1.{i + 1}, devices: {DEVICES}, prefix: [env]}}"
        for i in range(HOSTS)
    ]
    lines = ["device_kind: cpu", "engine: exec", "hosts:", *hosts, "timeouts: {start_s: 120, grace_s: 2}"]
    return "\n".join(lines) + "\n"


ROWS = [Row("scale", "1,024 workers: start, 60 s, kill of one, verdict within 2 s, 0 left", case, 1, 1)]
