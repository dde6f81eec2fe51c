"""The plan of one attempt: ranks, rank table, environments, commands, meeting point. Pure: no clock, no file.

What was observed on the hosts comes in as `HostFacts`; the same input gives the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from launcher import binding, environment, rank_table_forms, rank_table_rules
from launcher.cluster import Cluster, Device, Host
from launcher.errors import PreflightError
from launcher.rank_table import Place, Rank, RankTable, Server, of_places
from launcher.yaml_lines import Document

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
    table = _rank_table(cluster, slots, facts)
    first = slots[0].host.name
    shell = facts[first].environ if first in facts else {}
    version = None if table is None else table.version
    shared = Attempt(cluster, job, attempt, len(slots), meeting, version, first, shell)
    processes = [_scheduler(shared, slots[0].host)] if meeting.rendezvous == "scheduler" else []
    bound, bound_notes = _bound(cluster, facts)
    processes += [_worker(shared, slot, facts.get(slot.host.name), bound) for slot in slots]
    return Plan(
        attempt=attempt,
        world_size=len(slots),
        rendezvous=meeting.rendezvous,
        master_address=meeting.address,
        master_port=meeting.port,
        rank_table=None if table is None else rank_table_forms.render(table),
        processes=tuple(processes),
        peers=tuple(_peer(shared, slot, facts.get(slot.host.name)) for slot in slots),
        notes=(*_notes(cluster, slots, facts, meeting), *bound_notes),
    )


def _slots(cluster: Cluster, facts: Mapping[str, HostFacts]) -> List[Slot]:
    """By rank: host by host and device by device, so that a host's ranks follow each other; those of a given
    rank table as it has them. A local rank counts the devices of a host by their ids in any case."""
    slots: List[Slot] = []
    for host in _order(cluster):
        visible = tuple(device.id for device in host.devices)
        known = facts[host.name].device_ips if host.name in facts else {}
        for local_rank, device in enumerate(host.devices):
            with_ip = Device(device.id, device.ip or known.get(device.id))
            slots.append(Slot(len(slots), local_rank, host, with_ip, visible))
    if cluster.rank_table is None:
        return slots
    table = of_places(cluster.rank_table, [_place(slot) for slot in slots])
    ranks = {(server.server_id, rank.device_id): rank.rank_id for server, rank in table.by_rank()}
    return sorted(slot._replace(rank=ranks[_place(slot)]) for slot in slots)


def _place(slot: Slot) -> Place:
    return _server_id(slot.host), slot.device.id


def _server_id(host: Host) -> str:
    return host.server_id or host.address


def _order(cluster: Cluster) -> Sequence[Host]:
    """MindSpore wants ranks in the dictionary order of the table's server ids: 10.0.0.10 before 10.0.0.9."""
    if not cluster.chip.is_ascend:
        return cluster.hosts
    return sorted(cluster.hosts, key=_server_id)


def _meeting(
    cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts], old_ports: Collection[int]
) -> Meeting:
    if len(slots) == 1:
        return Meeting("none")
    if cluster.rendezvous == "rank_table":
        return Meeting("rank_table")  # HCCL itself connects the addresses of the table
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


def _rank_table(
    cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts]
) -> Optional[RankTable]:
    """The table that the attempt needs, checked; None where it needs none."""
    if len(slots) == 1 or not (cluster.chip.is_ascend or cluster.rank_table):
        return None
    hosts = {_server_id(slot.host): slot.host for slot in slots}
    unknown = [slot for slot in slots if slot.device.ip is None and cluster.rank_table is None]
    silent = [slot for slot in unknown if slot.host.name in facts]
    if silent and (cluster.chip.needs_ip or len(hosts) > 1):
        ids = ", ".join(str(slot.device.id) for slot in silent)
        raise PreflightError(
            f"{silent[0].host.name}: no IP address is known for device {ids}: neither {cluster.source} nor "
            "the host's hccn_tool (where it has none, /etc/hccn.conf) names one; see what `hccn_tool -i "
            f"{silent[0].device.id} -ip -g` says there, or write `devices: {{0: 192.1.27.6, ...}}`"
        )
    if cluster.rank_table is None:
        table = _made_table(cluster, slots, has_ips=not unknown)
    else:
        table = of_places(cluster.rank_table, [_place(slot) for slot in slots])
        if table.version != "2.0":  # which has no place for a pod_ip
            servers = (replace(s, pod_ip=_pod_ip(cluster, hosts[s.server_id])) for s in table.servers)
            table = replace(table, servers=tuple(servers))
    problems = rank_table_rules.check(rank_table_forms.render(table), None if unknown else cluster.chip)
    if problems:
        raise PreflightError(
            f"the planned rank table is not valid: {Document(RANK_TABLE, {}).error(problems)}"
        )
    return table


