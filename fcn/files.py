"""Files that a crash must not spoil, and how damage to them is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Mapping, Tuple, Union

_BLOCK_BYTES = 1 << 20
_SYNC_BYTES = 64 << 20  # written between two syncs: a slow disk shows, and is not given a gigabyte at once


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
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

    `wrote` is told of bytes that the file has taken. Raises OSError.
    """
    digest, size, synced = hashlib.sha256(), 0, 0
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            for start in range(0, len(block), _BLOCK_BYTES):
                piece = memoryview(block)[start : start + _BLOCK_BYTES]
                digest.update(piece)
                while piece:  # a disk that is nearly full takes a part
                    count = file.write(piece)
                    wrote(count)
                    size, piece = size + count, piece[count:]
                if size - synced >= _SYNC_BYTES:
                    os.fdatasync(file.fileno())
                    synced = size
        os.fsync(file.fileno())
    return size, digest.hexdigest()


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
