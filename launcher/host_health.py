"""What is worth a warning of what a host says about itself. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

LOW_DISK_MB = 5_000  # a checkpoint of FCN-8s is 1.1 GB; an old one is there until the new one is whole
LOW_MEMORY_SHARE = 0.05
CLOCK_LIMIT_S = 1.0  # above it the lines of two hosts' logs are read in the wrong order


def warnings(host: str, health: Mapping[str, Any]) -> Dict[str, str]:
    """What is wrong -> how to tell it. health: of an agent's `pong`, with `clock_offset_s`; None: unknown."""
    found = {}
    disk_mb, free_mb, memory_mb = (health.get(key) for key in ("disk_free_mb", "memory_free_mb", "memory_mb"))
    if disk_mb is not None and disk_mb < LOW_DISK_MB:
        found["disk"] = (
            f"host {host}: {disk_mb / 1000:.1f} GB are free on the disk of the run directory;"
            " make room before the next checkpoint"
        )
    if health.get("disk_silent_s"):
        found["silent disk"] = (
            f"host {host}: the file system of the run directory has not answered for"
            f" {health['disk_silent_s']} s: look at the storage and the network to it"
        )
    if free_mb is not None and memory_mb and free_mb < LOW_MEMORY_SHARE * memory_mb:
        found["memory"] = (
            f"host {host}: {free_mb / 1000:.1f} of {memory_mb / 1000:.0f} GB of memory are left;"
            " the kernel kills processes when there is none: end others, or use a smaller batch"
        )
    for device in health.get("devices_missing") or ():
        found[f"device {device}"] = (
            f"host {host}: device {device} is gone from the system: `npu-smi info` and `dmesg` tell more"
        )
    offset_s: Optional[float] = health.get("clock_offset_s")
    if offset_s is not None and abs(offset_s) > CLOCK_LIMIT_S:
        found["clock"] = (
            f"host {host}: its clock is {abs(offset_s):.1f} s {'ahead' if offset_s > 0 else 'behind'};"
            " verdicts take that into account, times in its logs do not: set it by NTP"
        )
    return found
