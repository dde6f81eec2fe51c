"""What `npu-smi` 23 to 26 prints of Ascend 310P, 910, 910B, 910_93 and 950: read by header, or refused.

Pure. Columns are found by their names, values by the bars between them. Whatever is damaged, cut or unknown
raises Unreadable: a list of devices that lacks one makes a job that hangs.

Three numbers name a chip. `card` and `chip` are npu-smi's own: its options -i and -c. `logic` counts from 0
what this system or container sees, as ASCEND_RT_VISIBLE_DEVICES does. `phy` is that of `/dev/davinciN`, of
`hccn_tool -i` and of a rank table's `device_id`; some layouts leave it out.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from launcher.errors import Unreadable

COLUMNS = (
    *("NPU ID", "NPU Util(%)", "NPU", "Name", "Health", "Power(W)", "Temp(C)", "Hugepages-Usage(page)"),
    *("Chip", "Phy-ID", "Device", "Bus-Id", "AICore(%)", "Memory-Usage(MB)", "HBM-Usage(MB)"),
    *("Process id in container", "Process id", "Process name", "Process memory(MB)", "Process memory(B)"),
)
MAPPING_COLUMNS = ("NPU ID", "Slot ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name")
NOT_NPUS = ("mcu", "3559")  # other chips of a card, which the mapping lists too
MB = 1 << 20  # npu-smi divides by it

# What it prints in place of an answer -> what that means and what to do. From public reports of users.
FAILURES = {
    "ret is -8005": "the driver is not reachable; in a container pass in /dev/davinci*, /dev/davinci_manager,"
    " /dev/devmm_svm, /dev/hisi_hdc and /usr/local/Ascend/driver, on a host look at its installation",
    "ret is -8020": "the devices are held by another container; end it, or give this one others",
    "There is no NPU card": "no card is seen; look for it with `lspci | grep accelerators`",
    "Error parameter of": "this npu-smi does not know the question; update the driver",
    "does not support querying": "this board does not answer that",
}

_WORDS = re.compile("|".join(map(re.escape, sorted(COLUMNS, key=len, reverse=True))))
_VALUES = re.compile(r"[^\s/]+\s*/\s*[^\s/]+|\S+")  # a pair such as `0    / 65536`, or a word
_NO_PROCESSES = re.compile(r"No running processes found in NPU (\d+)")
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


class Chip(NamedTuple):
    """A chip in `npu-smi info`. None: the layout or the board does not tell."""

    card: int
    chip: int
    phy: Optional[int]
    name: str
    health: str  # OK, Warning, Alarm, Critical or UNKNOWN
    bus: Optional[str]  # PCI address, 0000:C1:00.0
    power_w: Optional[float]
    temp_c: Optional[float]
    aicore: Optional[float]  # per cent
    hbm_used_mb: Optional[int]
    hbm_mb: Optional[int]


class Process(NamedTuple):
    """A process on a chip, by the host's process ids. chip None: of a card with one chip."""

    card: int
    chip: Optional[int]
    pid: int
    name: str
    memory_mb: int


class Info(NamedTuple):
    """All of `npu-smi info`."""

    version: str
    chips: Tuple[Chip, ...]
    processes: Tuple[Process, ...]


class Mapped(NamedTuple):
    """A chip in `npu-smi info -m`."""

    card: int
    chip: int
    logic: Optional[int]
    phy: Optional[int]
    name: str


class Health(NamedTuple):
    """`npu-smi info -t health`. codes: hexadecimal words, none where all is well."""

    status: str
    codes: Tuple[str, ...]
    information: str


