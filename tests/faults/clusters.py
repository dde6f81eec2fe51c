"""Cluster files of the campaign: this machine, and four hosts on it whose clocks are off."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Callable

from row import NotHere
from simulated import shifted_clock

HOSTS, CLOCK_ERROR_S = 4, 0.5
GRACE_S = 2.0

# What makes the cluster file of a case: dice, an empty folder, ranks, more time limits as `, hang_s: 1`
Cluster = Callable[[Random, Path, int, str], str]


def here(dice: Random, folder: Path, ranks: int, limits: str = "") -> str:
    return _file("local", [f"{{name: here, address: 127.0.0.1, devices: {ranks}}}"], limits)


def four_hosts(dice: Random, folder: Path, ranks: int, limits: str = "") -> str:
    library = shifted_clock(folder)
    if library is None:
        raise NotHere("there is no C compiler, `cc`, to build a clock that is off")
    hosts = [
        f"{{name: h{i}, address: 127.0.0.{i + 1}, devices: {ranks // HOSTS}, prefix: "
        f"[env, LD_PRELOAD={library}, CLOCK_SHIFT_S={dice.uniform(-CLOCK_ERROR_S, CLOCK_ERROR_S):.4f}]}}"
        for i in range(HOSTS)
    ]
    return _file("exec", hosts, limits)


def _file(engine: str, hosts: list[str], limits: str) -> str:
    lines = ["device_kind: cpu", f"engine: {engine}", "hosts:", *(f"  - {host}" for host in hosts)]
    return "\n".join([*lines, f"timeouts: {{start_s: 30, grace_s: {GRACE_S}{limits}}}"]) + "\n"
