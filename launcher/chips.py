"""What differs between the kinds of device: numbering, the subsets HCCL accepts, its time limits.

From Huawei's HCCL user guide (constraints, rank table configuration, HCCL_EXEC_TIMEOUT).
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

MAX_WORKERS_PER_HOST = 4096  # a slip of the finger in `devices: 80000` must not fill the memory


class Chip(NamedTuple):
    """One kind of device. `devices`: how many a server usually has; None where there is no such number."""

    kind: str
    product: str
    devices: Optional[int] = None
    most_devices: Optional[int] = (
        None  # of the largest server, where there are larger ones; see `_one_server`
    )
    ring: Optional[int] = None  # devices of a server form rings of so many: 2 or 4 must lie within one
    counts: Optional[Tuple[int, ...]] = None  # how many of a server's devices one job may use
    equal_servers: bool = False  # every server of a job must bring the same number
    needs_ip: bool = False  # its rank table names device addresses on a single server too
    table_versions: Tuple[str, ...] = ("1.0",)  # of the rank table: what it reads, the usual one first
    exec_timeout_step_s: int = 1  # HCCL rounds HCCL_EXEC_TIMEOUT down to a multiple
    exec_timeout_max_s: Optional[int] = None  # None: any, and 0 is for ever
    peak_tflops: Optional[float] = None  # half precision, a device; None: not known, or of several models

    @property
    def is_ascend(self) -> bool:
        return self.devices is not None

    @property
    def platform(self) -> str:
        """What the trainer has to know of the kind: FCN_PLATFORM."""
        return "ascend" if self.is_ascend else "cpu"


CHIPS = {
    chip.kind: chip
    for chip in (
        Chip("cpu", "CPU worker"),
        Chip(
            "ascend910",
            "Ascend 910",
            devices=8,
            ring=4,
            counts=(1, 2, 4, 8),
            equal_servers=True,
            needs_ip=True,
            exec_timeout_step_s=68,
            exec_timeout_max_s=17340,
            peak_tflops=256,
        ),
        Chip("ascend910b", "Ascend 910B", devices=8, most_devices=16),
        # two dies per NPU, each a device of its own; 1.0 is its AI-server form, 1.2 names super pods
        Chip("ascend910_93", "Ascend 910_93", devices=16, table_versions=("1.0", "1.2")),
        # as many as its rank table can name; servers have 8
        Chip("ascend950", "Ascend 950", devices=64, table_versions=("2.0",)),
    )
}


class SubsetProblem(NamedTuple):
    """Why the devices of one server cannot be used; `server` is its index."""

    server: int
    what: str
    expected: str
    remedy: str


def subset_problems(
    chip: Chip, servers: Sequence[Optional[Sequence[int]]], name: str = "hosts"
) -> Iterator[SubsetProblem]:
    """Checks each server's device ids against the chip's rules. None is a server that could not be read.

    name: of the list of servers, for the text.
    """
    for index, ids in enumerate(servers):
        if ids is not None:
            problem = _one_server(chip, index, ids)
            if problem:
                yield problem
    known = [(index, len(ids)) for index, ids in enumerate(servers) if ids is not None]
    if chip.equal_servers and known:
        first, count = known[0]
        for index, other in known[1:]:
            if other != count:
                yield SubsetProblem(
                    index,
                    f"{_devices(other)}, but {name}[{first}] has {count}",
                    f"the same number of {chip.product} devices on every server",
                    "give each server the same number of devices",
                )


def choose(chip: Chip, servers: Sequence[Sequence[int]], count: int) -> Optional[List[List[int]]]:
    """`count` of these devices that one job may use together, by server; None where there are none such.

    servers: the ids that may be used. The first ones are taken, as far as the chip's rules allow; where every
    server has to bring the same number, on as few servers as possible.
    """
    if not chip.equal_servers:
        chosen: List[List[int]] = []
        missing = count
        for ids in servers:
            chosen.append(list(ids[:missing]))
            missing -= len(chosen[-1])
        return None if missing else chosen
    for number in range(1, len(servers) + 1):
        each = count // number
        if count % number or (chip.counts and each not in chip.counts):
            continue
        parts = [_part(chip, ids, each) for ids in servers]
        able = [index for index, part in enumerate(parts) if part]
        if len(able) >= number:
            return [part if index in able[:number] else [] for index, part in enumerate(parts)]
    return None


def _part(chip: Chip, ids: Sequence[int], count: int) -> List[int]:
    """The first `count` of a server's devices that may be used together; empty where there are none such."""
    ring = chip.ring or len(ids)
    rings = ([i for i in ids if i // ring == number] for number in sorted({i // ring for i in ids}))
    for group in (*rings, ids):
        part = list(group[:count])
        if part and len(part) == count and _one_server(chip, 0, part) is None:
            return part
    return []


def _one_server(chip: Chip, index: int, ids: Sequence[int]) -> Optional[SubsetProblem]:
    if chip.devices is None:
        return None
    most = chip.most_devices or chip.devices
    absent = [i for i in ids if i >= most]
    if absent:
        return SubsetProblem(
            index,
            f"device {absent[0]} does not exist",
            f"device ids 0 to {most - 1}: an {chip.product} server has {most} devices",
            "correct the device ids",
        )
    lower, upper = ([i for i in ids if (i >= chip.devices) is above] for above in (False, True))
    if lower and upper and sorted(i + chip.devices for i in lower) != sorted(upper):
        return SubsetProblem(
            index,
            f"devices {list(ids)} of both halves do not face each other",
            f"of a server with {most} devices those of one half, or pairs such as 0 and {chip.devices}",
            f"use for example {[*lower, *(i + chip.devices for i in lower)]}",
        )
    if chip.counts and len(ids) not in chip.counts:
        return SubsetProblem(
            index,
            f"{_devices(len(ids))} {list(ids)}",
            f"{_or(chip.counts)} devices on a server of {chip.product}",
            f"use {max(count for count in chip.counts if count < len(ids))} of them",
        )
    if chip.ring and 1 < len(ids) < chip.devices and len({i // chip.ring for i in ids}) > 1:
        rings = [list(range(start, start + chip.ring)) for start in range(0, chip.devices, chip.ring)]
        return SubsetProblem(
            index,
            f"devices {list(ids)} are of two rings",
            f"{len(ids)} devices of one ring of {chip.product}: {_or(rings)}",
            f"use for example {rings[0][: len(ids)]}",
        )
    return None


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"


def _or(choices: Sequence[object]) -> str:
    *most, last = (str(choice) for choice in choices)
    return f"{', '.join(most)} or {last}"
