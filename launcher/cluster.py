"""The cluster file: which hosts and devices a run uses. YAML in, a frozen `Cluster` out, or one UserError.

Plain dataclasses and `yaml_lines.Fields`: importing pydantic alone takes longer than `fcn-launch plan` may.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from launcher import cluster_fields as read
from launcher import cluster_table
from launcher.chips import CHIPS, MAX_WORKERS_PER_HOST, Chip
from launcher.cluster_rules import host_problems, reserve_problems
from launcher.cluster_types import Cluster, Device, Host, Timeouts
from launcher.errors import UserError
from launcher.rank_table import VERSIONS
from launcher.resources import folder
from launcher.yaml_lines import (
    REQUIRED,
    Document,
    Fields,
    Problem,
    Where,
    Wrong,
    as_is,
    nearest,
    one_of,
    read_yaml,
)

ENGINES = ("local", "exec")
RENDEZVOUS = ("store", "scheduler", "rank_table")

# The plan or the agent gives these to every worker; a value in `env` would contradict them.
PLANNED_VARIABLES = frozenset(
    {
        *("RANK_ID", "RANK_SIZE", "DEVICE_ID", "LOCAL_RANK", "ASCEND_RT_VISIBLE_DEVICES", "ASCEND_DEVICE_ID"),
        *("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH", "MASTER_ADDR", "MASTER_PORT"),
        *("MS_ROLE", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_WORKER_NUM", "MS_NODE_ID", "MS_WORKER_IP"),
    }
)
PLANNED_PREFIXES = ("FCN_", "OMPI_", "PMIX_")  # by the last two MindSpore takes a worker for one of mpirun

LONGEST_PHASE_S = 7000  # HCCL_CONNECT_TIMEOUT, which has to be longer than every phase, ends at 7200 s
TIMEOUT_RANGES = (  # seconds
    ("start_s", 1, LONGEST_PHASE_S),
    ("phase_s", 1, LONGEST_PHASE_S),
    ("hang_s", 1, LONGEST_PHASE_S),
    ("grace_s", 0, 3600),
)


def shipped_clusters() -> List[str]:
    """File names of the cluster files that come with fcn-launch."""
    return sorted(path.name for path in folder("cluster_configs").glob("*.yaml"))


def load_cluster(name_or_path: str) -> Cluster:
    """Reads a cluster file: a path, or else the name of a shipped one. Raises UserError with all mistakes."""
    path = Path(name_or_path)
    if not path.is_file() and path.name == name_or_path:
        path = folder("cluster_configs") / name_or_path
    if not path.is_file():
        close = nearest(Path(name_or_path).name, shipped_clusters())
        raise UserError(
            f"{name_or_path}: no such cluster file; expected a path or one of the shipped files"
            f" {', '.join(shipped_clusters())}; "
            + (f"did you mean '{close}'?" if close else "check the path")
        )
    return read_cluster(cluster_table.loaded(read_yaml(path)))


def cluster_from(values: Any, source: str) -> Cluster:
    """Rebuilds a Cluster from what `to_dict` gave; errors name `source` without a line."""
    return read_cluster(Document(source, values))


def read_cluster(document: Document) -> Cluster:
    """Checks a document's fields and the rules between them; raises one UserError with all mistakes."""
    problems = list(document.problems)
    value, table = cluster_table.filled(document)
    top = Fields(value, (), problems, "a mapping with at least device_kind and hosts")
    remedy = "write for example `device_kind: cpu`"
    kind = top.take("device_kind", read.device_kind, f"one of {', '.join(CHIPS)}", remedy)
    chip = CHIPS.get(kind)
    remedy = "use local for this machine alone, else exec"
    engine = top.take("engine", one_of(ENGINES), "local or exec", remedy, "local")
    hosts = _hosts(top, chip, problems)
    env = _env(top.take("env", read.mapping, "a mapping", "", {}), problems)
    remedy = "leave it out to take a free one"
    port_reader = read.number(int, 1024, 65535)
    port = top.take("master_port", port_reader, "a TCP port from 1024 to 65535", remedy, None)
    rendezvous = _rendezvous(top, chip, table is not None, problems)
    timeouts = _timeouts(top.take("timeouts", read.mapping, "a mapping", "", {}), problems)
    spares, min_devices = _reserve(top, hosts)
    remedy = "leave it out to take this one"
    python = top.take("python", read.program, "path of a Python", remedy, sys.executable)
    remedy = "leave it out to bind none"
    bind_cpus = top.take("bind_cpus", read.yes_or_no, "true or false", remedy, False)
    remedy = "leave it out to take the usual one of the device kind"
    version = top.take("rank_table_version", one_of(VERSIONS), f"one of {', '.join(VERSIONS)}", remedy, None)
    top.take("rank_table", as_is, "the path of a rank table, or the table", "", None)
    top.close()
    problems += host_problems(chip, engine, hosts, table is not None)
    problems += cluster_table.problems_with(table, version, chip, engine, hosts)
    if not problems:
        problems += reserve_problems(CHIPS[kind], hosts, spares)
    if problems:
        raise document.error(problems)
    return Cluster(
        device_kind=kind,
        hosts=tuple(hosts),
        engine=engine,
        rendezvous=rendezvous,
        env=env,
        master_port=port,
        timeouts=timeouts,
        spares=spares,
        min_devices=min_devices,
        rank_table=table,
        rank_table_version=version,
        bind_cpus=bind_cpus,
        python=python,
        source=document.path,
    )


