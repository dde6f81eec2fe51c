"""The plan of one attempt: ranks, rank table, environments, commands, meeting point. Pure: no clock, no file.

What was observed on the hosts comes in as `HostFacts`; the same input gives the same plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from launcher import binding, environment, rank_table_forms, rank_table_rules
from launcher.cluster_types import Cluster, Device, Host
from launcher.errors import PreflightError
from launcher.plan_types import (
    LOOPBACK,
    RANK_TABLE,
    Attempt,
    Bound,
    HostFacts,
    Job,
    Meeting,
    Peer,
    Plan,
    Process,
    Slot,
)
from launcher.rank_table import Place, Rank, RankTable, Server, of_places
from launcher.yaml_lines import Document


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
