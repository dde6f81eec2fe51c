"""Which CPUs each worker of a host is bound to: those near its device, shared out evenly. Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

Cpus = Tuple[int, ...]
Core = Tuple[int, ...]  # the hardware threads of one core


def parse_cpus(text: str) -> Cpus:
    """`0-23,96` as numbers. Raises ValueError."""
    found: List[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def format_cpus(cpus: Iterable[int]) -> str:
    """Numbers as `0-23,96`."""
    parts: List[List[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], cpu]
        else:
            parts.append([cpu])
    return ",".join("-".join(map(str, part)) for part in parts)


def share_out(
    cores: Sequence[Core], near: Mapping[int, Iterable[int]], devices: Sequence[int]
) -> Dict[int, Cpus]:
    """Device -> CPUs of its worker; without those of whom there are fewer cores than workers.

    cores: those that may be used, neighbours in memory following each other. near: device -> CPUs near it,
    where that is known. devices: those in use, in the order of their ids. Devices near the same cores share
    them; those of which nothing is known share the cores that are near to no other, or all.
    """
    groups: Dict[Tuple[Core, ...], List[int]] = {}
    rest = []
    for device in devices:
        own = set(near.get(device, ()))
        part = tuple(core for core in cores if own & set(core))
        if part:
            groups.setdefault(part, []).append(device)
        else:
            rest.append(device)
    if rest:
        taken = {core for part in groups for core in part}
        free = tuple(core for core in cores if core not in taken)
        groups.setdefault(free if len(free) >= len(rest) else tuple(cores), []).extend(rest)
    return {
        device: tuple(sorted(cpu for core in share for cpu in core))
        for part, members in groups.items()
        for device, share in zip(members, _split(part, len(members)))
        if share
    }


def _split(cores: Sequence[Core], count: int) -> List[Sequence[Core]]:
    """As many runs of neighbours, none of two more than another; empty ones where there are too few."""
    if len(cores) < count:
        return [()] * count
    ends = [len(cores) * i // count for i in range(count + 1)]
    return [cores[begin:end] for begin, end in zip(ends, ends[1:])]


def bind(
    topologies: Mapping[str, Mapping[str, Any]], devices: Mapping[str, Sequence[int]]
) -> Tuple[Dict[Tuple[str, int], Cpus], List[str]]:
    """(host, device) -> CPUs of its worker, and what to tell a person of it.

    topologies: by host what launcher/agent/topology.py tells. devices: by host those in use.
    """
    found: Dict[Tuple[str, int], Cpus] = {}
    notes = []
    for host, known in topologies.items():
        near = {int(device): cpus for device, cpus in known["near"].items()}
        shares = share_out([tuple(core) for core in known["cores"]], near, devices[host])
        found.update({(host, device): cpus for device, cpus in shares.items()})
        told = ", ".join(f"device {device} to {format_cpus(cpus)}" for device, cpus in sorted(shares.items()))
        if len(shares) < len(devices[host]):
            told = (
                f"{told}; the others share too few cores to be bound"
                if told
                else "none, as cores are too few"
            )
        notes.append(f"workers of {host} are bound to CPUs by {known['source']}: {told}")
    return found, notes or ["the CPUs that workers are bound to are chosen when the run starts"]
