"""What becomes of the devices' figures: events of what changes, and now and then a line of the journal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional

if TYPE_CHECKING:
    from launcher.plan_types import Process
    from launcher.reporter import Reporter

SICK = ("Alarm", "Critical", "UNKNOWN")  # the last of a device that is gone, or not started
JOURNAL_EVERY_S = 60.0
FIGURES = ("health", "temp_c", "power_w", "hbm_used_mb", "hbm_mb", "aicore")


class DeviceHealth:
    """The devices of all hosts of an attempt, as their agents tell."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._devices: Dict[str, List[Mapping[str, Any]]] = {}  # by host, as told last
        self._journal_s: Dict[str, float] = {}  # monotonic, by host
        self._unknown: Dict[str, str] = {}  # by host, why nothing was told last

    def heard(self, host: str, told: Mapping[str, Any], processes: Iterable[Process]) -> None:
        """An agent's `devices`, see launcher/agent/device_watch.py."""
        why = told.get("unknown")
        if why is not None:
            if self._unknown.get(host) != why:
                self._reporter.warn(f"host {host}: how its devices are is not known: {why}")
            self._unknown[host] = why
            return
        self._unknown.pop(host, None)
        ranks = {p.device_id: p.rank for p in processes if p.host == host and p.rank is not None}
        before, now = self._devices.get(host, []), told["devices"]
        self._devices[host] = now
        changed = changes(before, now)
        for event in changed:
            rank = ranks.get(event["device"])
            self._reporter.emit("device_health", host=host, rank=rank, **event)
            if event["health"] in SICK:
                self._reporter.warn(describe(host, rank, event))
        if changed or time.monotonic() - self._journal_s.get(host, float("-inf")) >= JOURNAL_EVERY_S:
            self._journal_s[host] = time.monotonic()
            self._reporter.emit("devices", host=host, **columns(now))

    def figures(self, host: str) -> Dict[str, Any]:
        """For status.json; empty where none are known."""
        known = self._devices.get(host)
        return {} if known is None else {"devices": columns(known)}


def columns(devices: Iterable[Mapping[str, Any]]) -> Dict[str, Any]:
    """Ids and figures of the devices as lists in the same order: short, as there are many of them."""
    rows = list(devices)
    figures = {name: [row[name] for row in rows] for name in FIGURES}
    return {"device": [row["id"] for row in rows], **figures}


def changes(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """The devices that are not as they were: device, health, was, codes. At first all are held to be OK."""
    old = {state["id"]: state["health"] for state in before}
    rows = [(state, old.get(state["id"], "OK")) for state in now]
    return [
        {
            "device": state["id"],
            "health": state["health"],
            "was": was,
            "codes": state["codes"],
            "card": state["card"],
            "chip": state["chip"],
        }
        for state, was in rows
        if state["health"] != was
    ]


def describe(host: str, rank: Optional[int], event: Mapping[str, Any]) -> str:
    """A device that has turned sick, for a person."""
    codes = f" (error code {' '.join(event['codes'])})" if event["codes"] else ""
    who = "no rank uses it" if rank is None else f"rank {rank} may fail, or hang with all others"
    return (
        f"host {host}: npu-smi calls device {event['device']} {event['health']}{codes},"
        f" before {event['was']}: {who}; leave it out, or reset it after the run:"
        f" `npu-smi set -t reset -i {event['card']} -c {event['chip']}`"
    )
