"""The two ways a file of ours is written: replaced whole, or appended to by whole lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union


def write_atomic(path: Path, data: Union[bytes, str]) -> None:
    """Replaces the file `path`: whatever happens in between, it holds the old content or the new, whole.

    The rename is durable only after a sync of the folder, and without a sync of the file before it
    a power cut can leave the new name on an empty file. Raises OSError; the old content is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_line(path: Path, line: str) -> None:
    """Appends one line with one write, so that lines of several writers never mix. Raises OSError.

    A last line that a crash or a full disk cut short is closed first: it must not swallow this one.
    """
    data = line.rstrip("\n").encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data
        if os.write(file, data) != len(data):
            raise OSError(f"{path}: the line was written in part only; is the disk full?")
    finally:
        os.close(file)
