"""Which cores this host has for us, and which of them are near each Ascend device."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.binding import parse_cpus

SYS = Path("/sys")


def look(devices: tuple[int, ...]) -> dict:
    """cores: lists of hardware threads that we may use, by NUMA node; near: device id -> CPUs near it, where
    that is told; source: by what it is told."""
    allowed = os.sched_getaffinity(0)
    near, source = _near(devices) if devices else ({}, "")
    near = {device: sorted(allowed & set(cpus)) for device, cpus in near.items()}
    told = {"cores": _cores(allowed), "near": near, "source": source or "NUMA nodes"}
    return told if any(near.values()) else {**told, "source": "NUMA nodes"}


def _near(devices: tuple[int, ...]) -> tuple[dict, str]:
    from launcher import devices as tools
    from launcher import npu_smi
    from launcher.errors import Unreadable

    try:
        npus = [npu for npu in tools.inventory().npus if npu.id in devices]
    except Unreadable:
        return {}, ""
    try:
        matrix = npu_smi.parse_topo(tools.ask_npu_smi("-t", "topo"))
    except Unreadable:  # not every board tells it
        matrix = {}
    texts = {npu.id: matrix.get(("card", npu.card)) or matrix.get(("phy", npu.id)) for npu in npus}
    if all(texts.values()) and texts:
        return {device: parse_cpus(text or "") for device, text in texts.items()}, "npu-smi info -t topo"
    by_bus = {
        npu.id: _list(SYS / "bus/pci/devices" / (npu.state.bus or "").lower() / "local_cpulist")
        for npu in npus
    }
    return {device: cpus for device, cpus in by_bus.items() if cpus}, "PCI addresses"


def _cores(allowed: set[int]) -> list[list[int]]:
    """The cores of all NUMA nodes, node by node; hardware threads of a core together."""
    nodes = sorted(SYS.glob("devices/system/node/node[0-9]*"), key=lambda node: int(node.name[4:]))
    order = [cpu for node in nodes for cpu in _list(node / "cpulist")] or sorted(allowed)
    cores: dict[tuple, None] = {}
    for cpu in order + sorted(allowed):
        if cpu in allowed:
            threads = _list(SYS / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or (cpu,)
            cores.setdefault(tuple(sorted(allowed & {*threads, cpu})))
    return [list(core) for core in cores]


def _list(path: Path) -> tuple[int, ...]:
    """A file that lists CPUs; empty where there is none."""
    try:
        return parse_cpus(path.read_text())
    except (OSError, ValueError):
        return ()
