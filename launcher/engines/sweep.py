"""Cleaning hosts whose agent and guard are both gone, by the run's token in the environment of processes."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Dict, Iterable

from launcher.engines.link import with_checkout

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster, Host
    from launcher.engines.base import Engine

SWEEP_LIMIT_S = 10.0


def sweep(engine: Engine, hosts: Iterable[Host], cluster: Cluster, token: str) -> Dict[str, str]:
    """Ends every process with this token on these hosts, all at a time; returns host -> why it failed."""
    started = {host.name: _start([*engine.agent_argv(host, cluster), "--sweep", token]) for host in hosts}
    end = time.monotonic() + SWEEP_LIMIT_S
    failed = {}
    for name, process in started.items():
        try:
            said = process.communicate(timeout=max(0.0, end - time.monotonic()))[1]
        except subprocess.TimeoutExpired:
            process.kill()
            said = f"no answer within {SWEEP_LIMIT_S:g} s"
            process.communicate()
        if process.returncode != 0:
            failed[name] = said.strip()
    return failed


def _start(argv: list) -> subprocess.Popen:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=with_checkout(os.environ),
        start_new_session=True,
    )
