"""How ranks meet, agree and sum. `python -m fcn.distributed` is MindSpore's scheduler, where one is used."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Iterator, List, NoReturn, Optional, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import get_group_size, get_rank, init

from fcn import identity
from fcn.platform import CPU, Platform
from fcn.status import Status

_POLL_S = 0.001
_LEAVE_TIMEOUT_S = 20.0
_PORT_POLL_S = 0.02
_START_TIMEOUT_S = float(os.environ.get("FCN_START_TIMEOUT_S", "600"))


@dataclass
class World:
    """The ranks of this run, seen from one of them. `status` is told before it waits for the others."""

    rank: int = 0
    size: int = 1
    status: Status = field(default_factory=Status, repr=False, compare=False)
    _store: Any = field(default=None, repr=False)

    def gather_sum(self, values: np.ndarray) -> np.ndarray:
        """Exact sum of an int64 array over all ranks.

        Gathered, then added: MindSpore's CPU all-reduce has no int64, and float32 loses counts above 2^24.
        Sent as halves: its all-gather takes int64, but only the lower 32 bits of it arrive.
        """
        self.status.gather()
        if self.size == 1:
            return values
        halves = Tensor(values[None].astype(np.int64).view(np.int32))
        gathered = self._all_gather(halves).asnumpy().view(np.int64)
        return gathered.reshape(self.size, *values.shape).sum(axis=0)

    def from_rank_0(self, values: np.ndarray) -> np.ndarray:
        """Rank 0's values of a float32 array, exactly, on every rank."""
        self.status.gather()
        mine = values if self.rank == 0 else np.zeros_like(values)
        return np.array(self._sum(Tensor(mine)).asnumpy())

    def places(self, here: identity.Place) -> List[identity.Place]:
        """Where each rank is, by what each says of itself."""
        record = identity.encode(here)
        if self._store is not None:  # quicker than to compile a collective
            self._store.set(f"place-{self.rank}", record.decode())
            _barrier(self._store, "places", self.size, _START_TIMEOUT_S)
            return [identity.decode(self._store.get(f"place-{rank}")) for rank in range(self.size)]
        words = Tensor(np.frombuffer(record, np.int32)[None].copy())
        gathered = self._all_gather(words).asnumpy().reshape(self.size, -1)
        return [identity.decode(row.tobytes()) for row in gathered]

    # Kept, as each cell compiles its graphs for itself.

    @cached_property
    def _all_gather(self) -> nn.Cell:
        return _AllGather()

    @cached_property
    def _sum(self) -> nn.Cell:
        return SumOverRanks(self.size)

    def leave(self, exit_code: int) -> NoReturn:
        """End this process once every rank has come here."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self._store is None:
            # MindSpore's own exit signs the rank off; to the scheduler a rank that vanished is a lost one.
            sys.exit(exit_code)
        # No limit: rank 0 may be long in its last save, as it waits for room. The launcher watches it.
        _barrier(self._store, "leave", self.size, math.inf)
        # The store lives in rank 0: it stays until the others have had its last answer.
        with suppress(RuntimeError):
            if self.rank == 0:
                _barrier(self._store, "left", self.size, _LEAVE_TIMEOUT_S)
            else:
                self._store.add("left", 1)
        os._exit(exit_code)  # MindSpore's exit joins threads that sleep for seconds


def join(platform: Platform, status: Status) -> World:
    """Meet the other ranks as the environment says (FCN_RENDEZVOUS) and check that all are where they should
    be.

    Raises IdentityError where MindSpore has made this process, or another one, a rank that was not planned.
    """
    kind = os.environ.get("FCN_RENDEZVOUS", "none")
    rank, size = int(os.environ.get("RANK_ID", "0")), int(os.environ.get("RANK_SIZE", "1"))
    if kind == "none":
        return World(status=status)
    device = int(os.environ.get("DEVICE_ID", "0"))  # before init(), which writes it anew
    store = None
    if kind == "store":
        store = _join_store(rank, size)
    elif kind == "rank_table":
        init()  # HCCL connects the addresses of RANK_TABLE_FILE
    else:
        _wait_for_port(os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"]))
        with _on_one_core(rank) if platform is CPU else nullcontext():
            init()
    world = World(get_rank(), get_group_size(), status, store)
    plan = identity.planned()
    if plan is not None:
        if platform is not CPU:
            device = ms.get_context("device_id")  # where it computes, whatever it was told
        identity.require_planned(plan, world.places(identity.here(device)))
    if (world.rank, world.size) != (rank, size):
        raise identity.IdentityError(
            f"this process was to be rank {rank} of {size}, but MindSpore has made it rank {world.rank} of "
            f"{world.size}; check RANK_ID and RANK_SIZE, and the rank table's pod_ip and device list"
        )
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=False, device_num=size
    )
    return world


def _join_store(rank: int, size: int) -> Any:
    """Meet without a scheduler process: rank 0 serves a key-value store that the others connect to.

    `_init_with_store` is private in MindSpore 2.10; the scheduler start stays available behind the same
    interface.
    """
    from mindspore.communication.management import _init_with_store
    from mindspore.mint.distributed import TCPStore

    timeout = timedelta(seconds=_START_TIMEOUT_S)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank != 0:
        _wait_for_port(host, port)  # a refused connection costs MindSpore half a second and more each time
    with _on_one_core(rank):
        store = TCPStore(host, port, size, rank == 0, timeout)
        _barrier(store, "join", size, _START_TIMEOUT_S)
        _init_with_store(backend="mccl", timeout=timeout, world_size=size, rank=rank, store=store)
    return store


@contextmanager
def _on_one_core(rank: int) -> Iterator[None]:
    """Keep this process on one core, as a batch process, while MindSpore connects.

    Its event thread otherwise answers a connection before the main thread has noted it; MindSpore takes that
    for a failure, waits half a second and tries again, up to 38 times.
    """
    cores = os.sched_getaffinity(0)
    with suppress(OSError):  # where it is not allowed the start is slower, no more
        os.sched_setaffinity(0, {sorted(cores)[rank % len(cores)]})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():  # those that were started meanwhile, too
            with suppress(OSError):
                os.sched_setaffinity(int(thread.name), cores)
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def _barrier(store: Any, name: str, size: int, timeout_s: float) -> None:
    """Wait until all ranks have come here; raises RuntimeError that says how many have."""
    deadline = time.monotonic() + timeout_s
    store.add(name, 1)
    while (come := store.add(name, 0)) < size:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {come} of {size} ranks have come to '{name}' in {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def _wait_for_port(host: str, port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            with socket.create_connection((host, port), timeout=1):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"no answer from {host}:{port} in {_START_TIMEOUT_S:.0f} s: {error}"
                ) from None
            time.sleep(_PORT_POLL_S)


class _AllGather(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.all_gather = ops.AllGather()

    def construct(self, x: Tensor) -> Tensor:
        return self.all_gather(x)


class SumOverRanks(nn.Cell):
    """The sum of a float32 tensor over all ranks; the tensor itself where there is one rank."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.all_reduce: Optional[nn.Cell] = ops.AllReduce() if size > 1 else None

    def construct(self, x: Tensor) -> Tensor:
        return x if self.all_reduce is None else self.all_reduce(x)


def gradient_sum(parameters: Sequence[ms.Parameter], size: int) -> nn.Cell:
    """A cell that sums gradients over all ranks."""
    if size == 1:
        return nn.Identity()
    return nn.DistributedGradReducer(list(parameters), mean=False, degree=size)


if __name__ == "__main__":
    init()  # with MS_ROLE=MS_SCHED it returns when every worker has signed off
