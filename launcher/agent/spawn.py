"""Starting one process of the plan: its environment, its log, its status pipe, its process group."""

from __future__ import annotations

import os
import subprocess

from launcher import logfile, open_files
from launcher.agent import processes
from launcher.background import within
from launcher.protocol import Inbox

# What an outer launch, an earlier one or a scheduler left in the environment. A worker that finds another
# job's rank or address in it joins the wrong job, or waits for ever.
STALE_PREFIXES = (
    *("RANK_", "MS_", "MASTER_", "FCN_", "LOCAL_RANK"),
    *("OMPI_", "PMIX_"),  # MindSpore's import copies mpirun's rank over RANK_ID, DEVICE_ID and RANK_SIZE
)
STALE_NAMES = ("DEVICE_ID", "ASCEND_DEVICE_ID", "ASCEND_RT_VISIBLE_DEVICES", "MINDSPORE_HCCL_CONFIG_PATH")


TAIL_LINES = 120  # MindSpore puts seventy around the one that tells the reason
TAIL_LIMIT_S = 2.0  # for the file system of the logs; pings are answered late, and not too late
FILES = 2  # that the agent has open for each process: its status pipe and its pidfd


class Child:
    """A started process; `stopped` once a stop has reached it, `ended` once its exit is reported, `has_erred`
    once it has told of an exception that ends it."""

    def __init__(self, plan: dict, log: str, process: subprocess.Popen, status: int) -> None:
        self.name: str = plan["name"]
        self.rank: int | None = plan["rank"]
        self.log = log
        self.process = process
        self.status = Inbox(status)
        self.stopped = False
        self.ended = False
        self.has_erred = False
        self.hung_up_ns: int | None = None  # when its status pipe was closed, which its death does too

    def tail(self) -> list[str] | None:
        """The last lines of its log; None where the file system hangs."""
        return within(TAIL_LIMIT_S, lambda: logfile.tail(self.log, TAIL_LINES), None)

    def close(self) -> None:
        os.close(self.status.fd)


def environment(own: dict[str, str], token: str) -> dict[str, str]:
    """The agent's environment without what is stale, with the process's own, the run's token and guard."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(STALE_PREFIXES) and name not in STALE_NAMES
    }
    ours = {processes.TOKEN: token, processes.GUARD: processes.identity(os.getppid())}
    # a crash in native code leaves Python's stack in the log
    return {"PYTHONFAULTHANDLER": "1", **inherited, **own, **ours}


def _bind(cpus: list[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:  # the host has taken them from us since
        os.write(2, f"not bound to the CPUs {cpus}: {error.strerror}\n".encode())


def spawn(plan: dict, log_dir: str, cwd: str, token: str) -> Child:
    """Starts a process of the plan. Raises OSError: no such program, folder or log, no more processes."""
    agent = os.getpid()
    log = f"{log_dir}/{plan['log']}"
    status_read, status_write = os.pipe()

    def prepare() -> None:
        os.setpgid(0, 0)
        processes.die_with_parent(agent)  # holds also where guard and agent are killed together
        open_files.restore()
        if plan.get("cpus"):
            _bind(plan["cpus"])

    env = {**environment(plan["env"], token), "FCN_STATUS_FD": str(status_write)}
    log_file = -1
    try:
        log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        process = subprocess.Popen(
            plan["argv"],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=(status_write,),
            preexec_fn=prepare,
        )
    except BaseException:
        os.close(status_read)
        raise
    finally:
        for fd in (status_write, log_file):
            if fd >= 0:
                os.close(fd)
    os.set_blocking(status_read, False)
    return Child(plan, log, process, status_read)
