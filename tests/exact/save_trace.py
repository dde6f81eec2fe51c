"""A power cut at any moment of a save: replayed from what a save asks of the kernel, as strace sees it.

A disk keeps what was synced. Of the rest it may have kept all or nothing, names without content, or any name
and any part of a content without any other: after each call these and some drawn mixtures are played.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import saved
from row import Broken, Figures, NotHere
from save_program import file_name

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN = "run"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
SAVES, MEGABYTES = 6, 0.0005
SPOILT = 3  # step, one that is scored
DRAWN = 5  # mixtures after each call
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

    def drawn(self, dice: Random) -> bytes:
        """What the disk may have of it."""
        if self.content == self.synced:
            return self.synced
        return dice.choice((self.synced, self.content, self.content[: dice.randrange(len(self.content))]))


class Disk:
    """What is in a folder as programs see it, and what the disk has of it for certain."""

    def __init__(self, root: Path) -> None:
        """Of what there is in it already the disk has everything."""
        self.root = str(root)
        self.names: Dict[str, File] = {}
        for path in root.rglob("*"):
            file = self.names[str(path)] = File(path.is_dir())
            if not file.is_folder:
                file.content = file.synced = path.read_bytes()
        self.synced = dict(self.names)

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

    def after_a_cut(self, dice: Random) -> Iterator[Tuple[str, Dict[str, bytes]]]:
        """What may be there: names and contents."""
        kept = {name: file.synced for name, file in self._files(self.synced)}
        early = {name: file.synced for name, file in self._files(self.names)}
        yield "nothing but what was synced", kept
        yield "names, without content", early
        yield "new names beside the old ones, without content", {**kept, **early}
        yield "everything", {name: file.content for name, file in self._files(self.names)}
        for _ in range(DRAWN):
            yield "a mixture", self._mixture(dice)

    def _mixture(self, dice: Random) -> Dict[str, bytes]:
        """Names as they are or as they were synced, each by itself, and of each file some of the rest."""
        drawn: Dict[str, File] = {}
        for path in sorted({*self.names, *self.synced}):
            file = dice.choice((self.names, self.synced)).get(path)
            if file is not None:
                drawn[path] = file
        contents = {file: file.drawn(dice) for file in drawn.values()}
        return {path: contents[file] for path, file in self._files(drawn)}

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
    """From nothing; and over a checkpoint that is damaged, with the best one of its step whole."""
    fresh = replay(dice, folder / "fresh", 0, 0)
    over = folder / "over"
    subprocess.run(program(over / RUN, SPOILT), env=ENVIRONMENT, check=True, capture_output=True)
    spoilt = over / RUN / f"{file_name(SPOILT)}.ckpt"
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    again = replay(dice, over, SPOILT - 1, SPOILT)
    return {figure: fresh[figure] + again[figure] for figure in fresh}


def replay(dice: Random, folder: Path, said: int, spoilt: int) -> Figures:
    """Saves in a folder, in which `said` was saved last, and `spoilt` is damaged."""
    folder.mkdir(exist_ok=True)
    disk = Disk(folder)
    calls = trace(folder, said + SAVES)
    in_order(calls)
    cuts = 0
    for number, call in enumerate(calls):
        disk.do(call)
        said = call.step or said
        for what, files in disk.after_a_cut(dice):
            cuts += 1
            again = folder / "again"
            for file, content in files.items():
                path = again / Path(file).relative_to(folder / RUN)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            try:
                saved.require(again, said, spoilt)
            except Broken as error:
                raise Broken(f"call {number} ({call.kind} {call.path}), {what}: {error}") from None
            shutil.rmtree(again, ignore_errors=True)
    return {"calls": len(calls), "cuts": cuts}


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


def program(run: Path, last: int) -> List[str]:
    return [sys.executable, str(HERE / "save_program.py"), str(run), str(MEGABYTES), str(last)]


def trace(folder: Path, last: int) -> List[Call]:
    """What that program asks of the kernel, of files in this folder. Raises NotHere where strace can not."""
    if shutil.which("strace") is None:
        raise NotHere("strace is not installed")
    log = folder / "trace"
    strace = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(log)]
    done = subprocess.run(
        [*strace, *program(folder / RUN, last)],
        env=ENVIRONMENT,
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
        elif ("O_WRONLY" in words or "O_RDWR" in words) and not names[0].endswith(".writing"):
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
