"""Files that a crash must not spoil, and how damage to them is found."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Tuple, TypeVar, Union

_T = TypeVar("_T")

_BLOCK_BYTES = 1 << 20
# Of what is large, while a training runs: written or read at once, few enough calls for a disk far away; and
# hashed between two naps, in which a step gets its core back sooner than by the scheduler's slice.
_PIECE_BYTES, _HASHED_BYTES, _NAP_S = 4 << 20, 1 << 18, 1e-5
_SYNC_BYTES = 64 << 20  # written between two syncs: a page cache is not given a gigabyte at once


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_on_disk(path: Path) -> str:
    """The same of what the disk has, past the page cache where the file system can, and with naps."""
    digest, buffer = hashlib.sha256(), _aligned()
    with _Direct(path, os.O_RDONLY) as file:
        while count := file.call(os.readv, [buffer]):
            _hash(digest, buffer[:count])
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
    with _Direct(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        for piece in _pieces(blocks):
            _hash(digest, piece)
            start = 0
            while start < len(piece):  # a disk that is nearly full may take a part
                count = file.call(os.write, piece[start:])
                wrote(count)
                start += count
            size += len(piece)
            if size - synced >= _SYNC_BYTES:
                file.call(os.fdatasync)
                synced = size
        file.call(os.fsync)
    return size, digest.hexdigest()


class _Direct:
    """A file past the page cache, for as long as its file system takes that."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path, self._flags = path, flags
        try:
            self._descriptor, self._is_direct = os.open(path, flags | os.O_DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor, self._is_direct = os.open(path, flags, 0o666), False

    def __enter__(self) -> _Direct:
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._descriptor)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """function(descriptor, *arguments); through the cache from where O_DIRECT is refused.

        That is at a file's odd end, by Linux before 5.5 in reading too; on some FUSE file systems anywhere.
        """
        try:
            return function(self._descriptor, *arguments)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct:
                raise
        self._leave_direct()
        return function(self._descriptor, *arguments)

    def _leave_direct(self) -> None:
        """By opening anew: the server of a FUSE file system does not hear of a flag that is taken back."""
        plain = os.open(self._path, self._flags & ~(os.O_CREAT | os.O_TRUNC))
        os.lseek(plain, os.lseek(self._descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
        os.close(self._descriptor)
        self._descriptor, self._is_direct = plain, False


def _aligned() -> memoryview:
    """Memory for a piece, at an address that O_DIRECT takes: a page's."""
    return memoryview(mmap.mmap(-1, _PIECE_BYTES))


def _pieces(blocks: Iterable[Union[bytes, memoryview]]) -> Iterator[memoryview]:
    """All blocks, in aligned pieces of one size but for the last."""
    buffer, filled = _aligned(), 0
    for block in blocks:
        rest = memoryview(block)
        while rest:
            count = min(len(rest), _PIECE_BYTES - filled, _HASHED_BYTES)
            buffer[filled : filled + count] = rest[:count]  # holds Python's lock
            filled, rest = filled + count, rest[count:]
            if filled == _PIECE_BYTES:
                yield buffer
                filled = 0
    yield buffer[:filled]


def _hash(digest: hashlib._Hash, data: memoryview) -> None:
    for start in range(0, len(data), _HASHED_BYTES):
        digest.update(data[start : start + _HASHED_BYTES])
        time.sleep(_NAP_S)


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