def _rendezvous(top: Fields, chip: Optional[Chip], has_table: bool, problems: List[Problem]) -> str:
    on_ascend = chip is not None and chip.is_ascend
    remedy = "leave it out to take the default"
    default = "scheduler" if on_ascend or has_table else "store"
    expected = "scheduler, on cpu store, or on Ascend rank_table"
    value: str = top.take("rendezvous", one_of(RENDEZVOUS), expected, remedy, default)
    remedy = "write `rendezvous: scheduler` or leave it out"
    if on_ascend and value == "store":
        problems.append(Problem(("rendezvous",), "store works on cpu only", "scheduler", remedy))
    elif has_table and value == "store":
        what = "store takes no rank table"
        problems.append(Problem(("rendezvous",), what, "scheduler, which reads it", remedy))
    elif value == "rank_table" and chip is not None and not on_ascend:
        what = "MindSpore starts from a rank table alone on Ascend only"
        problems.append(Problem(("rendezvous",), what, "scheduler or store", remedy))
    return value


def _reserve(top: Fields, hosts: Sequence[Host]) -> Tuple[int, Optional[int]]:
    """`spares` and `min_devices`."""
    devices = sum(len(host.devices) for host in hosts if host.devices is not None)
    if not hosts or any(host.devices is None for host in hosts):
        devices = MAX_WORKERS_PER_HOST  # not known; what is wrong with the hosts is told
    expected = f"0 to {devices - 1}, as a job needs a device"
    spares = top.take("spares", read.number(int, 0, devices - 1), expected, "leave it out to keep none", 0)
    used = devices - (spares or 0)
    expected = f"1 to {used}, the devices that a job uses"
    remedy = "leave it out to stop rather than go on with fewer"
    return spares, top.take("min_devices", read.number(int, 1, used), expected, remedy, None)


def _hosts(top: Fields, chip: Optional[Chip], problems: List[Problem]) -> List[Host]:
    remedy = "write `hosts: [{name: node1, address: 10.0.0.1, devices: 8}]`"
    items = top.take("hosts", read.host_list, "a list of hosts", remedy)
    return [_host(item, ("hosts", i), chip, problems) for i, item in enumerate(items or ())]


