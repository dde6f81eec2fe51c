"""What the catalogue knows of a whole log, however long: read as a stream, lines of one kind read once."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Deque, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from launcher.catalogue import Catalogue, Signature, is_severe
from launcher.logfile import readable, time_of

BLOCK_BYTES = 1 << 20
SHAPES_BYTES = 1 << 24  # of the kinds of lines that are remembered
LINE_BYTES = 1 << 14  # of one line, in which an error is looked for
LOOK_BACK_BYTES = 1 << 13  # in which the time of a line without its own is looked for
LAST_ERRORS = 5

_VARYING = b"0123456789abcdef"  # numbers, also hexadecimal
_LOG_NAME = re.compile(r"(?:.*\.(?:log|out|err|txt)(?:\.\d+)?|log)\d*")
_RANK_IN_NAME = re.compile(r"(?:^|[^a-z])(?:rank|worker)[-_]?(\d+)(?!\d)")
_RANK_IN_FOLDER = re.compile(r"(?:^|[^a-z])(?:rank|train_parallel)[-_]?(\d+)(?!\d)")
_RANK_IN_LINE = re.compile(r"(?:\bRankID:|\brankId\[|localUserrank\[|userRank\[|, rank\[|^\[rank-?)(\d+)")
_ERROR = re.compile(r"ERROR|CRITICAL|EXCEPTION|Error\b|Exception\b|error:|fatal:|FATAL")


@dataclass(frozen=True)
class Found:
    """The first line of a log that has a signature. line: from 1. time: its own, or the last before."""

    signature: Signature
    path: str
    line: int
    time: Optional[str]
    text: str


@dataclass
class Scan:
    """One log. rank: whose it is, by its name or what it says. found: by line, a signature once.

    last_errors: (line, text) of the last lines that are marked as errors, known or not.
    """

    path: str
    rank: Optional[int]
    found: List[Found] = field(default_factory=list)
    last_errors: Deque[Tuple[int, str]] = field(default_factory=lambda: deque(maxlen=LAST_ERRORS))

    @property
    def name(self) -> str:
        """Of the process that wrote it."""
        return Path(self.path).stem if self.rank is None else f"rank {self.rank}"


def scan(path: str, catalogue: Catalogue) -> Scan:
    """Reads a log. Raises OSError."""
    with open(path, "rb") as file:  # noqa: PTH123
        return scan_blocks(path, iter(lambda: file.read(BLOCK_BYTES), b""), catalogue)


def scan_blocks(path: str, blocks: Iterable[bytes], catalogue: Catalogue) -> Scan:
    """A log of these bytes."""
    reader = _Reader(Scan(path, rank_of(path)), catalogue)
    for lines in _whole_lines(blocks):
        reader.read(lines)
    return reader.scan


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut at ends of lines; also within a line that is longer than a block."""
    rest = b""
    for block in blocks:
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield whole + newline
        elif len(rest) > BLOCK_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


class _Reader:
    """Lines are told apart without their numbers: one like another that said nothing new is passed over.

    So a log of a gigabyte, most of it the steps of a training or one error again and again, costs little more
    than its reading. The price: two errors that differ in numbers alone are one.
    """

    def __init__(self, scan: Scan, catalogue: Catalogue) -> None:
        self.scan = scan
        self._catalogue = catalogue
        self._lines = 0  # before this block
        self._time: Optional[str] = None  # the last before this block
        self._seen: Set[bytes] = set()  # kinds of lines that say nothing new
        self._seen_bytes = 0
        self._known: Set[str] = set()  # names of the signatures that were found

    def read(self, block: bytes) -> None:
        """One block of whole lines."""
        kinds = block.translate(None, _VARYING).split(b"\n")
        new = set(kinds) - self._seen
        if new:
            lines = block.split(b"\n")
            for place, kind in enumerate(kinds):
                if kind in new and self._says_nothing_new(lines, place):
                    new.discard(kind)
                    self._remember(kind)
        self._lines += len(kinds) - 1  # it ends with a newline, or is part of a long line
        self._time = _last_time(block[-LOOK_BACK_BYTES:]) or self._time

    def _says_nothing_new(self, lines: Sequence[bytes], place: int) -> bool:
        """Whether neither this line nor others like it have to be looked at again."""
        if place and lines[place - 1].lstrip().startswith(b'File "'):
            return True  # of a traceback: code that speaks of an error, which may be another
        line = lines[place][:LINE_BYTES].decode("utf-8", errors="replace")
        number = self._lines + place + 1
        signature = self._catalogue.find(line)
        if signature is not None or (_ERROR.search(line) is not None and is_severe(line)):
            self.scan.last_errors.append((number, readable(lines[place])))
            self._take_rank(line)
        if signature is None or signature.name in self._known:
            return True
        self._known.add(signature.name)
        time = self._time_at(lines, place)
        self.scan.found.append(Found(signature, self.scan.path, number, time, readable(lines[place])))
        return False

    def _take_rank(self, line: str) -> None:
        if self.scan.rank is None:
            match = _RANK_IN_LINE.search(line)
            self.scan.rank = int(match.group(1)) if match else None

    def _time_at(self, lines: Sequence[bytes], place: int) -> Optional[str]:
        before = b"\n".join(line[:LINE_BYTES] for line in lines[max(0, place - 100) : place + 1])
        return _last_time(before) or self._time

    def _remember(self, kind: bytes) -> None:
        if self._seen_bytes > SHAPES_BYTES:
            self._seen.clear()
            self._seen_bytes = 0
        self._seen.add(kind)
        self._seen_bytes += len(kind)


def _last_time(text: bytes) -> Optional[str]:
    for line in reversed(text.split(b"\n")):
        time = time_of(line.decode("utf-8", errors="replace"))
        if time is not None:
            return time
    return None


def rank_of(path: str) -> Optional[int]:
    """The rank whose log this is, as far as the path tells: rank-03.log, rank_3/debug/plog-1.log."""
    *folders, name = Path(path).parts
    searches = [_RANK_IN_NAME.search(name), *map(_RANK_IN_FOLDER.search, reversed(folders))]
    match = next(filter(None, searches), None)
    return int(match.group(1)) if match else None


def logs_below(folder: Path) -> List[Path]:
    """The files of a folder, and of the folders in it, that have the name of a log."""
    paths = (path for path in folder.rglob("*") if _LOG_NAME.fullmatch(path.name))
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("agent-"))
