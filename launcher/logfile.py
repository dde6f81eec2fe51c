"""Reading the logs of workers: any bytes, progress bars, lines without end. Standard library only."""

from __future__ import annotations

import heapq
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Iterator

TAIL_BYTES = 1 << 16
READ_BYTES = 1 << 16
LINE_CHARACTERS = 2000  # what is shown of one line

# 2026-11-23 03:54:22,123 of Python's logging, 2026-11-23-03:54:22.123.456 of MindSpore
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T-](\d\d:\d\d:\d\d)(?:[.,](\d{1,3})(?:\.(\d{3}))?)?")


def readable(line: bytes) -> str:
    """A line as a terminal would leave it: invalid UTF-8 replaced, the last state of what `\\r` overwrote."""
    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
    text = text.rpartition("\r")[2]
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + " ..."


def time_of(line: str) -> str | None:
    """The first time stamp of a line as `2026-11-23 03:54:22.123456`, in the zone of who wrote it."""
    match = _TIME.search(line)
    if match is None:
        return None
    day, second, milli, micro = match.groups()
    return f"{day} {second}.{(milli or '').ljust(3, '0')}{micro or '000'}"


def tail(path: str, lines: int) -> list[str]:
    """The last lines of a log, fewer if it has fewer or they are very long; none where there is no log."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except OSError:
        return []
    found = data.split(b"\n")
    if size > TAIL_BYTES and len(found) > 1:
        del found[0]  # begins in mid-line
    return [readable(line) for line in found if line.strip()][-lines:]


class Follower:
    """The lines of a log that is still being written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._position = 0
        self._rest = b""

    def new_lines(self, at_end: bool = False) -> Iterator[str]:
        """The lines that have come since; `at_end`: also a last one without its newline."""
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123
                file.seek(self._position)
                while True:
                    data = file.read(READ_BYTES)
                    if not data:
                        break
                    self._position += len(data)
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    yield from map(readable, lines)
        except FileNotFoundError:
            return
        if at_end and self._rest:
            line, self._rest = self._rest, b""
            yield readable(line)


def merged(logs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(name, line) of all logs, `(name, path)` each, by time.

    A line without a time stamp stays behind the line before it; logs without any come one after the other.
    """
    return ((name, line) for _, name, line in heapq.merge(*map(_stamped, logs), key=lambda item: item[0]))


def _stamped(log: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
    name, path = log
    now = ""
    for line in Follower(path).new_lines(at_end=True):
        now = max(now, time_of(line) or "")
        yield now, name, line
