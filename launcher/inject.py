"""`--inject FAULT[@step][:rank]`: a failure made on purpose, to see what becomes of it.

It happens in the first attempt alone: what follows from it, such as a restart, then goes its way. What a
worker does to itself is in fcn/inject.py; what the launcher does is here.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Optional

from launcher.errors import UserError
from launcher.yaml_lines import nearest

if TYPE_CHECKING:
    import socket

    from launcher.cluster_types import Cluster
    from launcher.plan_types import Plan

VARIABLE = "FCN_INJECT"  # FAULT@STEP, in the environment of the rank that fails
DEFAULT_STEP = 2  # the first one compiles

FAULTS = {
    "crash": "exit code 1 without a word",
    "raise": "an exception",
    "oom": "SIGKILL, what a lack of memory ends in",
    "segv": "a segmentation fault",
    "hang": "blocked in Python",
    "slow": "a second more for each step",
    "stop": "SIGSTOP",
    "exit0-early": "exit code 0 in mid-training",
    "spin": "an endless loop in Python",
    "disk-full": "no room left for its log",
    "port-taken": "the port at which the ranks meet is in use",
    "agent-killed": "SIGKILL for the agent of its host",
    "supervisor-killed": "SIGKILL for the launcher",
    "worker-grandchild": "dies and leaves children, one with a session of its own, that ignore SIGTERM",
}
OF_THE_LAUNCHER = ("port-taken", "supervisor-killed")  # all others are done by a worker

_FORM = re.compile(r"(?P<fault>[^@:]+)(?:@(?P<step>\d+))?(?::(?P<rank>\d+))?")


class Injection(NamedTuple):
    """`fault` happens when `rank` is about to do `step`; port-taken before any rank is started."""

    fault: str
    step: int
    rank: int

    def __str__(self) -> str:
        return f"{self.fault}@{self.step}:{self.rank}"

    def into(self, plan: Plan) -> Plan:
        """The plan with the order for its rank. Pure."""
        if plan.attempt != 1:
            return plan
        processes = plan.processes
        if self.fault not in OF_THE_LAUNCHER:
            order = {VARIABLE: f"{self.fault}@{self.step}"}
            processes = tuple(
                replace(process, env={**process.env, **order}) if process.rank == self.rank else process
                for process in processes
            )
        return replace(plan, processes=processes, notes=(*plan.notes, f"this fault is injected: {self}"))

    def take_port(self, plan: Plan) -> Optional[socket.socket]:
        """For port-taken, what holds the port at which the ranks of the plan are to meet."""
        if self.fault != "port-taken" or plan.attempt != 1:
            return None
        import socket

        return socket.create_server((plan.master_address, plan.master_port))

    def heard(self, rank: int, data: Mapping[str, Any]) -> None:
        """For supervisor-killed, what becomes of this process when a worker has said this."""
        is_due = rank == self.rank and data.get("event") == "enter" and data.get("step", 0) >= self.step
        if self.fault == "supervisor-killed" and is_due:
            os.kill(os.getpid(), signal.SIGKILL)


def parse(text: str, cluster: Cluster) -> Injection:
    """FAULT[@step][:rank] of a job on this cluster; by default step 2 of the last rank. Raises UserError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise _refusal(text, "is not FAULT[@step][:rank], such as crash@5:1")
    fault, step, rank = match["fault"], int(match["step"] or DEFAULT_STEP), match["rank"]
    if fault not in FAULTS:
        close = nearest(fault, FAULTS)
        meant = f"; did you mean '{close}'?" if close else ""
        raise _refusal(text, f"there is no fault '{fault}'{meant}")
    if step < 1:
        raise _refusal(text, "steps are counted from 1")
    if rank is not None and int(rank) >= cluster.world_size:
        raise _refusal(text, f"the job has the ranks 0 to {cluster.world_size - 1}")
    if fault == "port-taken" and (cluster.engine != "local" or cluster.world_size == 1):
        raise _refusal(text, "ranks are needed that meet at a port of this machine: two, engine local")
    return Injection(fault, step, cluster.world_size - 1 if rank is None else int(rank))


def _refusal(text: str, why: str) -> UserError:
    return UserError(f"--inject {text}: {why}; faults are {', '.join(FAULTS)}")
