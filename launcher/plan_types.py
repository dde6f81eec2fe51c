"""What a plan is made of, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from launcher.cluster_types import Cluster, Device, Host

LOOPBACK = "127.0.0.1"
RANK_TABLE = "rank_table.json"

Bound = Mapping[Tuple[str, int], Tuple[int, ...]]  # (host, device id) -> CPUs of its worker
PEERS = "peers.json"


@dataclass(frozen=True)
class HostFacts:
    """What the agent of a host reported. None, or a missing entry, is unknown.

    `free_ports`: TCP ports, a wanted one first. `devices`: ids of the device nodes there are. `logical`: by
    device id the one that CANN knows it by. `environ`: the user's own values of variables that the plan would
    choose otherwise.
    """

    cores: Optional[int] = None
    machine: Optional[str] = None
    hostname: Optional[str] = None
    free_ports: Tuple[int, ...] = ()
    device_ips: Mapping[int, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    devices: Optional[Tuple[int, ...]] = None
    topology: Optional[Mapping[str, Any]] = None
    logical: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HostFacts:
        """The facts as they come through JSON, which knows neither tuples nor integer keys."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["free_ports"] = tuple(known.get("free_ports") or ())
        for name in ("device_ips", "logical"):
            known[name] = {int(i): value for i, value in (known.get(name) or {}).items()}
        if known.get("devices") is not None:
            known["devices"] = tuple(known["devices"])
        return cls(**known)


@dataclass(frozen=True)
class Job:
    """`command`: argv of a worker after the interpreter. `plan_dir`: where the plan's files go, if not below
    the attempt's own folder in `run_dir`."""

    verb: str
    run_dir: str
    command: Tuple[str, ...]
    plan_dir: Optional[str] = None

    def attempt_dir(self, attempt: int) -> str:
        return f"{self.run_dir}/attempt-{attempt:03d}"

    def plan_folder(self, attempt: int) -> str:
        return self.plan_dir or f"{self.attempt_dir(attempt)}/plan"


@dataclass(frozen=True)
class Process:
    """One process of the attempt.

    `address`: the device's where it has one, else the host's. `log`: file name in the attempt's folder.
    """

    name: str
    rank: Optional[int]
    host: str
    local_rank: Optional[int]
    device_id: Optional[int]
    address: str
    argv: Tuple[str, ...]
    env: Dict[str, str]
    log: str
    cpus: Tuple[int, ...] = ()


class Peer(NamedTuple):
    """Where a rank is to be found. `hostname`: what its host calls itself; None: not known. `device`: the
    physical id, of a CPU worker its local rank. `address`: that it registers with; None: it does not matter.
    """

    hostname: Optional[str]
    device: int
    address: Optional[str]


@dataclass(frozen=True)
class Plan:
    """`processes`: the scheduler first if there is one, then by rank. `notes`: what a person should know.

    `peers`: by rank, where it is to be found after the meeting.
    """

    attempt: int
    world_size: int
    rendezvous: str
    master_address: Optional[str]
    master_port: Optional[int]
    rank_table: Optional[Dict[str, Any]]
    processes: Tuple[Process, ...]
    peers: Tuple[Peer, ...] = ()
    notes: Tuple[str, ...] = ()

    def to_dict(self) -> Dict[str, Any]:
        """The whole plan as values that JSON can hold."""
        return {**vars(self), "processes": [dict(vars(process)) for process in self.processes]}


class Slot(NamedTuple):
    """Where one rank runs. `visible`: physical ids of all devices that the job uses on this host."""

    rank: int
    local_rank: int
    host: Host
    device: Device
    visible: Tuple[int, ...]

    @property
    def workers(self) -> int:
        """How many ranks share the host."""
        return len(self.visible)


class Meeting(NamedTuple):
    """How and where the ranks meet. `port` None: chosen when the run starts."""

    rendezvous: str
    address: Optional[str] = None
    port: Optional[int] = None


class Attempt(NamedTuple):
    """What all processes of an attempt share. `table_version`: of its rank table; None: it has none.
    `first_host`: rank 0's; `shell`: the user's variables there."""

    cluster: Cluster
    job: Job
    number: int
    world_size: int
    meeting: Meeting
    table_version: Optional[str]
    first_host: str
    shell: Mapping[str, str]

    def rank_name(self, rank: int) -> str:
        """`rank-03`, with as many digits as keep the names of all ranks in order."""
        return f"rank-{rank:0{max(2, len(str(self.world_size - 1)))}d}"
