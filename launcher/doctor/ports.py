"""TCP ports that HCCL and the ranks' meeting need: who holds them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from launcher.doctor.check import Check, Finding, Request, View

HCCL_BASE_PORT = 60000  # of HCCL_IF_BASE_PORT; HCCL takes so many from there on, on the host
HCCL_PORTS = 32
DEVICE_PORT = 16666  # of the devices' network cards; of the host's where the two share one
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
LISTEN, TIME_WAIT = "0A", "06"  # the latter of a connection that has ended: it keeps nobody from listening


class Socket(NamedTuple):
    port: int
    address: str
    inode: str
    uid: int
    listens: bool


def hccl_ports(environ: Mapping[str, str]) -> Tuple[int, ...]:
    """Those of the host that HCCL must have; none where it is given a range, of which it takes free ones."""
    if environ.get("HCCL_HOST_SOCKET_PORT_RANGE"):  # goes before the base port
        return ()
    base = environ.get("HCCL_IF_BASE_PORT", "")
    first = int(base) if base.isdecimal() else HCCL_BASE_PORT
    return tuple(range(first, first + HCCL_PORTS))


def wanted(request: Request) -> Tuple[int, ...]:
    """The ports that must be free on this host."""
    ports: List[int] = []
    if request.devices:
        ports += hccl_ports(os.environ)
        if not os.environ.get("HCCL_NPU_SOCKET_PORT_RANGE"):
            ports.append(DEVICE_PORT)
    if request.master_port is not None:
        ports.append(request.master_port)
    return tuple(ports)


def gather_ports(request: Request) -> List[Dict[str, Any]]:
    """The wanted ports that somebody holds at the host's address: port, owner, listens."""
    held: Dict[int, Socket] = {}
    ports = wanted(request)
    for entry in _sockets() if ports else ():
        is_here = entry.address in ("0.0.0.0", "::", request.address)
        if entry.port in ports and is_here and (entry.listens or entry.port not in held):
            held[entry.port] = entry
    owners = _owners({entry.inode for entry in held.values()})
    return [
        {
            "port": port,
            "owner": owners.get(entry.inode, f"a process of user id {entry.uid}"),
            "listens": entry.listens,
        }
        for port, entry in sorted(held.items())
    ]


def _sockets() -> Iterator[Socket]:
    for table in TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _, port = fields[1].partition(":")
            if fields[3] != TIME_WAIT:
                yield Socket(int(port, 16), _address(address), fields[9], int(fields[7]), fields[3] == LISTEN)


def _address(text: str) -> str:
    """The kernel's hexadecimal, which is in words of the machine's own byte order; IPv4 in IPv6 as IPv4."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    if packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _owners(inodes: Set[str]) -> Dict[str, str]:
    """Inode of a socket -> the process that has it open, of those that may be looked into."""
    found: Dict[str, str] = {}
    if not inodes:
        return found
    links = {f"socket:[{inode}]": inode for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError):  # somebody else's, ended, or of a user without a name
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            what = f"process {process.name} ({' '.join(words).strip()[:60]}) of user {process.owner()}"
            for link in links.keys() & _open_files(process):
                found.setdefault(links[link], what)
    return found


def _open_files(process: Path) -> Set[str]:
    found = set()
    for entry in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return found


def gather_reserved(request: Request) -> Optional[Dict[str, Any]]:
    """open: HCCL's ports that the system may give to an outgoing connection at any time; reserved: its own
    list of those that it does not."""
    try:
        first, last = map(int, EPHEMERAL.read_text().split())
        reserved = RESERVED.read_text().strip()
    except (OSError, ValueError):
        return None
    kept = set()
    for part in filter(None, reserved.split(",")):
        low, _, high = part.partition("-")
        kept |= set(range(int(low), int(high or low) + 1))
    may_go = [port for port in hccl_ports(os.environ) if first <= port <= last and port not in kept]
    return {"open": may_go, "reserved": reserved}


def judge_ports(view: View) -> Iterator[Finding]:
    for host, ports in view.each("ports"):
        for taken in ports:
            port, is_masters = taken["port"], taken["port"] == view.cluster.master_port
            if is_masters and host is not view.cluster.hosts[0]:
                continue  # the ranks meet on the first host alone
            remedy = "set HCCL_IF_BASE_PORT in `env` of the cluster file to 32 free ports"
            if is_masters:
                remedy = "leave master_port out to take a free one"
            elif port == DEVICE_PORT:
                remedy = "leave it where the devices have network cards of their own"
            yield Finding(
                host.name,
                f"TCP port {port} is held by {taken['owner']}",
                "the ranks cannot meet there" if is_masters else "HCCL cannot listen there (EI0019, EJ0003)",
                f"end it, or {remedy}",
                # a connection may be gone soon; the devices' own port is theirs, but where they share a card
                fatal=taken["listens"] and port != DEVICE_PORT,
            )


def judge_reserved(view: View) -> Iterator[Finding]:
    for host, known in view.each("reserved_ports"):
        if known["open"]:
            missing = f"{min(known['open'])}-{max(known['open'])}"
            whole = ",".join(filter(None, [known["reserved"], missing]))  # it takes the place of the old list
            yield Finding(
                host.name,
                f"the ports {missing} are not reserved",
                "any outgoing connection may take one, and HCCL then not listen (EI0019)",
                f"`sysctl -w net.ipv4.ip_local_reserved_ports={whole}`",
                fatal=False,
            )


CHECKS = (
    Check("ports", gather_ports, judge_ports),
    Check("reserved_ports", gather_reserved, judge_reserved, quick=False, ascend=True),
)
