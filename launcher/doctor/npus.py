"""Devices: whether they are there, of the kind that the file says, well, and free."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from launcher.device_health import SICK
from launcher.doctor.check import Check, Finding, Request, View, size

USED_SHARE = 0.3  # of a device's memory; its firmware takes a tenth of that, MindSpore warns at half


def gather_nodes(request: Request) -> List[int]:
    from launcher import devices

    return list(devices.present_devices())


def gather_npus(request: Request) -> Optional[Dict[str, Any]]:
    """The inventory as JSON, with the error codes of what is not well; None without any device node."""
    from launcher import devices

    if not devices.present_devices():
        return None
    found = devices.inventory()
    return {
        "version": found.version,
        "devices": [devices.fact(npu) for npu in found.npus],
        "processes": [
            {"device": device, "pid": process.pid, "name": process.name, "memory_mb": process.memory_mb}
            | {"owner": owner(process.pid, process.name)}
            for device, process in found.processes
        ],
    }


def owner(pid: int, name: str) -> Optional[str]:
    """The user of a process that lives here; None where there is none, as of another container.

    name: as npu-smi cuts it; the same id may be another process's in a container.
    """
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
        own = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
    if not name or not (own.startswith(name) or name.startswith(own)):
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def judge_nodes(view: View) -> Iterator[Finding]:
    """Device nodes against the cluster file. A host with nothing at all is told once."""
    for host, present in view.each("devices"):
        if not view.cluster.chip.is_ascend:
            return
        if not present and not view.facts[host.name].get("device_ips"):
            yield Finding(
                host.name,
                "has no Ascend devices (no /dev/davinci*, no answer from hccn_tool), but "
                f"{view.cluster.source} wants {len(host.devices)} of kind {view.cluster.device_kind}",
                "no worker could start there",
                "name another host, or use device_kind cpu; in a container, pass the devices in",
            )
            continue
        for device in host.devices:
            if device.id not in present:
                yield Finding(
                    host.name,
                    f"is not there (no /dev/davinci{device.id}; there are:"
                    f" {', '.join(map(str, present)) or 'none'})",
                    "its worker could not start",
                    f"correct the devices of {host.name} in {view.cluster.source}; what was there and is gone"
                    " shows in `dmesg`",
                    device.id,
                )


def judge_npus(view: View) -> Iterator[Finding]:
    for host, known in view.each("npus"):
        used = {device.id for device in host.devices}
        states = [state for state in known["devices"] if state["id"] in used]
        yield from _kind(view, host.name, states)
        for state in states:
            yield from _health(host.name, state)
        busy = {process["device"] for process in known["processes"]}
        for process in known["processes"]:
            if process["device"] in used:
                yield _in_use(host.name, process)
        for state in states:
            if state["id"] not in busy and state["hbm_mb"] and state["hbm_used_mb"]:
                yield from _held(host.name, state)


def _kind(view: View, host: str, states: list) -> Iterator[Finding]:
    from launcher.discovery import kind_of
    from launcher.errors import PreflightError

    try:
        kind = kind_of(states) if states else view.cluster.device_kind
    except PreflightError:
        return  # a name that is new here says nothing against the file
    if kind != view.cluster.device_kind:
        yield Finding(
            host,
            f"its devices are {states[0]['name']}, of kind {kind}, but {view.cluster.source} says"
            f" {view.cluster.device_kind}",
            "HCCL refuses the rank table (EI0014), or the ranks hang",
            f"write `device_kind: {kind}`, or name another host",
        )


def _health(host: str, state: Dict[str, Any]) -> Iterator[Finding]:
    if state["health"] == "OK":
        return
    codes = f" (error code {' '.join(state['codes'])})" if state["codes"] else ""
    sick = state["health"] in SICK
    yield Finding(
        host,
        f"npu-smi says {state['health']}{codes}",
        "the worker on it fails, or hangs with all the others in the next collective"
        if sick
        else "it works, and may soon not",
        f"leave the device out, or reset it: `npu-smi set -t reset -i {state['card']} -c {state['chip']}`;"
        f" `npu-smi info -t health -i {state['card']} -c {state['chip']}` tells more",
        state["id"],
        fatal=sick,
    )


def _in_use(host: str, process: Dict[str, Any]) -> Finding:
    """Who lives holds its device; one that is not seen here may be of a container, or just gone."""
    who = f"process {process['pid']} ({process['name'] or 'without a name'})"
    alive = process["owner"] is not None
    return Finding(
        host,
        f"{process['memory_mb']} MB of it are in use by {who}"
        + (f" of user {process['owner']}" if alive else ", which is not seen from here"),
        "one process a device: memory runs out, or HCCP does not start (EJ0001)",
        f"wait for its end, or end it: `kill {process['pid']}`"
        if alive
        else "look for it on the host and in other containers; one that has just ended is gone in 10 s",
        process["device"],
        fatal=alive,
    )


def _held(host: str, state: Dict[str, Any]) -> Iterator[Finding]:
    if state["hbm_used_mb"] > USED_SHARE * state["hbm_mb"]:
        yield Finding(
            host,
            f"{size(state['hbm_used_mb'])} of {size(state['hbm_mb'])} are held by no process that is seen",
            "memory may run out",
            "look for processes in other containers; where there are none, reset the device",
            state["id"],
            fatal=False,
        )


CHECKS = (
    Check("devices", gather_nodes, judge_nodes, quick=False, ascend=True),
    Check("npus", gather_npus, judge_npus, ascend=True),
)
