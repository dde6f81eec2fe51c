"""The plan of one attempt: ranks, rank table, environments, commands, meeting point. Pure: no clock, no file.

What was observed on the hosts comes in as `HostFacts`; the same input gives the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from launcher import environment, rank_table
from launcher.cluster import Cluster, Device, Host
from launcher.errors import PreflightError

LOOPBACK = "127.0.0.1"
RANK_TABLE = "rank_table.json"


@dataclass(frozen=True)
class HostFacts:
    """What the agent of a host reported. None, or a missing entry, is unknown.

    `free_ports`: TCP ports, a wanted one first. `devices`: ids of the device nodes there are. `environ`: the
    user's own values of variables that the plan would choose otherwise.
    """

    cores: Optional[int] = None
    machine: Optional[str] = None
    hostname: Optional[str] = None
    free_ports: Tuple[int, ...] = ()
    device_ips: Mapping[int, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    devices: Optional[Tuple[int, ...]] = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HostFacts:
        """The facts as they come through JSON, which knows neither tuples nor integer keys."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["free_ports"] = tuple(known.get("free_ports") or ())
        known["device_ips"] = {int(i): ip for i, ip in (known.get("device_ips") or {}).items()}
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


@dataclass(frozen=True)
class Plan:
    """`processes`: the scheduler first if there is one, then by rank. `notes`: what a person should know."""

    attempt: int
    world_size: int
    rendezvous: str
    master_address: Optional[str]
    master_port: Optional[int]
    rank_table: Optional[Dict[str, Any]]
    processes: Tuple[Process, ...]
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
    """What all processes of an attempt share. `first_host`: rank 0's; `shell`: the user's variables there."""

    cluster: Cluster
    job: Job
    number: int
    world_size: int
    meeting: Meeting
    has_rank_table: bool
    first_host: str
    shell: Mapping[str, str]

    def rank_name(self, rank: int) -> str:
        """`rank-03`, with as many digits as keep the names of all ranks in order."""
        return f"rank-{rank:0{max(2, len(str(self.world_size - 1)))}d}"


def make_plan(
    cluster: Cluster,
    job: Job,
    facts: Mapping[str, HostFacts],
    attempt: int = 1,
    old_ports: Collection[int] = (),
) -> Plan:
    """Plans an attempt. A host without facts is planned without what only it could say, and a note says so.

    cluster: of what the attempt is to use alone, as `selection.select` gives it. facts: by host name.
    old_ports: where earlier attempts met.
    Raises PreflightError: a fixed port in use, no free port, an address that its host does not know. Raises
    UserError: the user set a limit that HCCL does not take.
    """
    slots = _slots(cluster, facts)
    meeting = _meeting(cluster, slots, facts, old_ports)
    table = _rank_table(cluster, slots, facts) if cluster.chip.is_ascend and len(slots) > 1 else None
    first = slots[0].host.name
    shell = facts[first].environ if first in facts else {}
    shared = Attempt(cluster, job, attempt, len(slots), meeting, table is not None, first, shell)
    processes = [_scheduler(shared, slots[0].host)] if meeting.rendezvous == "scheduler" else []
    processes += [_worker(shared, slot, facts.get(slot.host.name)) for slot in slots]
    return Plan(
        attempt=attempt,
        world_size=len(slots),
        rendezvous=meeting.rendezvous,
        master_address=meeting.address,
        master_port=meeting.port,
        rank_table=table,
        processes=tuple(processes),
        notes=tuple(_notes(cluster, slots, facts, meeting)),
    )


def _slots(cluster: Cluster, facts: Mapping[str, HostFacts]) -> List[Slot]:
    """Ranks host by host and device by device, so that a host's ranks follow each other."""
    slots: List[Slot] = []
    for host in _order(cluster):
        visible = tuple(device.id for device in host.devices)
        known = facts[host.name].device_ips if host.name in facts else {}
        for local_rank, device in enumerate(host.devices):
            with_ip = Device(device.id, device.ip or known.get(device.id))
            slots.append(Slot(len(slots), local_rank, host, with_ip, visible))
    return slots


def _order(cluster: Cluster) -> Sequence[Host]:
    """MindSpore wants ranks in the dictionary order of the table's server ids: 10.0.0.10 before 10.0.0.9."""
    return sorted(cluster.hosts, key=lambda host: host.address) if cluster.chip.is_ascend else cluster.hosts


