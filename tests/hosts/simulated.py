"""Simulated servers on one machine: each has network, UTS, mount and PID namespaces of its own.

A bridge in a network namespace of its own, the switch, joins them; the launcher runs there. Nothing of it is
seen outside, and nothing is left when its processes have ended. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Optional, Sequence

from launcher.agent import processes

CHANNEL = Path(__file__).with_name("channel.py")
CLOCK_SOURCE = Path(__file__).with_name("shifted_clock.c")
NAMESPACES = ("--net", "--uts", "--mount", "--propagation", "private", "--pid", "--mount-proc")
LIMIT_S = 20.0


def why_not() -> Optional[str]:
    """What is missing for simulated hosts; None where nothing is."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (packages iproute2 and util-linux)"
    tried = subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"needs the rights of root: {tried.stderr.strip()}"


class Host:
    """One server: its init process, and how to reach it. `number` counts from 1."""

    def __init__(self, number: int, log: Path) -> None:
        self.name = f"h{number}"
        self.address = f"10.77.0.{10 + number}"
        self.port = f"port{number}"  # of the switch
        boot = 'hostname "$0" && exec "$@"'
        init = ["sh", "-c", boot, self.name, sys.executable, "-S", str(CHANNEL), "serve"]
        with log.open("ab") as errors:
            self._unshare = subprocess.Popen(
                ["unshare", *NAMESPACES, "--fork", "--kill-child", *init],
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        self.init = _only_child(self._unshare.pid)

    @property
    def prefix(self) -> List[str]:
        """What runs a command there."""
        return [sys.executable, "-S", str(CHANNEL), "connect", self.address]

    def inside(self) -> List[processes.Process]:
        """What runs there besides its init process."""
        return processes.descendants(self.init)

    def power_off(self) -> None:
        """Everything ends at once; the network has to be cut first, or the kernel says goodbye for it."""
        self._unshare.kill()
        self._unshare.wait()


class Hosts:
    """Some servers and the switch between them."""

    def __init__(self, count: int, folder: Path) -> None:
        self._switch = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
        self.hosts: List[Host] = []
        try:
            _until(lambda: _network(self._switch.pid) != _network(os.getpid()))
            self.hosts = [Host(number, folder / f"h{number}.log") for number in range(1, count + 1)]
            self._ip("link add bridge type bridge", "addr add 10.77.0.1/24 dev bridge", "link set bridge up")
            for host in self.hosts:
                self._ip(
                    f"link add {host.port} type veth peer name eth0 netns {host.init}",
                    f"link set {host.port} master bridge up",
                )
                lines = (f"addr add {host.address}/24 dev eth0", "link set eth0 up", "link set lo up")
                _ip(host.init, *lines)
                _until(lambda host=host: self._reaches(host))
        except BaseException:
            self.end()
            raise

    @property
    def before(self) -> List[str]:
        """Words before a command that is to run where all hosts can be reached."""
        return ["nsenter", "-t", str(self._switch.pid), "--net"]

    def cut(self, host: Host) -> None:
        """Takes its cable out: nothing gets through any more, and nobody is told."""
        self._ip(f"link set {host.port} down")

    def cluster(self, devices: int = 1, grace_s: float = 2.0, words: Sequence[Sequence[str]] = ()) -> str:
        """A cluster file. words: for each host, what stands before its commands there."""
        lines = ["device_kind: cpu", "engine: exec", "hosts:"]
        for number, host in enumerate(self.hosts):
            prefix = [*host.prefix, *(words[number] if words else ())]
            lines.append(
                f"  - {{name: {host.name}, address: {host.address}, devices: {devices}, prefix: {prefix}}}"
            )
        return "\n".join([*lines, f"timeouts: {{start_s: 60, grace_s: {grace_s}}}"]) + "\n"

    def end(self) -> None:
        for host in self.hosts:
            host.power_off()
        self._switch.kill()
        self._switch.wait()

    def _ip(self, *lines: str) -> None:
        _ip(self._switch.pid, *lines)

    def _reaches(self, host: Host) -> bool:
        answer = subprocess.run([*self.before, *host.prefix, "echo", "here"], capture_output=True)
        return answer.stdout == b"here\n"


def _ip(pid: int, *lines: str) -> None:
    """Network commands in the namespace of a process."""
    command = ["nsenter", "-t", str(pid), "--net", "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)


def _network(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def _only_child(pid: int) -> int:
    children: List[processes.Process] = []

    def found() -> bool:
        children[:] = [process for process in processes.descendants(pid) if process.parent == pid]
        return bool(children)

    _until(found)
    return children[0].pid


def _until(condition) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "a simulated host does not come up"
        time.sleep(0.01)


def shifted_clock(folder: Path) -> Optional[Path]:
    """A library that shifts a process's clock by CLOCK_SHIFT_S seconds; None without a C compiler."""
    library = folder / "shifted_clock.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(CLOCK_SOURCE), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library
