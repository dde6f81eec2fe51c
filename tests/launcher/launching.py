"""What the tests of the agent and of launches share: real processes, events awaited with a time limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from launcher.agent import processes
from launcher.agent.processes import Process

REPOSITORY = Path(__file__).resolve().parents[2]
LIGHT_WORKER = REPOSITORY / "tests" / "light_worker.py"
LIGHT_LAUNCH = REPOSITORY / "tests" / "light_launch.py"
LIMIT_S = 40.0  # for an event that has to come, on a busy machine; reached only by a failing test
FOREVER = ("steps=100000", "step_s=0.02")
STUBBORN = (*FOREVER, "term=ignore", "children=1")
LONG_S = 60  # a grace that a test would notice

LOCAL_CLUSTER = """
device_kind: cpu
hosts:
  - {{name: here, address: 127.0.0.1, devices: {devices}}}
timeouts: {{start_s: 15, grace_s: {grace_s}}}
"""
TWO_HOSTS = """
device_kind: cpu
engine: exec
hosts:
  - {{name: h1, address: 127.0.0.1, devices: 1, prefix: {prefix1}}}
  - {{name: h2, address: 127.0.0.2, devices: 1, prefix: {prefix2}}}
timeouts: {{start_s: 15, grace_s: {grace_s}}}
"""

# Who is started in the background ignores these, and a launcher keeps to that; tests need the default.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def environment(**more: str) -> Dict[str, str]:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def sitecustomize(folder: Path, code: str) -> str:
    """A PYTHONPATH with which every interpreter runs this code first, unless it is started with -S."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(code)
    return os.pathsep.join([str(site), environment()["PYTHONPATH"]])


def until_gone(token: str) -> None:
    """Waits until no process carries the token. Fails where one remains."""
    end = time.monotonic() + LIMIT_S
    while True:
        left = processes.tagged(token)
        if not left:
            return
        for process in left:
            wait_dead(process, end - time.monotonic())


def wait_dead(process: Process, limit_s: float = LIMIT_S) -> None:
    """Until it is dead and whoever waits for that has been woken.

    The kernel shows a death a moment before it wakes others, under a lock (tasklist_lock) that a signal for a
    group takes too.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], max(0.0, limit_s))[0], f"{process} lives on"
        os.killpg(0, 0)
    finally:
        os.close(handle)


def only_child(pid: int) -> int:
    """The child of a guard: its agent."""
    children = [process.pid for process in processes.descendants(pid) if process.parent == pid]
    assert len(children) == 1, children
    return children[0]


class Lines:
    """JSON lines of a process, awaited."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.seen: List[Dict[str, Any]] = []
        self._rest = b""

    def next(self) -> Optional[Dict[str, Any]]:
        """The next event, None at the end."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            assert select.select([fd], [], [], LIMIT_S)[0], f"nothing came after {self.seen[-3:]}"
            data = os.read(fd, 65536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        self.seen.append(json.loads(line))
        return self.seen[-1]

    def until(self, event: str, **fields: Any) -> Dict[str, Any]:
        """The next event of this kind with these fields; others do not prolong the wait."""
        end = time.monotonic() + LIMIT_S
        for found in iter(self.next, None):
            assert time.monotonic() < end, f"no {event} {fields} yet, lastly {self.seen[-3:]}"
            if found["event"] == event and all(found.get(key) == value for key, value in fields.items()):
                return found
        raise AssertionError(f"no {event} {fields} in {self.seen}")

    def rest(self) -> List[Dict[str, Any]]:
        """Everything up to the end."""
        return list(iter(self.next, None))

    def all(self, event: str) -> List[Dict[str, Any]]:
        return [found for found in self.seen if found["event"] == event]


class AgentProcess(Lines):
    """A guard and its agent, with this test as the supervisor."""

    def __init__(self, *arguments: str, flags: tuple = ("-S",), before: Sequence[str] = (), **env: str):
        """flags: -S proves that an agent needs nothing but the standard library. before: words in front."""
        self.token = os.urandom(8).hex()
        argv = [*before, sys.executable, *flags, "-m", "launcher.agent", *arguments]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(**{processes.TOKEN: self.token}, **env),
            start_new_session=True,
        )
        super().__init__(process)

    def send(self, op: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, folder: Path, *plans: Dict[str, Any]) -> None:
        self.send("start", processes=list(plans), log_dir=str(folder), cwd=str(folder), token=self.token)

    def until_training(self, ranks: int) -> None:
        """Waits until this many light workers are in their steps, their children born."""
        while len([e for e in self.all("status") if e["data"].get("phase") == "train"]) < ranks:
            assert self.next() is not None

    def hang_up(self) -> None:
        """What the death of the supervisor looks like."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        processes.sweep(self.token)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def light(rank: int, *settings: str, **env: str) -> Dict[str, Any]:
    """The plan of one light worker."""
    return {
        "name": f"rank-{rank:02}",
        "rank": rank,
        "argv": [sys.executable, "-S", str(LIGHT_WORKER), *settings],
        "env": {"RANK_ID": str(rank), **env},
        "log": f"rank-{rank:02}.log",
    }


