"""What a host says about itself before the plan is made."""

from __future__ import annotations

import errno
import os
import socket

PORTS = 4  # free ports that a host offers
FIRST_PORT = 20_000  # above the ports of services and of MindSpore's data channels (8118 and up)
EPHEMERAL_PORT = 32_768  # ports from here on are given to outgoing connections, at any time
USER_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")
USER_PREFIX = "HCCL_"


def facts(
    port: int | None = None,
    devices: tuple[int, ...] = (),
    address: str = "",
    examine: bool = False,
    bind: bool = False,
) -> dict:
    """The facts of `launcher.plan_types.HostFacts` as JSON, and of the doctor's quick part.

    port: a port that the user wants; it leads the free ports if it is free.
    devices: ids of the Ascend devices whose addresses are asked for.
    address: of this host, where HCCL listens.
    examine: whether to look for what is wrong here; see launcher/doctor.
    bind: whether workers are to be bound to CPUs, so that it is asked which are near the devices.
    """
    examined = _examined(port, devices, address) if examine else {}
    return {
        "cores": len(os.sched_getaffinity(0)),  # what we may use, not what the machine has
        "machine": os.uname().machine,
        "hostname": os.uname().nodename,
        "free_ports": free_ports(port),
        "environ": {
            name: value
            for name, value in os.environ.items()
            if name in USER_VARIABLES or name.startswith(USER_PREFIX)
        },
        **_device_facts(devices, examined.get("examined", {}).get("npus")),
        **examined,
        **(_topology(devices) if bind else {}),
    }


def _topology(devices: tuple[int, ...]) -> dict:
    from launcher.agent import topology

    return {"topology": topology.look(devices)}


def _examined(port: int | None, devices: tuple[int, ...], address: str) -> dict:
    from launcher.doctor.check import Request
    from launcher.doctor.gather import quick

    known, unknown = quick(Request(devices=devices, address=address, master_port=port))
    return {"examined": known, "unknown": unknown}


def _device_facts(devices: tuple[int, ...], npus: dict | None) -> dict:
    """npus: the doctor's fact; None: not known."""
    if not devices:
        return {}
    from launcher import devices as tools  # its imports would double the start of a CPU host's agent

    logical = tools.logical_ids(npus["devices"] if npus else ())
    return {
        "devices": list(tools.present_devices()),
        "logical": {str(device): number for device, number in logical.items()},
        "device_ips": {str(device): ip for device, ip in tools.device_ips(devices).items()},
    }


def free_ports(wanted: int | None = None) -> list[int]:
    """A few TCP ports that nobody uses now, `wanted` first if it is among them.

    Begins at a random place, so that two runs that start together on a host do not choose the same.
    """
    count = EPHEMERAL_PORT - FIRST_PORT
    start = int.from_bytes(os.urandom(4), "big")
    found = [wanted] if wanted is not None and is_free(wanted) else []
    for offset in range(count):
        port = FIRST_PORT + (start + offset) % count
        if len(found) == PORTS:
            break
        if port != wanted and is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on this port on every address, of both families where there are two."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False  # anything else: this host does not have the family
    return True