def planned_table(cluster: Cluster) -> RankTable:
    """The rank table of all devices of a cluster, made from what its file says alone."""
    slots = _slots(cluster, {})
    return _made_table(cluster, slots, has_ips=all(slot.device.ip for slot in slots))


def _made_table(cluster: Cluster, slots: Sequence[Slot], has_ips: bool) -> RankTable:
    by_host: Dict[str, List[Slot]] = {}
    for slot in slots:
        by_host.setdefault(slot.host.name, []).append(slot)
    servers = tuple(
        Server(
            server_id=_server_id(own[0].host),
            ranks=tuple(Rank(s.rank, s.device.id, s.device.ip if has_ips else None) for s in own),
            pod_ip=_pod_ip(cluster, own[0].host),
        )
        for own in by_host.values()
    )
    return RankTable(cluster.rank_table_version or cluster.chip.table_versions[0], servers)


def _pod_ip(cluster: Cluster, host: Host) -> str:
    """The address that the host's workers register with: through it they reach the scheduler."""
    return LOOPBACK if cluster.engine == "local" else host.address


def _peer(shared: Attempt, slot: Slot, facts: Optional[HostFacts]) -> Peer:
    cluster = shared.cluster
    # MindSpore's scheduler finds a worker in the table by the address
    is_found_by_address = shared.table_version is not None and shared.meeting.rendezvous == "scheduler"
    return Peer(
        hostname=None if facts is None else facts.hostname,
        device=slot.device.id if cluster.chip.is_ascend else slot.local_rank,
        address=_pod_ip(cluster, slot.host) if is_found_by_address else None,
    )


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


def _bound(cluster: Cluster, facts: Mapping[str, HostFacts]) -> Tuple[Bound, List[str]]:
    """The CPUs of each (host, device id), and what to tell of them; nothing where none are to be bound."""
    if not cluster.bind_cpus:
        return {}, []
    topologies = {name: known.topology for name, known in facts.items() if known.topology is not None}
    return binding.bind(topologies, {host.name: [d.id for d in host.devices] for host in cluster.hosts})


def _worker(shared: Attempt, slot: Slot, facts: Optional[HostFacts], bound: Bound) -> Process:
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
        cpus=bound.get((slot.host.name, slot.device.id), ()),
    )


def _notes(
    cluster: Cluster, slots: Sequence[Slot], facts: Mapping[str, HostFacts], meeting: Meeting
) -> List[str]:
    notes = []
    order = [host.name for host in _order(cluster)]
    if cluster.rank_table is None and order != [host.name for host in cluster.hosts]:
        notes.append(
            "ranks follow the dictionary order of the hosts' server ids, as MindSpore wants it, not that of "
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
    in_part = {slot.host.name for slot in slots if slot.visible != tuple(range(cluster.chip.devices or 0))}
    in_part &= set(asked)
    if cluster.chip.is_ascend and in_part:
        notes.append(
            f"ASCEND_RT_VISIBLE_DEVICES of {', '.join(sorted(in_part))} is that of a host; where it is a "
            "container, it is known when the run starts"
        )
    if meeting.address is not None and meeting.port is None:
        notes.append(f"the port on {meeting.address} is chosen when the run starts")
    return notes
