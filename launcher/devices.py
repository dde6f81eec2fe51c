"""What a host itself says about its Ascend devices: which there are, by which numbers, how they are.

Standard library only, as the agent runs it. A device's `id` is its physical one: that of `/dev/davinciN`, of
`hccn_tool -i` and of a rank table's `device_id`. What a tool does not say clearly is unknown and left out:
a wrong address makes a job that hangs, a missing one makes a sentence.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from launcher import hccn, npu_smi
from launcher.errors import Unreadable

DEV = Path("/dev")
DRIVER_TOOLS = Path("/usr/local/Ascend/driver/tools")
TOOL_FOLDERS = "/usr/local/bin:/usr/local/sbin"  # of npu-smi; a command behind ssh has a short PATH
HCCN_CONF = Path("/etc/hccn.conf")
TOOL_LIMIT_S = 5.0  # npu-smi answers within one or two seconds; a driver that hangs, never

_DEVICE_NODE = re.compile(r"davinci(\d+)")


class Npu(NamedTuple):
    """One device. `id`: physical; `logic`: as ASCEND_RT_VISIBLE_DEVICES counts, None where that is not told;
    `card` and `chip`: as npu-smi counts; `state`: its name and how it is."""

    id: int
    logic: Optional[int]
    card: int
    chip: int
    state: npu_smi.Chip


class Inventory(NamedTuple):
    """The devices of a host by id, and the processes on them as (device id, process)."""

    version: str  # of npu-smi
    npus: Tuple[Npu, ...]
    processes: Tuple[Tuple[int, npu_smi.Process], ...]


def present_devices(dev: Optional[Path] = None) -> Tuple[int, ...]:
    """Ids of the devices that have a node under `dev`, ascending; `davinci_manager` is not a device."""
    found = (_DEVICE_NODE.fullmatch(entry.name) for entry in (dev or DEV).glob("davinci*"))
    return tuple(sorted(int(match.group(1)) for match in found if match))


def logical_ids(npus: Iterable[Mapping[str, Any]] = (), dev: Optional[Path] = None) -> Dict[int, int]:
    """Device id -> logical id, as ASCEND_RT_VISIBLE_DEVICES takes it: what npu-smi says, else its place among
    the devices that are here.

    On a host both are the same; a container counts those that it was given from 0 (CANN's documents, "user,
    logical and physical device id"). npus: see `fact`.
    """
    told = {npu["id"]: npu["logic"] for npu in npus if npu["logic"] is not None}
    return told or {device: place for place, device in enumerate(present_devices(dev))}


def find_tool(name: str, driver_tools: Optional[Path] = None) -> Optional[str]:
    """Path of a driver tool: on PATH, else where the driver puts it, which is often not on PATH."""
    return shutil.which(name) or shutil.which(name, path=f"{driver_tools or DRIVER_TOOLS}:{TOOL_FOLDERS}")


def device_ips(
    device_ids: Iterable[int], hccn_conf: Path = HCCN_CONF, driver_tools: Optional[Path] = None
) -> Dict[int, str]:
    """Device id -> IP address of its network card, only where it is known.

    `hccn_tool` reads the card. The configuration file says what the card was once told, so it is asked only
    on a host (or in a container) that has no `hccn_tool`.
    """
    ids = list(device_ids)
    if find_tool("hccn_tool", driver_tools) is None:
        configured = _read_hccn_conf(hccn_conf)
        return {i: configured[i] for i in ids if i in configured}
    answers = ask_cards([(i, ("-ip", "-g")) for i in ids], driver_tools)
    known = ((i, hccn.parse_ip(text)) for i, text in zip(ids, answers) if text is not None)
    return {i: ip for i, ip in known if ip is not None}


def ask_cards(
    questions: Iterable[Tuple[int, Sequence[str]]], driver_tools: Optional[Path] = None
) -> List[Optional[str]]:
    """What `hccn_tool -i ID WORDS` answers to each (id, words), all asked at once; None: it fails or hangs.

    Raises Unreadable where there is no `hccn_tool`.
    """
    tool = find_tool("hccn_tool", driver_tools)
    if tool is None:
        raise Unreadable("there is no hccn_tool, neither on PATH nor in the driver's folder")
    return run_all([[tool, "-i", str(i), *words] for i, words in questions])


def inventory(dev: Optional[Path] = None, driver_tools: Optional[Path] = None) -> Inventory:
    """All devices of this host. Raises Unreadable where its tools fail, contradict each other or are cut."""
    nodes = present_devices(dev)
    if not nodes:
        raise Unreadable("there is no Ascend device (no /dev/davinci*); in a container pass them in")
    tool = find_tool("npu-smi", driver_tools)
    if tool is None:
        raise Unreadable(f"there are the devices {nodes}, but no npu-smi on PATH; install the driver's tools")
    texts = run_all([[tool, "info"], [tool, "info", "-m"]], keep_failed=True)
    info, mapping = npu_smi.parse_info(_said(texts[0])), npu_smi.parse_mapping(_said(texts[1]))
    remaps: Tuple[npu_smi.Mapped, ...] = ()
    if _phys(info, mapping) is None and {npu.logic for npu in mapping} != set(nodes):
        asked = run_all([[tool, "info", "-t", "phyid-remap", "-p", str(i)] for i in nodes], keep_failed=True)
        remaps = tuple(npu_smi.parse_remap(_said(text)) for text in asked)
    return combine(nodes, info, mapping, remaps)


def combine(
    nodes: Sequence[int],
    info: npu_smi.Info,
    mapping: Sequence[npu_smi.Mapped],
    remaps: Sequence[npu_smi.Mapped] = (),
) -> Inventory:
    """The devices out of what device nodes and tools say of them. Pure. Raises Unreadable where they differ.

    An output that was cut between two lines is whole to the eye: it shows by the other sources alone.
    """
    shown = {(chip.card, chip.chip): chip for chip in info.chips}
    mapped = {(npu.card, npu.chip): npu for npu in mapping}
    if set(shown) != set(mapped):
        raise Unreadable(
            f"`npu-smi info` shows {len(shown)} chips and `npu-smi info -m` {len(mapped)},"
            " not the same ones; run both by hand to see"
        )
    ids = _phys(info, mapping)
    if ids is None:
        if remaps:
            ids = {(npu.card, npu.chip): npu.phy or 0 for npu in remaps}
        else:  # where the nodes count from 0 too, both count alike
            ids = {key: -1 if npu.logic is None else npu.logic for key, npu in mapped.items()}
    if set(ids) != set(shown) or sorted(ids.values()) != list(nodes):
        raise Unreadable(
            f"the devices of /dev/davinci* are {_list(nodes)}, those of npu-smi {_list(ids.values())}:"
            " which is which cannot be told; in a container, pass in as many as npu-smi shows"
        )
    npus = [Npu(ids[key], mapped[key].logic, *key, chip) for key, chip in shown.items()]
    try:
        processes = [(ids[process.card, process.chip or 0], process) for process in info.processes]
    except KeyError as key:
        raise Unreadable(f"npu-smi shows a process on NPU and chip {key}, but no such chip") from None
    return Inventory(info.version, tuple(sorted(npus)), tuple(processes))


def _phys(info: npu_smi.Info, mapping: Sequence[npu_smi.Mapped]) -> Optional[Dict[Tuple[int, int], int]]:
    """(card, chip) -> physical id as npu-smi prints it, None where it does not. Raises Unreadable."""
    by_info = {(chip.card, chip.chip): chip.phy for chip in info.chips}
    by_mapping = {(npu.card, npu.chip): npu.phy for npu in mapping}
    found = {}
    for key in {**by_info, **by_mapping}:
        told = {phy for phy in (by_info.get(key), by_mapping.get(key)) if phy is not None}
        if len(told) > 1:
            raise Unreadable(f"npu-smi gives NPU {key[0]} chip {key[1]} the physical ids {_list(told)}")
        if told:
            found[key] = told.pop()
    if found and len(found) != len(by_info):
        raise Unreadable("npu-smi gives only some chips a physical id; run `npu-smi info -m` by hand to see")
    return found or None


def health_of(npu: Npu) -> Optional[npu_smi.Health]:
    """The error codes of a device; None where they are not told."""
    try:
        answer = ask_npu_smi("-t", "health", "-i", str(npu.card), "-c", str(npu.chip))
        return npu_smi.parse_health(answer)
    except Unreadable:
        return None


def ask_npu_smi(*words: str) -> str:
    """What `npu-smi info WORDS` prints. Raises Unreadable where it does not answer."""
    tool = find_tool("npu-smi")
    if tool is None:
        raise Unreadable("there is no npu-smi on PATH; install the driver's tools")
    return _said(run_all([[tool, "info", *words]], keep_failed=True)[0])


def fact(npu: Npu) -> Dict[str, Any]:
    """A device as JSON: its numbers, its figures, and its error codes where it is not OK."""
    told = {**npu.state._asdict(), "id": npu.id, "logic": npu.logic}
    del told["phy"]
    health = health_of(npu) if npu.state.health != "OK" else None
    return {**told, "codes": [] if health is None else list(health.codes)}


def run_all(commands: Sequence[Sequence[str]], keep_failed: bool = False) -> List[Optional[str]]:
    """What each command prints, all run at once for TOOL_LIMIT_S at most; None for one that fails or hangs.

    keep_failed: also what one printed that failed, as it says why.
    """
    running = [_start(command) for command in commands]
    end = time.monotonic() + TOOL_LIMIT_S
    return [None if process is None else _output(process, end, keep_failed) for process in running]


def _said(text: Optional[str]) -> str:
    if text is None:
        raise Unreadable(
            f"npu-smi did not answer within {TOOL_LIMIT_S:g} s, or could not be run: a driver that hangs;"
            " see `dmesg`, reset the device or start the host anew"
        )
    return text


def _start(command: Sequence[str]) -> Optional[subprocess.Popen[bytes]]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None


def _output(process: subprocess.Popen[bytes], end: float, keep_failed: bool) -> Optional[str]:
    try:
        output, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return output.decode("utf-8", "replace") if keep_failed or process.returncode == 0 else None


def _read_hccn_conf(path: Path) -> Dict[int, str]:
    try:
        return hccn.parse_conf(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError):
        return {}


def _list(ids: Iterable[int]) -> str:
    return ", ".join("?" if i < 0 else str(i) for i in sorted(ids)) or "none"
