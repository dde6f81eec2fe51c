"""What the catalogue knows of a whole log, however long: read as a stream, lines of one kind read once."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from launcher.catalogue import Catalogue, Signature, is_severe
from launcher.logfile import readable, time_of

BLOCK_BYTES = 1 << 20
KINDS_BYTES = 1 << 24  # of the kinds of lines that are remembered
LINE_BYTES = 1 << 14  # of one line, in which an error is looked for
LOOK_BACK_BYTES = 1 << 13  # in which the time of a line without its own is looked for
LAST_ERRORS = 5
SURVIVED_LINES = 300  # without an error, after which those before it did not end the process

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
    """One log. rank: whose it is, by its name or what it says.

    found: what is known of its last errors, by line, a signature once. lines: how many it has. last_error:
    number of the last line that is an error, known or not. last_errors: (line, text) of the last of them.
    """

    path: str
    rank: Optional[int]
    lines: int = 0
    last_error: int = 0
    found: List[Found] = field(default_factory=list)
    last_errors: Deque[Tuple[int, str]] = field(default_factory=lambda: deque(maxlen=LAST_ERRORS))

    @property
    def name(self) -> str:
        """Of the process that wrote it."""
        return Path(self.path).stem if self.rank is None else f"rank {self.rank}"

    @property
    def went_on(self) -> bool:
        """Whether the process did not end by its errors."""
        return self.lines - self.last_error > SURVIVED_LINES


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
    """Lines are told apart without their numbers: one like another that was no error is passed over.

    So a log of a gigabyte, most of it the steps of a training or one error again and again, costs little more
    than its reading. The price: two errors that differ in numbers alone are one.
    """

    def __init__(self, scan: Scan, catalogue: Catalogue) -> None:
        self.scan = scan
        self._catalogue = catalogue
        self._time: Optional[str] = None  # the last before this block
        self._ordinary: Set[bytes] = set()  # kinds of lines that are no errors
        self._errors: Dict[bytes, Optional[Signature]] = {}  # kinds of lines that are
        self._kinds_bytes = 0  # of both
        self._survived = False  # what was found so far

    def read(self, block: bytes) -> None:
        """One block of whole lines."""
        kinds = block.translate(None, _VARYING).split(b"\n")
        worth_a_look = set(kinds) - self._ordinary
        if worth_a_look:
            lines = block.split(b"\n")
            for place, kind in enumerate(kinds):
                if kind in worth_a_look and not self._look(kind, lines, place):
                    worth_a_look.discard(kind)
        self.scan.lines += len(kinds) - 1  # it ends with a newline, or is part of a long line
        self._time = _last_time(block[-LOOK_BACK_BYTES:]) or self._time

    def _look(self, kind: bytes, lines: Sequence[bytes], place: int) -> bool:
        """Whether a line is an error, known or not."""
        if kind not in self._errors and not self._learn(kind, lines, place):
            return False
        number, signature = self.scan.lines + place + 1, self._errors[kind]
        self._survived |= number - self.scan.last_error > SURVIVED_LINES
        self.scan.last_error = number
        if signature is not None and self._survived:
            self.scan.found.clear()
            self._survived = False
        if signature is not None and all(found.signature is not signature for found in self.scan.found):
            time, text = self._time_at(lines, place), readable(lines[place])
            self.scan.found.append(Found(signature, self.scan.path, number, time, text))
        return True

    def _learn(self, kind: bytes, lines: Sequence[bytes], place: int) -> bool:
        """The same of a kind that was not seen before."""
        if self._kinds_bytes > KINDS_BYTES:
            self._ordinary.clear()
            self._errors.clear()
            self._kinds_bytes = 0
        self._kinds_bytes += len(kind)
        line = lines[place][:LINE_BYTES].decode("utf-8", errors="replace")
        # In a traceback the code may speak of errors, and of another one.
        is_code = place > 0 and lines[place - 1].lstrip().startswith(b'File "')
        signature = None if is_code else self._catalogue.find(line)
        if signature is None and (is_code or _ERROR.search(line) is None or not is_severe(line)):
            self._ordinary.add(kind)
            return False
        self._errors[kind] = signature
        self.scan.last_errors.append((self.scan.lines + place + 1, readable(lines[place])))
        self._take_rank(line)
        return True

    def _take_rank(self, line: str) -> None:
        if self.scan.rank is None:
            match = _RANK_IN_LINE.search(line)
            self.scan.rank = int(match.group(1)) if match else None

    def _time_at(self, lines: Sequence[bytes], place: int) -> Optional[str]:
        before = b"\n".join(line[:LINE_BYTES] for line in lines[max(0, place - 100) : place + 1])
        return _last_time(before) or self._time


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
