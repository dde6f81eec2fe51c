"""What a host says of itself while its processes run: load, memory, disk, and kills for lack of memory.

What can not be known is None.
"""

from __future__ import annotations

import os
import time

from launcher.protocol import HEALTH_S

MB = 1_000_000
QUICK_S = 0.05  # what a look takes at most, as a rule
SLOW_S = 2.0  # from here on it is told that one hangs
FRESH_S = 10.0  # from the kernel's kill of a process with much memory to its end
KILLS = "oom_kill"  # how /proc/vmstat and both versions of cgroups name their count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Sequence


class Health:
    """The state of this host, look by look."""

    def __init__(self, devices: tuple[int, ...] = ()) -> None:
        """devices: ids of the Ascend devices that are to be there."""
        self._devices = devices
        self._ticks = _cpu_ticks()

    def look(self, folder: str | None) -> dict:
        """cpu: busy share of all processors since the last look, 0 to 1; MB of memory and of that disk.

        memory_free_mb is what programs could still get, caches given up. devices_missing: those without a
        device node any more.
        """
        before, self._ticks = self._ticks, _cpu_ticks()
        busy, total = (now - then for now, then in zip(self._ticks, before))
        memory = _fields("/proc/meminfo")
        free, size = _disk_mb(folder)
        return {
            "cpu": round(busy / total, 3) if total > 0 else None,
            "memory_free_mb": _mb(memory.get("MemAvailable:")),
            "memory_mb": _mb(memory.get("MemTotal:")),
            "disk_free_mb": free,
            "disk_mb": size,
            "devices_missing": self._missing(),
        }

    def _missing(self) -> list[int]:
        if not self._devices:
            return []
        from launcher import devices

        return sorted(set(self._devices) - set(devices.present_devices()))


class HealthWatch:
    """Looks every HEALTH_S, in a thread: a network file system that hangs does not say how full it is."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._seen: dict = {}
        self._look: threading.Thread | None = None
        self._began_s = self._told_s = float("-inf")  # monotonic

    def news(self, folder: str) -> dict | None:
        """What is new: a look, with `disk_silent_s` None; where one hangs the last one, and for how long."""
        now = time.monotonic()
        if self._look is None and now - self._began_s < HEALTH_S:
            return None
        self._look = self._look or self._begin(folder)
        if not self._look.is_alive():
            self._look = None
            return {**self._seen, "disk_silent_s": None}
        if now - self._began_s < SLOW_S or now - self._told_s < HEALTH_S:
            return None
        self._told_s = now
        return {**self._seen, "disk_silent_s": round(now - self._began_s)}

    def _begin(self, folder: str) -> threading.Thread:
        import threading  # after the start, for which it is of no use

        def look() -> None:
            self._seen = self._health.look(folder)

        self._began_s = time.monotonic()
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(QUICK_S)
        return thread


class MemoryKills:
    """How often the kernel has killed for lack of memory: in our cgroup where that is counted, else anywhere.

    The count is raised before the signal is sent (mm/oom_kill.c), so that a dead process has been counted.
    """

    def __init__(self, paths: Sequence[str] | None = None) -> None:
        """paths: where the count may be, the best first."""
        known = (path for path in paths or (*_cgroup_files(), "/proc/vmstat") if KILLS in _fields(path))
        self._path = next(known, None)
        self._explained = self._seen = self._count()
        self._seen_s = 0.0

    def look(self, now_s: float) -> None:
        """To be called now and then: a kill that explained nothing for FRESH_S, or twice that, never will."""
        if now_s - self._seen_s < FRESH_S:
            return
        if self._explained is not None and self._seen is not None:
            self._explained = max(self._explained, self._seen)
        self._seen, self._seen_s = self._count(), now_s

    def explain_one(self) -> bool | None:
        """Whether there was a kill that explains a death by SIGKILL; each explains one. None: not known."""
        count = self._count()
        if count is None or self._explained is None:
            return None
        if count <= self._explained:
            return False
        self._explained += 1
        return True

    def _count(self) -> int | None:
        return None if self._path is None else _fields(self._path).get(KILLS)


def _cgroup_files() -> list[str]:
    """Where our cgroup counts, in version 2 and 1; inside a container its own folder is the root."""
    try:
        with open("/proc/self/cgroup") as file:  # noqa: PTH123
            entries = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    files = []
    for _, controllers, path in entries:
        for place in (path.rstrip("/"), ""):
            if not controllers:
                files.append(f"/sys/fs/cgroup{place}/memory.events")
            elif "memory" in controllers.split(","):
                files.append(f"/sys/fs/cgroup/memory{place}/memory.oom_control")
    return files


def _fields(path: str) -> dict[str, int]:
    """A file of lines `name number ...`; empty where there is none."""
    try:
        with open(path) as file:  # noqa: PTH123
            words = [line.split() for line in file]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _mb(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else kilobytes * 1024 // MB


def _disk_mb(folder: str | None) -> tuple[int | None, int | None]:
    """Free, as far as this user may fill it, and in all."""
    try:
        disk = os.statvfs(folder) if folder is not None else None
    except OSError:
        disk = None
    if disk is None:
        return None, None
    return disk.f_bavail * disk.f_frsize // MB, disk.f_blocks * disk.f_frsize // MB


def _cpu_ticks() -> tuple[int, int]:
    """Busy and all clock ticks since the system started; both 0 where they are not told."""
    try:
        with open("/proc/stat") as file:  # noqa: PTH123
            # user nice system idle iowait irq softirq steal; guest times are part of user and nice
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)
