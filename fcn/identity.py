"""Whether every rank is where the plan has it: compared after the meeting, before anything is trained.

MindSpore takes a rank table that it cannot use for a warning and numbers the ranks by itself. A rank on
another device than HCCL's table says then fails without a field's name, or the job hangs.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from fcn.errors import FcnError

RECORD_BYTES = 256  # what a rank says of itself; the same for all, as it is gathered
SHOWN_RANKS = 16  # of each table, where ranks are many

_COLUMNS = ("RANK", "HOST", "DEVICE", "ADDRESS")


class IdentityError(FcnError):
    """Ranks that are not where the plan has them."""


class Place(NamedTuple):
    """Where a rank is. `host`: what its host calls itself. `device`: the physical id, of a CPU worker its
    local rank. `address`: that it registers with at the scheduler. None: the plan does not say."""

    host: Optional[str]
    device: Optional[int]
    address: Optional[str]


def planned() -> Optional[List[Place]]:
    """The places of all ranks in the plan, from the file that FCN_PEERS names; None by hand."""
    path = os.environ.get("FCN_PEERS")
    return [Place(*peer) for peer in json.loads(Path(path).read_text())] if path else None


def here(device_index: int) -> Place:
    """Where this process is. device_index: among the job's devices of this host, of which FCN_DEVICES has the
    physical ids."""
    physical = os.environ.get("FCN_DEVICES")
    ids = [int(text) for text in physical.split(",")] if physical else range(device_index + 1)
    device = ids[device_index] if device_index < len(ids) else None
    return Place(socket.gethostname(), device, _own_address(os.environ.get("MS_SCHED_HOST")))


def _own_address(scheduler: Optional[str]) -> Optional[str]:
    """The address that MindSpore registers this worker with: MS_WORKER_IP, which it reads for IPv6 alone and
    which has to be one of this host's, else the one that the scheduler is reached from."""
    if scheduler is None:
        return None
    family = socket.AF_INET6 if ":" in scheduler else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            if family == socket.AF_INET6 and "MS_WORKER_IP" in os.environ:
                probe.bind((os.environ["MS_WORKER_IP"], 0))
                return str(probe.getsockname()[0])
        except OSError:
            pass  # not of this host
        probe.connect((scheduler, 1))  # of UDP: chooses the way, sends nothing
        return str(probe.getsockname()[0])


def encode(place: Place) -> bytes:
    """A place as RECORD_BYTES bytes, to be exchanged."""
    return json.dumps(place).encode().ljust(RECORD_BYTES)


def decode(record: bytes) -> Place:
    """The place that `encode` made the record of."""
    return Place(*json.loads(record))


def require_planned(plan: Sequence[Place], found: Sequence[Place]) -> None:
    """Raises IdentityError that shows both tables where a rank is not at its place."""
    pairs = enumerate(zip(plan, found))
    odd = [rank for rank, pair in pairs if any(a not in (None, b) for a, b in zip(*pair))]
    if len(plan) == len(found) and not odd:
        return
    odd += range(*sorted((len(plan), len(found))))
    first = odd[0]
    shown = range(max(len(plan), len(found)))
    if len(shown) > SHOWN_RANKS:
        shown = odd[:SHOWN_RANKS]  # type: ignore[assignment]
    raise IdentityError(
        f"rank {first} is not where the plan has it ({len(odd)} of {len(plan)} ranks are not).\n"
        f"planned:\n{_table(plan, shown, odd)}\nfound:\n{_table(found, shown, odd)}\n"
        f"{_remedy(plan, found, first)}"
    )


def _table(places: Sequence[Place], shown: Sequence[int], odd: Sequence[int]) -> str:
    rows = [_COLUMNS] + [
        (
            f"{rank}{' *' if rank in odd else ''}",
            *("-" if cell is None else str(cell) for cell in places[rank]),
        )
        for rank in shown
        if rank < len(places)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows)


def _remedy(plan: Sequence[Place], found: Sequence[Place], rank: int) -> str:
    if rank >= min(len(plan), len(found)):
        return "RANK_SIZE and MS_WORKER_NUM count the whole job: look for workers of another run at this port"
    want, have = plan[rank], found[rank]
    if want.address is not None and want.address != have.address and want.host in (None, have.host):
        return (
            f"correct `address` of this host in the cluster file, or pod_ip in its rank table: its workers "
            f"register with {have.address}"
        )
    return (
        "MindSpore has numbered the ranks otherwise: check pod_ip and the order of devices in the rank table"
    )
