"""Files that a crash must not spoil, and how damage to them is found."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Tuple, Union

# Read and written at once: the thread that saves sleeps after each, and the training gets its core back.
_BLOCK_BYTES = 1 << 18
_SYNC_BYTES = 64 << 20  # written between two syncs: a slow disk shows, and is not given a gigabyte at once


def sha256_of(path: Path, is_read_back: bool = False) -> str:
    """Hex digest of a file's content. is_read_back: of what the disk has, and nothing is put in the cache."""
    digest = hashlib.sha256()
    buffer = _aligned()
    descriptor = _open_direct(path, os.O_RDONLY) if is_read_back else os.open(path, os.O_RDONLY)
    try:
        while count := os.readv(descriptor, [buffer]):
            digest.update(buffer[:count])
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names that a folder has."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_blocks(
    path: Path, blocks: Iterable[Union[bytes, memoryview]], wrote: Callable[[int], None] = lambda count: None
) -> Tuple[int, str]:
    """Write a file and have the disk hold it; its size and the sha256 of what was given.

    Past the page cache where the file system can: a copy of each page takes cores from the training, and what
    it reads is put out of the cache. `wrote` is told of bytes that the file has taken. Raises OSError.
    """
    digest, size, synced = hashlib.sha256(), 0, 0
    descriptor = _open_direct(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for piece in _pieces(blocks):
            digest.update(piece)
            while piece:  # a disk that is nearly full takes a part
                count = _write(descriptor, piece)
                wrote(count)
                size, piece = size + count, piece[count:]
            if size - synced >= _SYNC_BYTES:
                os.fdatasync(descriptor)
                synced = size
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size, digest.hexdigest()


def _open_direct(path: Path, flags: int) -> int:
    """Past the page cache, where the file system can."""
    try:
        return os.open(path, flags | os.O_DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, 0o666)


def _aligned() -> memoryview:
    """Memory at an address that O_DIRECT takes: a page's."""
    return memoryview(mmap.mmap(-1, _BLOCK_BYTES))


def _pieces(blocks: Iterable[Union[bytes, memoryview]]) -> Iterator[memoryview]:
    """All blocks, in aligned pieces of one size but for the last."""
    buffer, filled = _aligned(), 0
    for block in blocks:
        rest = memoryview(block)
        while rest:
            count = min(len(rest), _BLOCK_BYTES - filled)
            buffer[filled : filled + count] = rest[:count]
            filled, rest = filled + count, rest[count:]
            if filled == _BLOCK_BYTES:
                yield buffer
                filled = 0
    yield buffer[:filled]


def _write(descriptor: int, piece: memoryview) -> int:
    """os.write; what O_DIRECT refuses, such as the odd end of a file, goes through the cache."""
    try:
        return os.write(descriptor, piece)
    except OSError as error:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if error.errno != errno.EINVAL or not flags & os.O_DIRECT:
            raise
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return os.write(descriptor, piece)


def write_atomic(path: Path, content: Union[str, bytes]) -> None:
    """Replace a file as a whole: whoever reads it finds the old content or the new."""
    writing = path.with_name(f".{path.name}.writing")
    writing.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(writing)
    writing.replace(path)
    sync(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is to be in, and have the disk hold their names."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def free_bytes(path: Path) -> int:
    """What is free on the disk that a path is on, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def in_megabytes(count: int) -> str:
    """A number of bytes for people: megabytes, or gigabytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def seal(manifest: Mapping[str, Any]) -> Dict[str, Any]:
    """A manifest with its own checksum, so that a damaged manifest is known as such."""
    content = json.dumps(manifest, sort_keys=True).encode()
    return {**manifest, "checksum": hashlib.sha256(content).hexdigest()}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was sealed."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return seal(content)["checksum"] == manifest.get("checksum")
