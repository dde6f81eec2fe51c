"""What a cluster file says, checked: hosts, devices, limits."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from launcher import rank_table_forms
from launcher.chips import CHIPS, Chip
from launcher.errors import UserError
from launcher.rank_table import RankTable


class Device(NamedTuple):
    """`id`: physical id on its host. `ip`: address of its network card; None: unknown, or not needed."""

    id: int
    ip: Optional[str] = None


@dataclass(frozen=True)
class Host:
    """`address`: IP that the other hosts connect to. `prefix`: what runs a command there (engine exec).

    `server_id`: its name in the rank table; None: its address.
    """

    name: str
    address: str
    devices: Tuple[Device, ...]
    prefix: Tuple[str, ...] = ()
    server_id: Optional[str] = None


@dataclass(frozen=True)
class Timeouts:
    """`start_s`: until all ranks have met. `phase_s`: the longest that a rank may be busy away from the
    others (compile, evaluation, save). `hang_s`: no rank is taken for hung before, where limits are learnt
    from the run. `grace_s`: between SIGTERM and SIGKILL."""

    start_s: float = 600.0
    phase_s: float = 1800.0
    hang_s: float = 120.0
    grace_s: float = 10.0


@dataclass(frozen=True)
class Cluster:
    """A cluster file, checked. `hosts` in the file's order, a host's devices by id; `source`: the file.

    spares: how many of all devices are kept in reserve for those that fail. min_devices: with how few a run
    goes on when there is no spare left; None: with no fewer than it began with. rank_table: the one that the
    file gives; None: made from the hosts, in rank_table_version or the kind's usual one. bind_cpus: whether
    each worker is bound to the CPUs near its device.
    """

    device_kind: str
    hosts: Tuple[Host, ...]
    engine: str
    rendezvous: str
    env: Mapping[str, str] = field(default_factory=dict)
    master_port: Optional[int] = None
    timeouts: Timeouts = Timeouts()
    spares: int = 0
    min_devices: Optional[int] = None
    rank_table: Optional[RankTable] = None
    rank_table_version: Optional[str] = None
    bind_cpus: bool = False
    python: str = sys.executable
    source: str = ""

    @property
    def chip(self) -> Chip:
        return CHIPS[self.device_kind]

    @property
    def world_size(self) -> int:
        """How many devices a job uses: all but the spares."""
        return sum(len(host.devices) for host in self.hosts) - self.spares

    def only_device(self, device_id: int) -> Cluster:
        """This cluster with one device of its first host. Raises UserError where it has no such device."""
        host = self.hosts[0]
        devices = tuple(device for device in host.devices if device.id == device_id)
        if not devices:
            ids = ", ".join(str(device.id) for device in host.devices)
            raise UserError(
                f"--device-id {device_id}: host {host.name} of {self.source} has the devices {ids}"
            )
        return replace(self, hosts=(replace(host, devices=devices),), spares=0, min_devices=None)

    def to_dict(self) -> Dict[str, Any]:
        """All settings as plain values that YAML or JSON can hold and `cluster_from` reads back."""
        plain = replace(self, rank_table=None, hosts=())
        values = {name: value for name, value in asdict(plain).items() if name != "source"}
        values["rank_table"] = None if self.rank_table is None else rank_table_forms.render(self.rank_table)
        values["hosts"] = [
            {
                "name": host.name,
                "address": host.address,
                **({"prefix": list(host.prefix)} if host.prefix else {}),
                **({"server_id": host.server_id} if host.server_id else {}),
                "devices": {d.id: d.ip for d in host.devices}
                if any(d.ip for d in host.devices)
                else [d.id for d in host.devices],
            }
            for host in self.hosts
        ]
        return {name: value for name, value in values.items() if value is not None}
