"""What a host itself says about its Ascend devices: which exist, and the address of each one's network card.

Standard library only, as the agent runs it. Numbers are physical device ids: those of `/dev/davinci*`, of
`hccn_tool -i` and of a rank table's `device_id`. What a tool does not say clearly is unknown and left out:
a wrong address makes a job that hangs, a missing one makes a sentence.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

DRIVER_TOOLS = Path("/usr/local/Ascend/driver/tools")
HCCN_CONF = Path("/etc/hccn.conf")
TOOL_LIMIT_S = 10.0

_DEVICE_NODE = re.compile(r"davinci(\d+)")


def present_devices(dev: Path = Path("/dev")) -> Tuple[int, ...]:
    """Ids of the devices that have a node under `dev`, ascending; `davinci_manager` is not a device."""
    found = (_DEVICE_NODE.fullmatch(entry.name) for entry in dev.glob("davinci*"))
    return tuple(sorted(int(match.group(1)) for match in found if match))


def find_tool(name: str, driver_tools: Path = DRIVER_TOOLS) -> Optional[str]:
    """Path of a driver tool: on PATH, else in the driver's own folder, which is often not on PATH."""
    return shutil.which(name) or shutil.which(name, path=str(driver_tools))


def device_ips(
    device_ids: Iterable[int], hccn_conf: Path = HCCN_CONF, driver_tools: Path = DRIVER_TOOLS
) -> Dict[int, str]:
    """Device id -> IP address of its network card, only where it is known.

    `hccn_tool` reads the card. The configuration file says what the card was once told, so it is asked only
    on a host (or in a container) that has no `hccn_tool`.
    """
    ids = list(device_ids)
    tool = find_tool("hccn_tool", driver_tools)
    if tool is None:
        configured = _read_hccn_conf(hccn_conf)
        return {i: configured[i] for i in ids if i in configured}
    answers = zip(ids, _run_all([[tool, "-i", str(i), "-ip", "-g"] for i in ids]))
    known = ((i, parse_hccn_ip(text)) for i, text in answers if text is not None)
    return {i: ip for i, ip in known if ip is not None}


def parse_hccn_ip(text: str) -> Optional[str]:
    """The address in the output of `hccn_tool -i N -ip -g`; None when that is not just an address and a mask.

    The mask comes last, so that a cut output (192.168.1.1 of 192.168.1.101) shows by its absence.
    """
    match = re.fullmatch(r"\s*ipaddr:\s*(\S+)\s*\n\s*netmask:\s*(\S+)\s*", text)
    return _address_with_mask(match.group(1), match.group(2)) if match else None


def parse_hccn_conf(text: str) -> Optional[Dict[int, str]]:
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


def _read_hccn_conf(path: Path) -> Dict[int, str]:
    try:
        return parse_hccn_conf(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError):
        return {}


def _address_with_mask(address: str, mask: str) -> Optional[str]:
    try:
        network = ipaddress.ip_network(f"{address}/{mask}", strict=False)
    except ValueError:
        return None
    # an IPv4 mask has dots: a cut "255.255.0.0" that ends after its first digit would pass as a prefix length
    return str(ipaddress.ip_address(address)) if network.version == 6 or "." in mask else None


def _run_all(commands: List[List[str]]) -> List[Optional[str]]:
    """Standard output of each command, all run at once; None for one that failed or outlasted the limit."""
    running = [_start(command) for command in commands]
    return [None if process is None else _output(process) for process in running]


def _start(command: List[str]) -> Optional[subprocess.Popen[bytes]]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None


def _output(process: subprocess.Popen[bytes]) -> Optional[str]:
    try:
        output, _ = process.communicate(timeout=TOOL_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return output.decode("utf-8", "replace") if process.returncode == 0 else None