def parse_info(text: str) -> Info:
    """All chips and processes of `npu-smi info`. Raises Unreadable."""
    groups = _groups(text)
    if len(groups) < 4 or len(groups[0]) != 1 or len(groups[1]) != 2:
        raise _damaged("the heading of the table is not whole", text)
    version = re.fullmatch(r"npu-smi (\S+)\s+Version: (\S+)", groups[0][0][0])
    if version is None or len(groups[0][0]) != 1:
        raise _damaged("it does not begin with npu-smi's version", text)
    first, second = ([_columns(cell, text) for cell in row] for row in groups[1])
    heading = next((i for i, group in enumerate(groups) if group[0][1:2] == ["Process id"]), len(groups))
    ends = heading < len(groups) and len(groups[heading]) == 1
    if not ends and "Device" not in second[0]:  # of a 310P, whose boards do not all have it
        raise _damaged("the table of processes, which ends it, is missing", text)
    chips = []
    for group in groups[2:heading]:
        if len(group) != 2:
            raise _damaged(f"a chip has {len(group)} lines in place of two", text)
        chips.append(_chip({**_values(first, group[0], text), **_values(second, group[1], text)}, text))
    processes: Tuple[Process, ...] = ()
    cards = sorted({chip.card for chip in chips})
    if ends:
        columns = [_columns(cell, text) for cell in groups[heading][0]]
        cards, processes = _processes(columns, groups[heading + 1 :], text)
    _check_chips(chips, cards, text)
    return Info(version.group(1), tuple(chips), processes)


