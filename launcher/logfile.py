"""Reading the logs of workers: any bytes, progress bars, lines without end. Standard library only."""

from __future__ import annotations

import os

TAIL_BYTES = 1 << 16
LINE_CHARACTERS = 2000  # what is shown of one line


def readable(line: bytes) -> str:
    """A line as a terminal would leave it: invalid UTF-8 replaced, the last state of what `\\r` overwrote."""
    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
    text = text.rpartition("\r")[2]
    return text if len(text) <= LINE_CHARACTERS else text[:LINE_CHARACTERS] + " ..."


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