def _meeting(
    cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts], old_ports: Collection[int]
) -> Meeting:
    if len(slots) == 1:
        return Meeting("none")
    host = slots[0].host
    address = LOOPBACK if cluster.engine == "local" else host.address
    port = cluster.master_port
    if host.name in facts:
        free = facts[host.name].free_ports
        if port is not None and port not in free:
            raise PreflightError(
                f"{host.name}: TCP port {port} is in use (master_port in {cluster.source}); "
                "end what holds it, name another port, or leave master_port out to take a free one"
            )
        if not free:
            raise PreflightError(f"{host.name}: no free TCP port was found; end programs that hold ports")
        # another one each time: a process of the last attempt may still hold or call the old one
        port = port or next((new for new in free if new not in old_ports), free[0])
    return Meeting(cluster.rendezvous, address, port)


def _rank_table(cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts]) -> Dict[str, Any]:
    by_host: Dict[str, List[Slot]] = {}
    for slot in slots:
        by_host.setdefault(slot.host.name, []).append(slot)
    unknown = [slot for slot in slots if slot.device.ip is None]
    silent = [slot for slot in unknown if slot.host.name in facts]
    if silent and (cluster.chip.needs_ip or len(by_host) > 1):
        ids = ", ".join(str(slot.device.id) for slot in silent)
        raise PreflightError(
            f"{silent[0].host.name}: no IP address is known for device {ids}: neither {cluster.source} nor "
            "hccn_tool or /etc/hccn.conf of the host names one; write `devices: {0: 192.1.27.6, ...}`"
        )
    servers = [
        rank_table.Server(
            server_id=own[0].host.address,
            # the address that the workers register with: the one through which they reach the scheduler
            pod_ip=LOOPBACK if cluster.engine == "local" else own[0].host.address,
            ranks=tuple(
                rank_table.Rank(slot.device.id, None if unknown else slot.device.ip, slot.rank)
                for slot in own
            ),
        )
        for own in by_host.values()
    ]
    table = rank_table.build(servers)
    problems = rank_table.check(table)
    if problems:
        raise PreflightError("the planned rank table is not valid:\n" + "\n".join(problems))
    return table


def _scheduler(shared: Attempt, host: Host) -> Process:
    return Process(
        name="scheduler",
        rank=None,
        host=host.name,
        local_rank=None,
        device_id=None,
        address=host.address,
        argv=(shared.cluster.python, "-m", "fcn.distributed"),
        env=environment.scheduler(shared),
        log="scheduler.log",
    )


def _worker(shared: Attempt, slot: Slot, facts: Optional[HostFacts]) -> Process:
    name = shared.rank_name(slot.rank)
    return Process(
        name=name,
        rank=slot.rank,
        host=slot.host.name,
        local_rank=slot.local_rank,
        device_id=slot.device.id,
        address=slot.device.ip or slot.host.address,
        argv=(shared.cluster.python, *shared.job.command),
        env=environment.worker(shared, slot, facts),
        log=f"{name}.log",
    )


def _notes(
    cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts], meeting: Meeting
) -> List[str]:
    notes = []
    order = [host.name for host in _order(cluster)]
    if order != [host.name for host in cluster.hosts]:
        notes.append(
            "ranks follow the dictionary order of the hosts' addresses, as MindSpore wants it, not that of "
            f"the file: {', '.join(order)}"
        )
    asked = sorted({slot.host.name for slot in slots} - set(facts))
    if asked and not cluster.chip.is_ascend:
        notes.append(
            f"cores and processor of {', '.join(asked)} are not known here: "
            "OMP_NUM_THREADS and ONEDNN_MAX_CPU_ISA are chosen when the run starts"
        )
    to_ask = [slot for slot in slots if slot.device.ip is None and slot.host.name in asked]
    if to_ask and cluster.chip.needs_ip and len(slots) > 1:
        ids = ", ".join(str(slot.device.id) for slot in to_ask)
        notes.append(
            f"the IP addresses of device {ids} of {to_ask[0].host.name} are asked for when the run starts: "
            "until then the rank table has none"
        )
    if meeting.rendezvous != "none" and meeting.port is None:
        notes.append(f"the port on {meeting.address} is chosen when the run starts")
    return notes
