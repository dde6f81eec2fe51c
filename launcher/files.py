"""How a file of ours is written: durably in a new place, replaced whole, or appended to by whole lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Union


def write_synced(path: Path, data: Union[bytes, str]) -> None:
    """Writes a file through to the disk; its name is durable after a `sync_folder`. Raises OSError."""
    with path.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable: what was created, renamed and removed there. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_file_system(path: Path) -> None:
    """Writes through everything that waits on the file system of a folder: for thousands of files, each of
    which would take a sync of its own. Raises OSError, also for what could not be written."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if library.syncfs(folder) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(folder)


def write_atomic(path: Path, data: Union[bytes, str]) -> None:
    """Replaces the file `path`: whatever happens in between, it holds the old content or the new, whole.

    The rename is durable only after a sync of the folder, and without a sync of the file before it
    a power cut can leave the new name on an empty file. Raises OSError; the old content is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