def _groups(text: str) -> List[List[List[str]]]:
    """The rows of the table by the rules between them; a row is its cells."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[WARNING]")]
    start = next((i for i, line in enumerate(lines) if line.startswith(("+", "|"))), None)
    if start is None or not lines[start].startswith("+") or not lines[-1].endswith("+"):
        raise _damaged("it is no whole table", text)
    groups: List[List[List[str]]] = [[]]
    for line in lines[start:]:
        if re.fullmatch(r"\+[-=+]+\+", line):
            groups.append([])
        elif len(line) > 1 and line[0] == line[-1] == "|":
            groups[-1].append([cell.strip() for cell in line[1:-1].split("|")])
        else:
            raise _damaged(f"`{line[:40]}` is no line of a table", text)
    return [group for group in groups if group]


def _columns(cell: str, text: str) -> List[str]:
    found = _WORDS.findall(cell)
    if _WORDS.sub("", cell).strip():
        raise _damaged(f"its heading `{cell}` is not known", text)
    return found


def _values(columns: Sequence[List[str]], row: Sequence[str], text: str) -> Dict[str, str]:
    """Column -> value of one row."""
    if len(columns) != len(row):
        raise _damaged(f"a row has {len(row)} cells in place of {len(columns)}", text)
    found: Dict[str, str] = {}
    for names, cell in zip(columns, row):
        values = _VALUES.findall(cell)
        if names[-1:] == ["Name"] or names == ["Process name"]:  # may hold blanks, a process's be empty
            values = [*values[: len(names) - 1], " ".join(values[len(names) - 1 :])]
        if len(values) != len(names):
            raise _damaged(f"`{cell}` should be {' and '.join(names) or 'empty'}", text)
        found.update(zip(names, values))
    return found


def _chip(values: Dict[str, str], text: str) -> Chip:
    used, size = _pair(values.get("HBM-Usage(MB)"))
    card = _number(values.get("NPU", values.get("NPU ID")), text)
    return Chip(
        card=card,
        chip=_number(values.get("Chip", "0"), text),
        phy=_number(values["Phy-ID"], text) if "Phy-ID" in values else None,
        name=_need(values, "Name", text),
        health=_need(values, "Health", text),
        bus=values["Bus-Id"] if re.fullmatch(r"[0-9A-Fa-f:.]+", _need(values, "Bus-Id", text)) else None,
        power_w=_measure(values.get("Power(W)")),
        temp_c=_measure(values.get("Temp(C)")),
        aicore=_measure(values.get("AICore(%)", values.get("NPU Util(%)"))),
        hbm_used_mb=used,
        hbm_mb=size,
    )


def _processes(
    columns: Sequence[List[str]], groups: Sequence[List[List[str]]], text: str
) -> Tuple[List[int], Tuple[Process, ...]]:
    """The cards that the table of processes speaks of, and the processes."""
    cards, found = [], []
    for group in groups:
        idle = _NO_PROCESSES.fullmatch(group[0][0]) if len(group) == 1 else None
        if idle is not None:
            cards.append(int(idle.group(1)))
            continue
        rows = [_process(_values(columns, row, text), text) for row in group]
        if len({row.card for row in rows}) != 1:
            raise _damaged("processes of two NPUs are not parted by a rule", text)
        cards.append(rows[0].card)
        found += rows
    return cards, tuple(found)


def _process(values: Dict[str, str], text: str) -> Process:
    in_bytes = values.get("Process memory(B)")
    memory = values.get("Process memory(MB)", in_bytes)
    return Process(
        card=_number(values.get("NPU", values.get("NPU ID")), text),
        chip=_number(values["Chip"], text) if "Chip" in values else None,
        pid=_number(values.get("Process id"), text),
        name=values.get("Process name", ""),
        memory_mb=_number(memory, text) // (1 if in_bytes is None else MB),
    )


def _check_chips(chips: Sequence[Chip], cards: Sequence[int], text: str) -> None:
    """What is lost without damage to a line: the table of processes names every card once more."""
    by_card: Dict[int, List[int]] = {}
    for chip in chips:
        by_card.setdefault(chip.card, []).append(chip.chip)
    if not chips or sorted(cards) != sorted(by_card):
        raise _damaged(f"it shows the NPUs {_list(by_card)}, but processes of {_list(cards)}", text)
    for card, numbers in by_card.items():
        if numbers != list(range(len(numbers))):
            raise _damaged(f"NPU {card} has the chips {_list(numbers)}", text)
    phys = [chip.phy for chip in chips if chip.phy is not None]
    if len(set(phys)) != len(phys) or len({len(numbers) for numbers in by_card.values()}) != 1:
        raise _damaged("chips are missing, or listed twice", text)


def parse_mapping(text: str) -> Tuple[Mapped, ...]:
    """The NPUs of `npu-smi info -m`. Raises Unreadable; a list that is cut between two lines passes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("NPU ID")), len(lines))
    columns = re.split(r"\s{2,}", lines[start]) if start < len(lines) else []
    if not {"NPU ID", "Chip ID", "Chip Name"} <= set(columns) <= {*MAPPING_COLUMNS}:
        raise _damaged("its heading is not known", text)
    found = []
    for line in lines[start + 1 :]:
        cells = re.split(r"\s{2,}", line)
        if len(cells) != len(columns):
            raise _damaged(f"`{line[:60]}` is not whole", text)
        values = dict(zip(columns, cells))
        if values["Chip Name"].lower() not in NOT_NPUS:
            found.append(_mapped(values, text))
    logics = [npu.logic for npu in found if npu.logic is not None]
    if not found or len({npu.name for npu in found}) != 1 or len({npu[:2] for npu in found}) != len(found):
        raise _damaged("chips are missing, listed twice, or not all alike", text)
    if logics and sorted(logics) != list(range(len(found))):
        raise _damaged(f"its logical ids are {_list(logics)}", text)
    return tuple(found)


def _mapped(values: Dict[str, str], text: str) -> Mapped:
    # With a slot, npu-smi has the newer numbering: its "NPU ID" is the logical one, and no other is told
    logic = values.get("Chip Logic ID", values["NPU ID"] if "Slot ID" in values else "-")
    phy = values.get("Chip Phy-ID", "-")
    return Mapped(
        card=_number(values["NPU ID"], text),
        chip=_number(values["Chip ID"], text),
        logic=None if logic == "-" else _number(logic, text),
        phy=None if phy == "-" else _number(phy, text),
        name=values["Chip Name"],
    )