def python(rank: int, code: str, **env: str) -> Dict[str, Any]:
    """The plan of a worker that runs this code."""
    return {**light(rank, **env), "argv": [sys.executable, "-S", "-c", code]}


class Launch(Lines):
    """A launcher of its own process, with light workers."""

    def __init__(
        self, folder: Path, cluster: str, *settings: str, before: Sequence[str] = (), **env: str
    ) -> None:
        """before: words in front of the launcher's command."""
        cluster_file = folder / "lights.yaml"
        cluster_file.write_text(cluster)
        self.runs = folder / "runs"
        self.errors = (folder / "stderr").open("w+b")
        process = subprocess.Popen(
            [*before, sys.executable, str(LIGHT_LAUNCH), str(cluster_file), str(self.runs), *settings],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=folder,
            env=environment(**env),
            start_new_session=True,
        )
        super().__init__(process)

    @property
    def run(self) -> Path:
        (run,) = self.runs.iterdir()
        return run

    @property
    def attempt(self) -> Path:
        return self.run / "attempt-001"

    def until_training(self, ranks: int) -> None:
        while len([e for e in self.all("phase") if e["phase"] == "train"]) < ranks:
            assert self.next() is not None, self.said()

    def tokens(self) -> List[str]:
        """The run's token, from the environment of the guards."""
        found = set()
        for process in processes.descendants(self.process.pid):
            try:
                entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            found |= {e.partition(b"=")[2].decode() for e in entries if e.startswith(b"FCN_RUN_TOKEN=")}
        return sorted(found)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> int:
        """Reads to the end; the exit code."""
        self.rest()
        return self.process.wait(LIMIT_S)

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read().decode()

    def end(self) -> None:
        tokens = self.tokens() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        for token in tokens:
            processes.sweep(token)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


@contextmanager
def closing() -> Iterator[List[Any]]:
    """For fixtures: ends what a test started and put into the list, whatever became of the test."""
    made: List[Any] = []
    try:
        yield made
    finally:
        for thing in made:
            thing.end()


def hosts(prefix1=(), prefix2=(), grace_s=10.0):
    return TWO_HOSTS.format(
        prefix1=json.dumps(["env", "PLACE=h1", *prefix1]),
        prefix2=json.dumps(["env", "PLACE=h2", *prefix2]),
        grace_s=grace_s,
    )


def status(launch):
    return json.loads((launch.run / "status.json").read_text())


def journal(launch):
    return [json.loads(line) for line in (launch.run / "events.jsonl").read_text().splitlines()]


def guard(launch):
    return next(p.pid for p in processes.descendants(launch.process.pid) if p.parent == launch.process.pid)
