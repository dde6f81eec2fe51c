"""Which devices an attempt uses: all but the spares, and without those that have failed. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Collection, Dict, Iterable, List, NamedTuple, Optional

from launcher.chips import choose
from launcher.cluster_types import Cluster, Host


class Place(NamedTuple):
    """A device of a host, or with `device` None the whole host."""

    host: str
    device: Optional[int] = None

    def __str__(self) -> str:
        return f"host {self.host}" if self.device is None else f"device {self.device} of {self.host}"


class Shortage(Exception):
    """Too few devices are left; the text says how many, and how many are needed."""


def select(cluster: Cluster, excluded: Collection[Place] = (), global_batch: Optional[int] = None) -> Cluster:
    """The cluster with the hosts and devices that an attempt uses, and none in reserve.

    As many as the job began with, or as few as `min_devices` where no spare replaces what is excluded: only
    what the chip allows, and what shares `global_batch` evenly. Raises Shortage.
    """
    left = {
        host.name: [
            d.id for d in host.devices if not {Place(host.name), Place(host.name, d.id)} & {*excluded}
        ]
        for host in cluster.hosts
    }
    wanted = cluster.world_size
    fewest = cluster.min_devices or wanted
    for count in range(wanted, fewest - 1, -1):
        if count < wanted and global_batch is not None and global_batch % count:
            continue
        chosen = choose(cluster.chip, list(left.values()), count)
        if chosen is not None:
            return _using(cluster, dict(zip(left, chosen)), excluded)
    raise Shortage(_shortage(cluster, sum(map(len, left.values())), fewest, global_batch))


def _using(cluster: Cluster, chosen: Dict[str, List[int]], excluded: Collection[Place]) -> Cluster:
    used = [
        replace(host, devices=tuple(device for device in host.devices if device.id in chosen[host.name]))
        for host in cluster.hosts
        if chosen[host.name]
    ]
    if excluded:
        used = _in_place([host.name for host in select(cluster).hosts], used)
    return replace(cluster, hosts=tuple(used), spares=0, min_devices=None)


def _in_place(before: List[str], now: List[Host]) -> List[Host]:
    """A new host stands in the place of one that is gone: it takes that one's ranks; who stays keeps them."""
    kept = {host.name: host for host in now if host.name in before}
    new = [host for host in now if host.name not in before]
    order = [kept[name] if name in kept else (new.pop(0) if new else None) for name in before]
    return [host for host in order if host is not None] + new


def _shortage(cluster: Cluster, left: int, fewest: int, global_batch: Optional[int]) -> str:
    of = cluster.world_size + cluster.spares
    text = f"{left} of {of} devices {'is' if left == 1 else 'are'} left"
    rules = [f"at least {fewest}"]
    if cluster.chip.equal_servers:
        rules.append(f"a number that {cluster.chip.product} allows")
    if global_batch is not None and fewest < cluster.world_size:
        rules.append(f"one that divides the global batch of {global_batch}")
    fewer = f" or {'a lower ' if cluster.min_devices else ''}`min_devices`" if fewest > 1 else ""
    return (
        f"{text}, and the job needs {', '.join(rules)}: repair it, or give {cluster.source} `spares`{fewer}"
    )


def difference(before: Cluster, now: Cluster) -> str:
    """What the attempt does without what was excluded: who steps in, or with how few it goes on."""
    new = [str(place) for place in _places(now) if place not in set(_places(before))]
    texts = [f"{', '.join(new)} {'takes' if len(new) == 1 else 'take'} over"] if new else []
    if now.world_size != before.world_size:
        texts.append(f"{now.world_size} devices go on in place of {before.world_size}")
    return ", ".join(texts)


def reserve_notes(cluster: Cluster) -> List[str]:
    """Which devices of a cluster with spares an attempt does not use, as long as none has failed."""
    used = set(_places(select(cluster)))
    return [f"{place} is kept in reserve" for place in _places(cluster) if place not in used]


def _places(cluster: Cluster) -> Iterable[Place]:
    return (Place(host.name, device.id) for host in cluster.hosts for device in host.devices)
