"""A server with Ascend devices as its tools show it: `npu-smi` and `hccn_tool` that replay, device nodes.

The outputs are made here, in the layouts of npu-smi 23 to 26. Physical ids are those of /dev/davinciN.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

NAMES = {
    "ascend310p": "310P3",
    "ascend910": "910A",
    "ascend910b": "910B3",
    "ascend910_93": "Ascend910",
    "ascend950": "950PR",
}
SCRIPT = """#!/bin/sh
answer="${0%/*}/../answers/${0##*/} $*"
[ -f "$answer" ] && exec cat "$answer"
[ -f "$answer.hangs" ] && exec sleep 60
echo "Error parameter of -t"
exit 1
"""


@dataclass
class Npu:
    phy: int
    card: int
    chip: int = 0
    logic: int = 0
    health: str = "OK"
    hbm_used: int = 3400
    processes: List[Tuple[int, str, int]] = field(default_factory=list)  # pid, name, MB


def npus(kind: str, count: int) -> List[Npu]:
    dies = 2 if kind == "ascend910_93" else 1
    return [Npu(i, i // dies, i % dies, i) for i in range(count)]


def info_text(kind: str, chips: Sequence[Npu], version: str = "24.1.rc1", wide: bool = False) -> str:
    """`npu-smi info`; wide: as version 26 prints it, with the process ids in containers."""
    slot = kind == "ascend950"
    widths = (8, 18, 15, 53) if slot else (27, 15, 70 if wide else 52)
    row = _row(widths)
    rule, double = _rule(widths, "-"), _rule(widths, "=")
    lines = [
        "+" + "-" * (len(rule) - 2) + "+",
        _row((len(rule) - 2,))(f"npu-smi {version}   Version: {version}"),
    ]
    second = {"ascend910_93": "Chip  Phy-ID", "ascend310p": "Chip  Device"}.get(kind, "Chip")
    figures = "Power(W)    Temp(C)           Hugepages-Usage(page)"
    if slot:
        usage = "NPU Util(%) Memory-Usage(MB)  HBM-Usage(MB)"
        lines += [rule, row("NPU ID", "Name", "Health", figures), row("", "", "Bus-Id", usage), double]
    else:
        usage = "AICore(%)   Memory-Usage(MB)" + ("" if kind == "ascend310p" else "  HBM-Usage(MB)")
        lines += [rule, row("NPU   Name", "Health", figures), row(second, "Bus-Id", usage), double]
    for index, npu in enumerate(chips):
        power = "-" if npu.chip else "88.4"
        state = f"{power:<12}46                0    / 0"
        use = f"7           2505 / 15567      {npu.hbm_used:>5}/ 65536"
        name, bus = NAMES[kind], f"0000:{0xC1 - index:02X}:00.0"
        if slot:
            lines += [row(npu.card, name, npu.health, state), row("", "", bus, use)]
        else:
            ids = f"{npu.chip}     {npu.phy}" if kind in ("ascend910_93", "ascend310p") else npu.chip
            use = use[: use.rindex("   ")] if kind == "ascend310p" else use
            lines += [row(f"{npu.card}     {name}", npu.health, state), row(ids, bus, use)]
        is_last = index + 1 == len(chips) or chips[index + 1].card != npu.card
        lines.append(double if is_last else "+" + "-" * (len(rule) - 2) + "+")
    return "\n".join(lines + _process_lines(chips, slot, wide, len(rule) - 2)) + "\n"


def _process_lines(chips: Sequence[Npu], slot: bool, wide: bool, width: int) -> List[str]:
    inside = width - 27 - 15 - 26 - 3
    widths = (27, 15, 26, inside - 25, 24) if wide else (27, 15, 26, inside)
    row, rule, double = _row(widths), _rule((27, 15, width - 44), "-"), _rule((27, 15, width - 44), "=")
    more = ("Process id in container",) if wide else ()
    number = "NPU ID" if slot else "NPU     Chip"
    lines = [rule, row(number, "Process id", "Process name", "Process memory(MB)", *more), double]
    for card in dict.fromkeys(npu.card for npu in chips):
        rows = [
            row(card if slot else f"{card}       {npu.chip}", pid, name, memory, *(("NA",) if wide else ()))
            for npu in chips
            if npu.card == card
            for pid, name, memory in npu.processes
        ]
        lines += [*(rows or [_row((width,))(f"No running processes found in NPU {card}")]), double]
    return lines


def _row(widths: Sequence[int]):  # type: ignore[no-untyped-def]
    def row(*cells: object) -> str:
        assert len(cells) == len(widths)
        return "|" + "|".join(f" {str(cell):<{width - 1}}" for cell, width in zip(cells, widths)) + "|"

    return row


def _rule(widths: Sequence[int], sign: str) -> str:
    return "+" + "+".join(sign * width for width in widths) + "+"


def mapping_text(kind: str, chips: Sequence[Npu]) -> str:
    """`npu-smi info -m`; a card of 910B has an MCU besides."""
    name = NAMES[kind] if kind == "ascend910_93" else f"Ascend {NAMES[kind]}"
    columns = {
        "ascend910_93": ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name"),
        "ascend950": ("NPU ID", "Slot ID", "Chip ID", "Chip Phy-ID", "Chip Name"),
    }.get(kind, ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Name"))
    rows: List[Tuple[object, ...]] = [columns]
    for npu in chips:
        values = {"NPU ID": npu.card, "Chip ID": npu.chip, "Chip Logic ID": npu.logic, "Chip Phy-ID": npu.phy}
        rows.append(
            tuple({**values, "Slot ID": npu.card + 8, "Chip Name": name}[column] for column in columns)
        )
        if kind == "ascend910b":
            rows.append((npu.card, 1, "-", "Mcu"))
    return "".join("\t" + "".join(f"{str(cell):<31}" for cell in row) + "\n" for row in rows)


def topo_text(affinities: Sequence[Optional[str]], label: str = "NPU") -> str:
    """`npu-smi info -t topo`; without affinities as of 910_93 on Arm."""
    names = [f"{label}{i}" for i in range(len(affinities))]
    known = all(affinities)
    lines = ["\t   " + "".join(f"{name:<11}" for name in names) + ("CPU Affinity" if known else "")]
    for i, name in enumerate(names):
        links = "".join(f"{'X' if i == j else 'HCCS':<11}" for j in range(len(names)))
        lines.append(f"{name:<11}{links}{affinities[i] if known else ''}")
    return "\n".join([*lines, "", "Legend:", "", "  X    = Self", "  HCCS = Connection traversing HCCS.", ""])


class Server:
    """A folder with bin/ for PATH, dev/ with device nodes, and what the tools answer."""

    def __init__(
        self, folder: Path, kind: str = "ascend910", count: int = 8, ip: str = "192.1.27.{}"
    ) -> None:
        self.folder = folder
        self.kind = kind
        self.npus = npus(kind, count)
        self.bin, self.dev, self.answers = folder / "bin", folder / "dev", folder / "answers"
        for made in (self.bin, self.dev, self.answers):
            made.mkdir(parents=True)
        for tool in ("npu-smi", "hccn_tool"):
            (self.bin / tool).write_text(SCRIPT)
            (self.bin / tool).chmod(stat.S_IRWXU)
        (self.dev / "davinci_manager").touch()
        for npu in self.npus:
            (self.dev / f"davinci{npu.phy}").touch()
            self.card(npu.phy, ip=ip.format(npu.phy))
        self.tell()

    def answer(self, command: str, text: str) -> None:
        """What a tool prints from now on; command: with its arguments."""
        temporary = self.answers / "new"
        temporary.write_text(text)
        temporary.rename(self.answers / command)

    def hang(self, command: str) -> None:
        (self.answers / command).unlink()
        (self.answers / f"{command}.hangs").touch()

    def tell(self) -> None:
        """Writes what npu-smi says, after a change of `npus`."""
        self.answer("npu-smi info", info_text(self.kind, self.npus))
        self.answer("npu-smi info -m", mapping_text(self.kind, self.npus))

    def sicken(self, phy: int, health: str, codes: str) -> None:
        npu = next(npu for npu in self.npus if npu.phy == phy)
        npu.health = health
        text = f"\tHealth Status   : {health}\n\tError Code   : {codes}\n\tError Information   : a fault\n"
        self.answer(f"npu-smi info -t health -i {npu.card} -c {npu.chip}", text)
        self.tell()

    def card(self, phy: int, **values: str) -> None:
        """What hccn_tool says of a device's network card: ip, link, net_health, tls."""
        lines: Dict[str, str] = {
            "ip": "ipaddr:{}\nnetmask:255.255.0.0\n",
            "link": "link status: {}\n",
            "net_health": "net health status: {}\n",
            "tls": f"dev_id:{phy}, tls switch[{{}}](0:disable, 1:enable), tls alarm time threshold[60]days\n",
        }
        if "ip" in values:
            values = {"link": "UP", "net_health": "Success", "tls": "0", **values}
        for name, value in values.items():
            self.answer(f"hccn_tool -i {phy} -{name} -g", lines[name].format(value))

    def ping(self, phy: int, ip: str, received: int = 3) -> None:
        loss = 100 - received * 100 / 3
        text = (
            f"device {phy} PING {ip}\n3 packets transmitted, {received} received, {loss:.2f}% packet loss\n"
        )
        self.answer(f"hccn_tool -i {phy} -ping -g address {ip}", text)
