"""The hosts themselves: names, clocks, disk, data, memory, open files."""

from __future__ import annotations

import errno
import os
import resource
import socket
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from launcher.doctor.check import Check, Finding, Request, View, odd_ones, size
from launcher.host_health import CLOCK_LIMIT_S

CHECKPOINT_MB = 1_100  # of FCN-8s: weights and momentum in float32
CHECKPOINTS = 2  # an old one is there until the new one is whole
SHARED_MEMORY_MB = 1_000  # a container's default of 64 MB is too little for readers of data
OPEN_FILES = 1_024  # what systems allow at the least
OPEN_FILES_OF_A_RANK = 16  # where the ranks meet: their connections
WORKER_MEMORY_MB = 2_000  # of one worker, at the least: libraries, reader, compiler
SHARED_MEMORY = Path("/dev/shm")
MEMORY = Path("/proc/meminfo")
MB = 1_000_000


def gather_name(request: Request) -> str:
    return os.uname().nodename


def judge_name(view: View) -> Iterator[Finding]:
    """MindSpore counts a worker's device from 0 among those of the same host name."""
    first: Dict[str, str] = {}
    for host, name in view.each("hostname"):
        if view.cluster.rendezvous == "scheduler" and first.setdefault(name, host.name) != host.name:
            yield Finding(
                host.name,
                f"calls itself {name!r}, as {first[name]} does",
                "MindSpore counts their devices as those of one host (aclrtSetDevice fails, 107001)",
                "give each host a name of its own with `hostnamectl set-hostname`",
            )


def gather_address(request: Request) -> Dict[str, Any]:
    """is_own: whether the cluster file's address is one of this host; main: that of its default route."""
    is_own = True
    try:
        with socket.socket(_family(request.address), socket.SOCK_DGRAM) as probe:
            probe.bind((request.address, 0))
    except OSError as error:
        is_own = error.errno != errno.EADDRNOTAVAIL
    return {"is_own": is_own, "main": _main_address()}


def _main_address() -> Optional[str]:
    """Where a packet to a far address (one for documentation) would come from; none is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def judge_address(view: View) -> Iterator[Finding]:
    for host, known in view.each("address"):
        if not known["is_own"]:
            is_first = host is view.cluster.hosts[0]
            main = f", its own is {known['main']}" if known["main"] else ""
            yield Finding(
                host.name,
                f"{host.address}, its address in {view.cluster.source}, is not one of this host{main}",
                "the ranks cannot meet there" if is_first else "it may be another host that is meant",
                "correct the address in the file, or its prefix",
                fatal=is_first,
            )


def judge_clock(view: View) -> Iterator[Finding]:
    for host, offset_s in view.each("clock"):
        if abs(offset_s) > CLOCK_LIMIT_S:
            yield Finding(
                host.name,
                f"its clock is {abs(offset_s):.1f} s {'ahead' if offset_s > 0 else 'behind'}",
                "times in its logs and those of the others do not fit (verdicts take it into account)",
                "set it by NTP: `chronyc makestep`",
                fatal=False,
            )


def gather_disk(request: Request) -> Dict[str, Any]:
    """Free MB where the runs' folder is or will be, and whether we may write there."""
    folder = Path(request.folder).absolute()
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free_mb = disk.f_bavail * disk.f_frsize // MB
    return {"folder": str(folder), "free_mb": free_mb, "writable": os.access(folder, os.W_OK)}


def judge_disk(view: View) -> Iterator[Finding]:
    for host, disk in view.each("disk"):
        if not disk["writable"]:
            yield Finding(
                host.name,
                f"{disk['folder']} can not be written",
                "no log and no checkpoint",
                "change its permissions, or give another folder with --runs",
            )
        elif disk["free_mb"] < CHECKPOINTS * CHECKPOINT_MB:
            yield Finding(
                host.name,
                f"{size(disk['free_mb'])} are free at {disk['folder']}; {CHECKPOINTS} checkpoints take"
                f" {size(CHECKPOINTS * CHECKPOINT_MB)}",
                "the training stops at a checkpoint that can not be saved",
                "make room, or give another folder with --runs",
            )


