"""Who works on a run: two launchers must never write one run directory.

Each launch leaves a file of its own there, `launcher-001.json`, `launcher-002.json`, ...: host, process,
when it began and at last when it ended. The last one owns the run. A launcher takes it by making the next
file, which must not exist: of two that try it at once one succeeds, on every file system. A file stays,
unless its own launcher could not write it, so nobody removes the lock of somebody else; and no lock of the
kernel's is used, which network file systems may keep to one host.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Iterator, Optional, Tuple

from launcher.agent.processes import look
from launcher.errors import UserError
from launcher.files import write_atomic

WRITTEN_WITHIN_S = 2.0  # from the making of the file to its content


@dataclass(frozen=True)
class Launcher:
    """A launcher of a run.

    pids: the namespace in which `pid` means something. start: ticks from the host's start to the process's,
    as an id may be given away. began, ended: local time; ended stays None while it works, and where it was
    killed. machine: tells hosts of one name apart, such as localhost; empty where it is not known.
    """

    host: str
    pids: str
    pid: int
    start: int
    began: str
    ended: Optional[str] = None
    machine: str = ""

    @classmethod
    def own(cls) -> Launcher:
        """This process."""
        process = look(os.getpid())
        start = process.start if process else 0
        pids = str(Path("/proc/self/ns/pid").readlink())
        return cls(os.uname().nodename, pids, os.getpid(), start, _now(), machine=_machine())

    def is_alive(self) -> Optional[bool]:
        """Whether it is at work; None where that can not be known: on another host, in another container."""
        if self.ended is not None:
            return False
        own = Launcher.own()
        if (self.host, self.pids) != (own.host, own.pids) or self.machine not in ("", own.machine):
            return None
        process = look(self.pid)
        return process is not None and process.start == self.start and process.state not in "ZX"

    def is_this_process(self) -> bool:
        return self == replace(Launcher.own(), began=self.began)


def last_launcher(run: Path) -> Optional[Launcher]:
    """Who took the run last; None where nobody has. Raises UserError where its file can not be read."""
    path = _last_file(run)
    return None if path is None else _read(path)


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Own the run inside of the context; nothing more where this process does already.

    Raises UserError where another launcher owns it, or may do so, with what to do.
    """
    last = _last_file(run)
    if last is not None:
        launcher = _read(last)
        if launcher.is_this_process():
            yield
            return
        _require_ended(run, last, launcher)
    mine, own = _take(run, _number(last) + 1)
    try:
        yield
    finally:
        with suppress(OSError):  # without it the end is known by the process's
            write_atomic(mine, _text(replace(own, ended=_now())))


def _take(run: Path, number: int) -> Tuple[Path, Launcher]:
    path, own = run / f"launcher-{number:03}.json", Launcher.own()
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        launcher = _read(path)
        _require_ended(run, path, launcher)
        raise UserError(f"{run}: another launcher has just worked on it; try again") from None
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        with os.fdopen(file, "w") as opened:
            opened.write(_text(own))
            opened.flush()
            os.fsync(file)
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # nobody takes the next number before this one says who has it
        raise _refusal(path, error) from None
    return path, own


def _refusal(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: can not be written: {error.strerror}; make room, or change its permissions")


def _require_ended(run: Path, path: Path, launcher: Launcher) -> None:
    """Raises UserError unless the launcher has ended."""
    alive = launcher.is_alive()
    if alive is False:
        return
    who = f"process {launcher.pid} of host {launcher.host}, since {launcher.began}"
    if alive:
        raise UserError(
            f"{run}: a launcher works on it: {who}; wait for its end, or end it: kill {launcher.pid}"
        )
    raise UserError(
        f"{run}: a launcher works on it, or was killed, on another host or in another container: {who}; look "
        f"there (ps -p {launcher.pid}), and where it is gone, or the host is, remove {path}"
    )


def _last_file(run: Path) -> Optional[Path]:
    return max(run.glob("launcher-*.json"), key=_number, default=None)


def _number(path: Optional[Path]) -> int:
    found = None if path is None else re.fullmatch(r"launcher-(\d+)\.json", path.name)
    return int(found.group(1)) if found else 0


def _read(path: Path) -> Launcher:
    end = time.monotonic() + WRITTEN_WITHIN_S
    while True:
        try:
            return Launcher(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            if time.monotonic() > end:
                raise UserError(
                    f"{path}: does not say who works on the run; where no launcher does, remove it"
                ) from None
            time.sleep(WRITTEN_WITHIN_S / 20)


def _text(launcher: Launcher) -> str:
    return json.dumps(asdict(launcher)) + "\n"


def _machine() -> str:
    """The same after a restart of the machine, where it has an id: its launchers of before are dead then."""
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError):
            if text := Path(path).read_text().strip():
                return text
    return ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
