"""The environment of each process of a plan: pure, one function a concern. templates/rank.env.j2 explains it.

Who wins where a variable has several sources: `env` of the cluster file, then the user's own environment on
that host (HCCL's limits, which must be the same everywhere: on rank 0's), then the choice made here. What
says who a process is, and where its logs go, never comes from the user's environment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Dict, Optional

from launcher.errors import UserError

if TYPE_CHECKING:
    from launcher.plan_types import Attempt, HostFacts, Slot

# Added to the limits of hangs.py to give those of the platform's collectives and of the ranks' meeting: their
# "peer is gone" has to come after our own verdict, which knows who and why, and after the stacks.
COLLECTIVE_MARGIN_S = 60
HCCL_CONNECT_MIN_S, HCCL_CONNECT_MAX_S = 120, 7200  # HCCL refuses others
HCCL_MAX_S = 2**31 - 1
HCCL_EVENT_MARGIN_S = 32  # HCCL_EVENT_TIMEOUT must be above HCCL_EXEC_TIMEOUT; the distance of their defaults
RETRY_INTERVAL_S = 1  # poll of ranks that register: MindSpore's own takes 3 to 5 s, and 0 keeps a core busy


def worker(attempt: Attempt, slot: Slot, facts: Optional[HostFacts]) -> Dict[str, str]:
    """All variables that the plan gives the worker of a slot; what needs unknown facts is absent."""
    chip = attempt.cluster.chip
    choices = {} if chip.is_ascend else _cpu_choices(attempt, slot, facts)
    if attempt.meeting.rendezvous == "scheduler":
        choices.update(_scheduler_choices(attempt))
    user = facts.environ if facts else {}
    return {
        **_identity(attempt, slot),
        **_meeting(attempt, slot),
        **_rank_table(attempt),
        **(_ascend(attempt, slot, facts) if chip.is_ascend else {}),
        **{name: user.get(name, value) for name, value in choices.items()},
        **attempt.cluster.env,
    }


def scheduler(attempt: Attempt) -> Dict[str, str]:
    """The variables of MindSpore's scheduler process.

    From RANK_TABLE_FILE it numbers the ranks: a worker that registers with a server's pod_ip gets the rank of
    that server's DEVICE_ID-th entry. It does not check this index: a physical id as DEVICE_ID can crash it.
    """
    return {
        "FCN_RUN_DIR": attempt.job.run_dir,
        "FCN_ATTEMPT": str(attempt.number),
        "FCN_RENDEZVOUS": attempt.meeting.rendezvous,
        **_cluster_variables(attempt, "MS_SCHED"),
        **(_rank_table(attempt) if attempt.table_version != "2.0" else {}),  # it reads servers only
        **_scheduler_choices(attempt),
        **attempt.cluster.env,
    }


def _identity(attempt: Attempt, slot: Slot) -> Dict[str, str]:
    return {
        "RANK_ID": str(slot.rank),
        "RANK_SIZE": str(attempt.world_size),  # of the whole job, not of the host
        "LOCAL_RANK": str(slot.local_rank),
        # an index into the visible devices and into the server's entry of the rank table: not the physical id
        "DEVICE_ID": str(slot.local_rank),
        "FCN_PLATFORM": attempt.cluster.chip.platform,
        "FCN_RUN_DIR": attempt.job.run_dir,
        "FCN_ATTEMPT": str(attempt.number),
        **({"FCN_PEERS": f"{_plan_folder(attempt)}/peers.json"} if attempt.world_size > 1 else {}),
    }


def _plan_folder(attempt: Attempt) -> str:
    return attempt.job.plan_folder(attempt.number)


def _rank_table(attempt: Attempt) -> Dict[str, str]:
    has_table = attempt.table_version is not None
    return {"RANK_TABLE_FILE": f"{_plan_folder(attempt)}/rank_table.json"} if has_table else {}


def _meeting(attempt: Attempt, slot: Slot) -> Dict[str, str]:
    meeting = attempt.meeting
    variables = {"FCN_RENDEZVOUS": meeting.rendezvous}
    if meeting.rendezvous != "none":
        variables["FCN_START_TIMEOUT_S"] = str(_start_limit_s(attempt))
    if meeting.rendezvous == "store":
        variables["MASTER_ADDR"] = str(meeting.address)
        if meeting.port is not None:
            variables["MASTER_PORT"] = str(meeting.port)
    elif meeting.rendezvous == "scheduler":
        variables.update(_cluster_variables(attempt, "MS_WORKER"))
        variables["MS_NODE_ID"] = str(slot.rank)  # a number: MindSpore takes it as the rank
        if ":" in slot.host.address and ":" in str(meeting.address):
            variables["MS_WORKER_IP"] = slot.host.address  # found by MindSpore itself for IPv4 only
    return variables


def _cluster_variables(attempt: Attempt, role: str) -> Dict[str, str]:
    meeting = attempt.meeting
    port = {} if meeting.port is None else {"MS_SCHED_PORT": str(meeting.port)}
    return {
        "MS_ROLE": role,
        "MS_SCHED_HOST": str(meeting.address),
        **port,
        "MS_WORKER_NUM": str(attempt.world_size),
    }


def _scheduler_choices(attempt: Attempt) -> Dict[str, str]:
    return {
        "MS_TOPO_TIMEOUT": str(_start_limit_s(attempt)),
        "MS_RETRY_INTERVAL_LOWER": str(RETRY_INTERVAL_S),
        "MS_RETRY_INTERVAL_UPPER": str(RETRY_INTERVAL_S),
    }


def _start_limit_s(attempt: Attempt) -> int:
    """How long ranks may wait at their meeting for one that does not come, seconds."""
    return math.ceil(attempt.cluster.timeouts.start_s) + COLLECTIVE_MARGIN_S


def collective_limit_s(attempt: Attempt) -> int:
    """How long a collective may wait for a peer, seconds."""
    timeouts = attempt.cluster.timeouts
    return math.ceil(max(timeouts.start_s, timeouts.phase_s, timeouts.hang_s)) + COLLECTIVE_MARGIN_S


def _cpu_choices(attempt: Attempt, slot: Slot, facts: Optional[HostFacts]) -> Dict[str, str]:
    choices = {}
    if facts is not None and facts.machine == "x86_64":
        # The same on every x86 host, also where it would not be needed: it decides the bits of the result.
        choices["ONEDNN_MAX_CPU_ISA"] = "AVX2"
    if facts is not None and facts.cores is not None:
        choices["OMP_NUM_THREADS"] = str(max(1, facts.cores // slot.workers))
    if attempt.world_size > 1:
        choices["MS_CPU_COMM_OP_TIMEOUT"] = str(collective_limit_s(attempt))
    return choices


def _ascend(attempt: Attempt, slot: Slot, facts: Optional[HostFacts]) -> Dict[str, str]:
    variables = {"FCN_DEVICES": ",".join(map(str, slot.visible))}
    logical = {} if facts is None else facts.logical  # on a host outside of containers the same
    visible = tuple(logical.get(device, device) for device in slot.visible)
    if visible != tuple(range(attempt.cluster.chip.devices or 0)):
        variables["ASCEND_RT_VISIBLE_DEVICES"] = ",".join(map(str, visible))
    logs = f"{attempt.job.attempt_dir(attempt.number)}/plog/{attempt.rank_name(slot.rank)}"
    variables["ASCEND_PROCESS_LOG_PATH"] = logs
    variables["GLOG_log_dir"] = (
        logs  # used where GLOG_logtostderr=0 takes MindSpore's log out of the worker's
    )
    if attempt.world_size > 1:
        variables.update(_hccl_limits(attempt))
    return variables


def _hccl_limits(attempt: Attempt) -> Dict[str, str]:
    """HCCL's time limits, seconds. Raises UserError where the user's own are none that HCCL takes."""
    limit = collective_limit_s(attempt)
    chip = attempt.cluster.chip
    step, most = chip.exec_timeout_step_s, chip.exec_timeout_max_s or HCCL_MAX_S
    least = 0 if chip.exec_timeout_max_s is None else 1
    connect = _limit(
        attempt,
        "HCCL_CONNECT_TIMEOUT",
        max(HCCL_CONNECT_MIN_S, limit),
        HCCL_CONNECT_MIN_S,
        HCCL_CONNECT_MAX_S,
    )
    execution = _limit(attempt, "HCCL_EXEC_TIMEOUT", math.ceil(limit / step) * step, least, most)
    if execution == 0:  # for ever
        event = _limit(attempt, "HCCL_EVENT_TIMEOUT", 0, 0, HCCL_MAX_S)
    else:
        above = min(execution + HCCL_EVENT_MARGIN_S, HCCL_MAX_S)
        event = _limit(attempt, "HCCL_EVENT_TIMEOUT", above, min(execution + 1, HCCL_MAX_S), HCCL_MAX_S)
    return {
        "HCCL_CONNECT_TIMEOUT": str(connect),
        "HCCL_EXEC_TIMEOUT": str(execution),
        "HCCL_EVENT_TIMEOUT": str(event),
    }


def _limit(attempt: Attempt, name: str, choice: int, low: int, high: int) -> int:
    """The value of one limit: from `env`, else from the shell of rank 0's host, else the choice."""
    if name in attempt.cluster.env:
        place, value = f"{attempt.cluster.source}: env.{name}", attempt.cluster.env[name]
    elif name in attempt.shell:
        place, value = f"{name} in the environment of {attempt.first_host}", attempt.shell[name]
    else:
        return choice
    if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
        why = ", above HCCL_EXEC_TIMEOUT" if name == "HCCL_EVENT_TIMEOUT" else ""
        raise UserError(
            f"{place}: {value!r} cannot be used; expected {low} to {high} seconds{why}; "
            "correct it, or remove it to take what fits the cluster file's timeouts"
        )
    return int(value)
