"""Light workers under three launchers, ours, torchrun and msrun; and what is left of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from launching import LIGHT_LAUNCH, LIGHT_WORKER, LOCAL_CLUSTER, environment
from row import Broken, NotHere

from launcher.agent import processes
from launcher.agent.processes import Process

CASE = "FAULTS_CASE"  # in the environment of everything that a case starts
OURS, PEERS = "fcn-launch", ("torchrun", "msrun")
LIMIT_S = 60.0  # for what has to come, on a busy machine


class Job:
    """Light workers under a launcher, which writes to files alone: nobody has to read along."""

    def __init__(
        self, launcher: str, folder: Path, ranks: int, settings: Sequence[str], cluster: str
    ) -> None:
        self.folder = folder
        self.ranks = ranks
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.output = folder / "output"
        self.case = os.urandom(8).hex()
        if launcher == OURS:
            (folder / "cluster.yaml").write_text(cluster)
            command = [sys.executable, str(LIGHT_LAUNCH), "cluster.yaml", "runs"]
            path = os.environ["PATH"]
        else:
            command = self._peer(launcher)
            settings = [*settings, f"meet={free_port()}"]
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # msrun's `python`
        env = environment(PATH=path, **{CASE: self.case})
        env.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # without it a launch of a clone is as quick as an installed one
        with self.output.open("wb") as output:
            self.began_ns = time.time_ns()
            self.process = subprocess.Popen(
                [*command, *settings, f"marks={self.marks}"],
                cwd=folder,
                env=env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _peer(self, launcher: str) -> List[str]:
        program = Path(sys.executable).with_name(launcher)
        if not program.exists():
            raise NotHere(f"{launcher} is not installed")
        if launcher == "torchrun":
            options = ["--standalone", f"--nproc-per-node={self.ranks}"]
        else:
            options = [f"--worker_num={self.ranks}", f"--local_worker_num={self.ranks}", "--join=True"]
            options += [f"--master_port={free_port()}", f"--log_dir={self.folder}/msrun"]
        return [str(program), *options, str(LIGHT_WORKER)]

    def until_running(self) -> Dict[int, Tuple[int, int]]:
        """(pid, time_ns of its first line) of every rank, as soon as all have begun."""
        self.until(lambda: len(self.started()) == self.ranks, "the workers do not start")
        return self.started()

    def until(self, condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
        """Waits until the condition holds. Broken where the launcher ends first, or nothing comes."""
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                if condition():
                    return
                raise Broken(f"{what}: {self.said()[-600:]}")
            time.sleep(0.005)

    def wait(self) -> int:
        """The launcher's exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Broken(f"the launcher does not end: {self.said()[-600:]}") from None

    def started(self) -> Dict[int, Tuple[int, int]]:
        found = {}
        for path in self.marks.glob("start-*"):
            pid, time_ns = map(int, path.read_text().split())
            found[int(path.name[6:])] = (pid, time_ns)
        return found

    @property
    def run(self) -> Path:
        return next(self.folder.glob("runs/*"))

    def events(self, kind: str) -> List[Dict[str, Any]]:
        """What our journal says of this kind."""
        found = []
        for path in self.folder.glob("runs/*/events.jsonl"):
            lines = path.read_text().split("\n")[:-1]  # without a last line that is being written
            found += [event for event in map(json.loads, lines) if event["event"] == kind]
        return found

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def left(self) -> List[Process]:
        """Every living process of this case, the launcher excepted."""
        return [process for process in marked(self.case) if process.pid != self.process.pid]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for process in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def job(
    launcher: str,
    folder: Path,
    ranks: int,
    *settings: str,
    grace_s: float = 2.0,
    cluster: Optional[str] = None,
) -> Iterator[Job]:
    """A launch of light workers, of which nothing is left at the end of the context."""
    made = Job(
        launcher, folder, ranks, settings, cluster or LOCAL_CLUSTER.format(devices=ranks, grace_s=grace_s)
    )
    try:
        yield made
    finally:
        made.end()


def marked(case: str) -> List[Process]:
    """Every living process with this case in its environment."""
    entry = f"{CASE}={case}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            inside = entry in path.read_bytes().split(b"\0")
        except OSError:
            continue
        process = processes.look(int(path.parent.name)) if inside else None
        if process is not None and process.state not in "ZX":
            found.append(process)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Deaths:
    """Watches processes from before something happens to one of them."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._poll = select.poll()
        self._handles = [os.pidfd_open(pid) for pid in pids]
        for handle in self._handles:
            self._poll.register(handle, select.POLLIN)

    def first_ns(self) -> int:
        """When the first of them ended."""
        ended = self._poll.poll(LIMIT_S * 1000)
        now = time.time_ns()
        for handle in self._handles:
            os.close(handle)
        if not ended:
            raise Broken(f"no other worker is ended within {LIMIT_S:g} s")
        return now


def kill(pid: int) -> int:
    """SIGKILL; time_ns just before."""
    now = time.time_ns()
    os.kill(pid, signal.SIGKILL)
    return now


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken so far; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The largest resident memory of a process so far; 0 where it is gone."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1000 if found else 0.0