def gather_data(request: Request) -> Dict[str, Any]:
    """Path -> error, or the sizes of the files that it stands for: a data set has its shards beside it."""
    found: Dict[str, Any] = {}
    for name in request.data:
        path = Path(name)
        files = [path] if path.exists() else []
        files = files if path.is_dir() else sorted({*files, *path.parent.glob(f"{path.name}*")})
        try:
            if not files:
                raise FileNotFoundError(2, "No such file or directory")
            found[name] = {"files": {file.name: _read(file) for file in files}}
        except OSError as error:
            found[name] = {"error": error.strerror}
    return found


def _read(path: Path) -> Optional[int]:
    """The size of a file whose first byte can be read; None for a folder. Raises OSError."""
    if path.is_dir():
        os.scandir(path).close()
        return None
    with path.open("rb") as file:
        file.read(1)
    return path.stat().st_size


def judge_data(view: View) -> Iterator[Finding]:
    known = {host.name: paths for host, paths in view.each("data")}
    for path in dict.fromkeys(path for paths in known.values() for path in paths):
        answers = {host: paths[path] for host, paths in known.items()}
        for host, answer in answers.items():
            if "error" in answer:
                yield Finding(
                    host,
                    f"{path} can not be read: {answer['error']}",
                    "its workers do not start",
                    "mount or copy it there, at the same path",
                )
        for host, _, _ in odd_ones({host: a["files"] for host, a in answers.items() if "files" in a}):
            yield Finding(
                host,
                f"{path} has other files, or other sizes, than on most hosts",
                "its ranks would read other samples, or none",
                "copy it once more",
            )


def gather_shared_memory(request: Request) -> int:
    disk = os.statvfs(SHARED_MEMORY)
    return disk.f_blocks * disk.f_frsize // MB


def judge_shared_memory(view: View) -> Iterator[Finding]:
    for host, megabytes in view.each("shared_memory_mb"):
        if megabytes < SHARED_MEMORY_MB:
            yield Finding(
                host.name,
                f"shared memory (/dev/shm) is {megabytes} MB",
                "readers of data die of SIGBUS when it is full",
                "start the container with --shm-size=8g; on a host: `mount -o remount,size=8g /dev/shm`",
                fatal=False,
            )


def gather_open_files(request: Request) -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def judge_open_files(view: View) -> Iterator[Finding]:
    need = max(OPEN_FILES, OPEN_FILES_OF_A_RANK * view.cluster.world_size)
    for host, limit in view.each("open_files"):
        if limit < need:
            yield Finding(
                host.name,
                f"a process may open {limit} files; {view.cluster.world_size} ranks may need {need}",
                "connections are refused while the ranks meet (EI0015)",
                f"`ulimit -n {max(need, 65536)}` before, or raise nofile in /etc/security/limits.conf",
                fatal=limit < OPEN_FILES,
            )


def gather_memory(request: Request) -> int:
    """MB that programs could still get."""
    lines: List[List[str]] = [line.split() for line in MEMORY.read_text().splitlines()]
    return next(int(words[1]) * 1024 // MB for words in lines if words[0] == "MemAvailable:")


def judge_memory(view: View) -> Iterator[Finding]:
    for host, free_mb in view.each("memory_free_mb"):
        if free_mb < WORKER_MEMORY_MB * len(host.devices):
            yield Finding(
                host.name,
                f"{size(free_mb)} of memory are free for {len(host.devices)} workers",
                "the kernel kills processes when there is none left",
                "end other programs, or use fewer devices of this host",
                fatal=False,
            )


CHECKS = (
    Check("hostname", gather_name, judge_name, quick=False),
    Check("address", gather_address, judge_address, quick=False),
    Check("clock", lambda request: None, judge_clock, quick=False),  # the asking side measures it
    Check("disk", gather_disk, judge_disk, quick=False),
    Check("data", gather_data, judge_data, quick=False),
    Check("shared_memory_mb", gather_shared_memory, judge_shared_memory, quick=False),
    Check("open_files", gather_open_files, judge_open_files),
    Check("memory_free_mb", gather_memory, judge_memory),
)