def _host(value: Any, where: Where, chip: Optional[Chip], problems: List[Problem]) -> Host:
    """One entry of `hosts`. A field that is wrong is None, so that the rules can go on with the rest."""
    fields = Fields(
        {"address": value} if isinstance(value, str) else value,
        where,
        problems,
        "a host with name, address and devices",
    )
    address = fields.take(
        "address", read.host_address, "the host's IP address", "write for example `address: 10.0.0.1`"
    )
    name = fields.take(
        "name", read.name, "a unique name without spaces", "write for example `name: node1`", address
    )
    prefix = fields.take(
        "prefix",
        read.prefix,
        "a list of words that runs a command there",
        "write for example `[ssh, node1]`",
        (),
    )
    devices_read = fields.take(
        "devices",
        as_is,
        "a number of devices, a list of ids, or ids with addresses",
        "write for example `devices: 2`",
        REQUIRED if chip is None or chip.devices is None else chip.devices,
    )
    remedy = "leave it out to take the address"
    server_id = fields.take("server_id", read.text, "the host's server_id in the rank table", remedy, None)
    fields.close()
    devices = None if devices_read is None else _devices(devices_read, (*where, "devices"), problems)
    return Host(name, address, devices, prefix, server_id)  # type: ignore[arg-type]


def _devices(value: Any, where: Where, problems: List[Problem]) -> Optional[Tuple[Device, ...]]:
    """`8`, `[4, 5]` or `{4: 192.1.27.7, 5: 192.2.27.7}`, sorted by id; None when something is wrong."""
    before = len(problems)
    expected = (
        "a number of devices such as 8, a list of ids such as [4, 5], or {4: 192.1.27.7, 5: 192.2.27.7}"
    )
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_WORKERS_PER_HOST:
            range_text = f"1 to {MAX_WORKERS_PER_HOST} devices"
            problems.append(Problem(where, f"{value} devices", range_text, "write how many there are"))
            return None
        return tuple(Device(i) for i in range(value))
    pairs = [(i, None) for i in value] if isinstance(value, list) else value
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, list) or not pairs:
        problems.append(Problem(where, f"{value!r} names no devices", expected, "write one of these forms"))
        return None
    devices: Dict[int, Device] = {}
    for step, (written_id, ip) in enumerate(pairs):
        number = read.device_id(written_id)
        place = (*where, step if isinstance(value, list) else written_id)
        if number is None:
            remedy = "write device ids, with a space after the colon of an address"
            problems.append(Problem(place, f"{written_id!r} is not a device id", expected, remedy))
        elif number in devices:
            remedy = "remove one of them"
            problems.append(Problem(place, f"device {number} is listed twice", "each device once", remedy))
        else:
            try:
                devices[number] = Device(number, None if ip is None else read.ip(ip))
            except Wrong as wrong:
                remedy = f"write what `hccn_tool -i {number} -ip -g` shows on the host"
                problems.append(Problem(place, wrong.what, "the IP address of the device", remedy))
    return tuple(devices[i] for i in sorted(devices)) if len(problems) == before else None


def _env(value: Any, problems: List[Problem]) -> Dict[str, str]:
    if not isinstance(value, dict):
        remedy = "write `NAME: value` lines"
        problems.append(Problem(("env",), f"{value!r} is not a mapping", "names and values", remedy))
        return {}
    for name, text in value.items():
        where: Where = ("env", str(name))
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
            problems.append(Problem(where, "is not a variable name", "letters, digits and _", "rename it"))
        elif name in PLANNED_VARIABLES or name.startswith(PLANNED_PREFIXES):
            what = "is set by fcn-launch for each worker"
            problems.append(Problem(where, what, "a variable that the plan does not set", "remove it"))
        elif isinstance(text, bool) or not isinstance(text, (str, int)) or "\0" in str(text):
            remedy = f"put it in quotes: '{text}'"
            problems.append(Problem(where, f"{text!r} is not text", "text or a whole number", remedy))
    return {str(name): str(text) for name, text in value.items()}


def _timeouts(value: Any, problems: List[Problem]) -> Timeouts:
    fields = Fields(value, ("timeouts",), problems, "a mapping such as {start_s: 600, grace_s: 10}")
    seconds = {}
    for name, low, high in TIMEOUT_RANGES:
        reader = read.number(float, low, high)
        remedy = "leave it out to take the default"
        default = getattr(Timeouts, name)
        seconds[name] = fields.take(name, reader, f"{low} to {high} seconds", remedy, default)
    fields.close()
    return Timeouts(**seconds)
