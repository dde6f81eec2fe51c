"""A power cut at any moment of a save: replayed from what a save asks of the kernel, as strace sees it.

A disk keeps what was synced. Of the rest it may have kept all or nothing, and names without content: each is
played after each call.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from row import Broken, Figures, NotHere
from save_program import KEEP

from fcn import checkpoint
from fcn.errors import WeightsError
from fcn.saver import BEST

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN = "run"
SAVES, MEGABYTES = 6, 0.0005
LIMIT_S = 120
CALLS = "open,openat,creat,write,pwrite64,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2"
CALLS += ",unlink,unlinkat,link,linkat,mkdir,mkdirat,rmdir"

_LINE = re.compile(r"(?:\d+\s+)?(\w+)\((.*)\)\s+= (\d+)(?:<.*>)?$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2}|[^"\\])*)"')
_PATH_OF_FD = re.compile(r"^(\d+)<(.*?)>")


class Call(NamedTuple):
    """kind: create, write, sync, sync-folder, rename, unlink, mkdir or durable (`step` was said to be)."""

    kind: str
    path: str
    target: str = ""
    data: bytes = b""
    step: int = 0


class File:
    """content: as programs see it. synced: as the disk has it for certain."""

    def __init__(self, is_folder: bool = False) -> None:
        self.content = self.synced = b""
        self.is_folder = is_folder


class Disk:
    """What is in a folder as programs see it, and what the disk has of it for certain."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.names: Dict[str, File] = {}
        self.synced: Dict[str, File] = {}

    def do(self, call: Call) -> None:
        if call.kind == "create":
            self.names.setdefault(call.path, File()).content = b""
        elif call.kind == "mkdir":
            self.names[call.path] = File(is_folder=True)
        elif call.kind == "write":
            self.names[call.path].content += call.data
        elif call.kind == "sync":
            self.names[call.path].synced = self.names[call.path].content
        elif call.kind == "sync-folder":
            inside = {name: file for name, file in self.names.items() if parent(name) == call.path}
            outside = {name: file for name, file in self.synced.items() if parent(name) != call.path}
            self.synced = {**inside, **outside}
        elif call.kind == "rename":
            self.names[call.target] = self.names.pop(call.path)
        elif call.kind == "unlink":
            del self.names[call.path]

    def after_a_cut(self) -> Iterator[Tuple[str, Dict[str, bytes]]]:
        """What may be there: names and contents."""
        kept = {name: file.synced for name, file in self._files(self.synced)}
        early = {name: file.synced for name, file in self._files(self.names)}
        yield "nothing but what was synced", kept
        yield "names, without content", early
        yield "new names beside the old ones, without content", {**kept, **early}
        yield "everything", {name: file.content for name, file in self._files(self.names)}

    def _files(self, names: Dict[str, File]) -> Iterator[Tuple[str, File]]:
        """Those whose folders are there too."""
        for name, file in names.items():
            folder = parent(name)
            while folder != self.root and folder in names:
                folder = parent(folder)
            if folder == self.root and not file.is_folder:
                yield name, file


def parent(name: str) -> str:
    return name.rpartition("/")[0]


def case(dice: Random, folder: Path) -> Figures:
    calls = trace(folder)
    in_order(calls)
    disk, said, cuts = Disk(str(folder)), 0, 0
    for number, call in enumerate(calls):
        disk.do(call)
        said = call.step or said
        for what, files in disk.after_a_cut():
            cuts += 1
            again = folder / "again"
            for name, content in files.items():
                path = again / Path(name).relative_to(folder / RUN)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            look(again, said, f"call {number} ({call.kind} {call.path}), {what}")
            shutil.rmtree(again, ignore_errors=True)
    return {"calls": len(calls), "cuts": cuts}


def look(folder: Path, said: int, when: str) -> None:
    """Raises Broken where what was said to be saved can not be gone on from, or an older one is lost."""
    found, _ = checkpoint.newest(folder, to_resume=True)
    step = found.step if found else 0
    if step < said:
        raise Broken(f"{when}: step {said} was saved, the run would go on from {step}")
    for older in range(max(1, step - KEEP + 1), min(step, said) + 1):
        try:
            checkpoint.verify(folder / f"FCN8s-1_{older}.ckpt")
        except WeightsError as error:
            raise Broken(f"{when}: {error}") from None
    if said >= 3 and checkpoint.newest(folder / BEST)[0] is None:
        raise Broken(f"{when}: the best one is lost")


