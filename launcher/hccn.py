"""What `hccn_tool` prints of a device's network card, and /etc/hccn.conf says: read whole, or unknown.

Pure. Numbers are physical device ids. None is "it does not say that clearly".
"""

from __future__ import annotations

import ipaddress
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from launcher.errors import Unreadable


class Ping(NamedTuple):
    """Packets of `hccn_tool -i N -ping -g address IP`."""

    sent: int
    received: int


class Port(NamedTuple):
    """A port of `hccn_tool -i N -dev_info -g`, which is how an Ascend 950 names its links."""

    die: int
    port: int
    kind: str  # ETH or UB
    is_up: bool


def parse_ip(text: str) -> Optional[str]:
    """The address in `hccn_tool -i N -ip -g`; None when that is not just an address and a mask.

    The mask comes last, so that a cut output (192.168.1.1 of 192.168.1.101) shows by its absence.
    """
    match = re.fullmatch(r"\s*ipaddr:\s*(\S+)\s*\n\s*netmask:\s*(\S+)\s*", text)
    return _address_with_mask(match.group(1), match.group(2)) if match else None


def parse_conf(text: str) -> Optional[Dict[int, str]]:
    """Device id -> address in the text of `/etc/hccn.conf`; None when a line is damaged or contradicted.

    A device without a valid mask is left out: the file may have been cut within its address.
    """
    fields: Dict[Tuple[str, int], str] = {}
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        match = re.fullmatch(r"(address|netmask)_(\d+)", key)
        if not equals or (match and fields.get((match.group(1), int(match.group(2))), value) != value):
            return None
        if match:
            fields[match.group(1), int(match.group(2))] = value
    ids = sorted(i for name, i in fields if name == "address")
    known = ((i, _address_with_mask(fields["address", i], fields.get(("netmask", i), ""))) for i in ids)
    return {i: ip for i, ip in known if ip is not None}


def parse_link(text: str) -> Optional[bool]:
    """Whether `hccn_tool -i N -link -g` says that the link is up."""
    match = re.fullmatch(r"\s*link status:\s*(UP|DOWN)\s*", text)
    return match.group(1) == "UP" if match else None


def parse_net_health(text: str) -> Optional[str]:
    """What `hccn_tool -i N -net_health -g` says: Success, Init (not looked yet), Fault, Socket failed, ..."""
    match = re.fullmatch(r"\s*net health status:\s*(\S[^\n]*?)\s*", text)
    return match.group(1) if match else None


def parse_tls(text: str) -> Optional[bool]:
    """Whether `hccn_tool -i N -tls -g` says that TLS is on; certificates that follow are passed over."""
    switches = set(re.findall(r"tls switch\[([01])\]\(0:disable, 1:enable\)", text))
    return switches == {"1"} if len(switches) == 1 else None


def parse_ping(text: str) -> Optional[Ping]:
    """The last line of `hccn_tool -i N -ping -g address IP`."""
    match = re.search(r"^\s*(\d+) packets transmitted, (\d+) received, [\d.]+% packet loss\s*\Z", text, re.M)
    return Ping(int(match.group(1)), int(match.group(2))) if match else None


def parse_dev_info(text: str) -> List[Port]:
    """The ports in `hccn_tool -i N -dev_info -g`. Raises Unreadable."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    if len(lines) < 5 or lines[-1] != lines[0] or not re.fullmatch(r"\+[-+]+\+", lines[0]):
        raise Unreadable("the table of `hccn_tool -dev_info` is not whole; run it by hand to see")
    ports = []
    for row in rows[1:]:
        values = dict(zip(rows[0], row))
        status = values.get("Link Status", "")
        numbers = (values.get("UdieID", ""), values.get("PortID", ""))
        if len(row) != len(rows[0]) or status not in ("UP", "DOWN") or not all(map(str.isdecimal, numbers)):
            raise Unreadable(f"`hccn_tool -dev_info` has the row {row}, not known; run it by hand to see")
        ports.append(Port(int(numbers[0]), int(numbers[1]), values.get("PortType", ""), status == "UP"))
    return ports


def _address_with_mask(address: str, mask: str) -> Optional[str]:
    try:
        network = ipaddress.ip_network(f"{address}/{mask}", strict=False)
    except ValueError:
        return None
    # an IPv4 mask has dots: a cut "255.255.0.0" that ends after its first digit would pass as a prefix length
    return str(ipaddress.ip_address(address)) if network.version == 6 or "." in mask else None