def parse_remap(text: str) -> Mapped:
    """`npu-smi info -t phyid-remap -p N`: the other numbers of physical id N. Raises Unreadable."""
    values = _fields(text)
    phy = values.get("Chip Physical ID", values.get("Chip Phy-ID"))
    return Mapped(
        card=_number(values.get("NPU ID"), text),
        chip=_number(values.get("Chip ID"), text),
        logic=_number(values.get("Chip Logic ID", values.get("NPU ID")), text),
        phy=_number(phy, text),
        name="",
    )


def parse_health(text: str) -> Health:
    """`npu-smi info -t health -i CARD -c CHIP`. Raises Unreadable."""
    values = _fields(text)
    if not {"Health Status", "Error Code", "Error Information"} <= set(values):
        raise _damaged("it is not whole", text)
    codes = values["Error Code"].split()
    information = values["Error Information"]
    return Health(
        values["Health Status"],
        () if codes == ["NA"] else tuple(codes),
        "" if information == "NA" else information,
    )


def parse_topo(text: str) -> Dict[Tuple[str, int], str]:
    """`npu-smi info -t topo`: ("card" or "phy", its number) -> CPUs near it, as "0-23,96-119".

    Raises Unreadable, also where the board tells no CPUs (910_93 on Arm: every NPU is as near to all).
    """
    lines = [line.split() for line in text.splitlines()]
    end = next((i for i, words in enumerate(lines) if words == ["Legend:"]), None)
    start = next((i for i, words in enumerate(lines) if words and words[0] in ("NPU0", "Phy-ID0")), None)
    if start is None or end is None:
        raise _damaged("it is no whole matrix with its legend", text)
    if lines[start][-2:] != ["CPU", "Affinity"]:
        raise Unreadable("`npu-smi info -t topo` tells no CPUs here")
    labels = lines[start][:-2]
    rows = [words for words in lines[start + 1 : end] if words]
    if [words[0] for words in rows] != labels or any(len(words) != len(labels) + 2 for words in rows):
        raise _damaged("it is no whole matrix", text)
    found = {}
    for words in rows:
        label = re.fullmatch(r"(NPU|Phy-ID)(\d+)", words[0])
        if label is not None and _CPUS.fullmatch(words[-1]):
            found["card" if label.group(1) == "NPU" else "phy", int(label.group(2))] = words[-1]
    return found


def _fields(text: str) -> Dict[str, str]:
    """A block of `name : value` lines; a line without a name goes on with the value before."""
    found: Dict[str, str] = {}
    last = ""
    for line in filter(str.strip, text.splitlines()):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or (name and name in found):
            raise _damaged(f"`{line.strip()[:60]}` is not expected", text)
        if name:
            last = name
            found[name] = value
        elif last:
            found[last] += f"; {value}"
    return found


def _number(value: Optional[str], text: str) -> int:
    if value is None or not value.isdecimal():
        raise _damaged(f"`{value}` should be a number", text)
    return int(value)


def _need(values: Dict[str, str], name: str, text: str) -> str:
    if not values.get(name):
        raise _damaged(f"there is no {name}", text)
    return values[name]


def _measure(value: Optional[str]) -> Optional[float]:
    """A figure; None for "-" and "NA"."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _pair(value: Optional[str]) -> Tuple[Optional[int], Optional[int]]:
    used, _, size = (part.strip() for part in (value or "").partition("/"))
    return (int(used), int(size)) if used.isdecimal() and size.isdecimal() else (None, None)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"


def _damaged(what: str, text: str) -> Unreadable:
    """Why an output is refused: for a reason that npu-smi itself gives, else for what was found."""
    for sign, meaning in FAILURES.items():
        if sign in text:
            said = next(line.strip() for line in text.splitlines() if sign in line)
            return Unreadable(f"npu-smi says `{said}`: {meaning}")
    return Unreadable(f"the output of npu-smi cannot be trusted: {what}; run it by hand to see")