def in_order(calls: List[Call]) -> None:
    """Raises Broken unless a save is: write, sync, rename, sync of the folder; the manifest last."""
    unsynced: Dict[str, bool] = {}
    renamed: List[str] = []  # since the folder was synced
    manifests = 0
    for call in calls:
        if call.kind == "write":
            unsynced[call.path] = True
        elif call.kind == "sync":
            unsynced[call.path] = False
        elif call.kind == "sync-folder":
            renamed = [name for name in renamed if parent(name) != call.path]
        elif call.kind == "rename":
            if unsynced.get(call.path, True):
                raise Broken(f"{call.target} is renamed before its content is synced")
            if call.target.endswith(".json"):
                manifests += 1
                if renamed:
                    raise Broken(f"{call.target} comes before the names of {renamed} are synced")
            renamed.append(call.target)
        elif call.kind == "durable" and renamed:
            raise Broken(f"step {call.step} is said to be saved before {renamed} are synced")
    if manifests < SAVES:
        raise Broken(f"{manifests} manifests in the trace of {SAVES} saves")


def trace(folder: Path) -> List[Call]:
    """What that program asks of the kernel, of files in this folder. Raises NotHere where strace can not."""
    if shutil.which("strace") is None:
        raise NotHere("strace is not installed")
    log = folder / "trace"
    program = [sys.executable, str(HERE / "save_program.py"), str(folder / RUN), str(MEGABYTES), str(SAVES)]
    done = subprocess.run(
        ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(log), *program],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode != 0 and "PTRACE" in done.stderr:
        raise NotHere(f"strace may not trace here: {done.stderr.splitlines()[-1]}")
    if done.returncode != 0:
        raise Broken(f"code {done.returncode}: {done.stderr[-600:]}")
    return [call for line in whole_lines(log.read_text()) for call in parse(line, str(folder)) if call]


def whole_lines(text: str) -> Iterator[str]:
    """A call that was interrupted by another thread's comes in two lines."""
    begun: Dict[str, str] = {}
    for line in text.splitlines():
        thread, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest[: -len("<unfinished ...>")].strip()
        elif " resumed>" in rest:
            yield begun.pop(thread) + rest.partition(" resumed>")[2].strip()
        else:
            yield rest.strip()


def parse(line: str, folder: str) -> Iterator[Optional[Call]]:
    matched = _LINE.match(line)
    if matched is None:
        return
    kind, words, result = matched.groups()
    texts = [decode(text) for text in _STRING.findall(words)]
    opened = _PATH_OF_FD.match(words)
    path = decode(opened.group(2)).decode() if opened else ""
    names = [text.decode(errors="replace") for text in texts]
    if kind == "write" and path.startswith("pipe:") and names[0].startswith("durable"):
        yield Call("durable", path, step=int(names[0].split()[1]))
    elif kind == "write" and path.startswith(folder):
        yield Call("write", path, data=texts[0][: int(result)])
    elif kind in ("fsync", "fdatasync") and path.startswith(folder):
        yield Call("sync" if "." in path.rpartition("/")[2] else "sync-folder", path)
    elif not names or not names[0].startswith(folder):
        return
    elif kind in ("open", "openat", "creat"):
        if "O_CREAT" in words:
            yield Call("create", names[0])
        elif "O_WRONLY" in words or "O_RDWR" in words:
            raise Broken(f"it writes to a file that was there: {line}")
    elif kind.startswith("rename"):
        yield Call("rename", names[0], names[1])
    elif kind.startswith("unlink"):
        yield Call("unlink", names[0])
    elif kind.startswith("mkdir"):
        yield Call("mkdir", names[0])
    else:
        raise Broken(f"a call that is not known here: {line}")


def decode(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes([int(byte[1], 16)]), text.encode())
