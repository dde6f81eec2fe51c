"""Files of checkpoints: the bytes that were given, whatever the file system takes at once."""

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcn import checkpoint
from fcn.files import _PIECE_BYTES, sha256_of, sha256_on_disk, write_blocks

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "nothing": [],
    "less than a piece": [5],
    "a piece": [_PIECE_BYTES],
    "odd ones over several pieces": [3, _PIECE_BYTES - 1, 0, 2 * _PIECE_BYTES + 7, 4096],
}


def is_right(path, blocks):
    """Whether a file holds what it was given to hold, and is read as such by all."""
    told = []
    size, digest = write_blocks(path, blocks, told.append)
    content = b"".join(blocks)
    return (
        path.read_bytes() == content
        and (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
        and sum(told) == size
        and sha256_of(path) == sha256_on_disk(path) == digest
    )


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_what_is_written_is_what_was_given(tmp_path, sizes):
    path = tmp_path / "file"
    path.write_bytes(b"older" * _PIECE_BYTES)
    assert is_right(path, [os.urandom(size) for size in sizes])


def needs_direct(path):
    """Skips where O_DIRECT is refused, or leaves pages in the cache all the same."""
    probe = path / "probe"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        pytest.skip(f"{path}: O_DIRECT: {error.strerror}")
    os.write(descriptor, mmap.mmap(-1, _PIECE_BYTES))
    os.close(descriptor)
    if pages_in_cache(probe):
        pytest.skip(f"{path}: its file system keeps what is written with O_DIRECT in memory")


def pages_in_cache(path):
    """As mincore says."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        first = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
        return sum(page & 1 for page in pages)


def test_a_save_leaves_the_page_cache_to_what_the_training_reads(tmp_path):
    """But for the odd end of a file."""
    needs_direct(tmp_path)
    plain = tmp_path / "plain"
    plain.write_bytes(os.urandom(_PIECE_BYTES))
    assert pages_in_cache(plain) == _PIECE_BYTES // mmap.PAGESIZE
    values = {"w": np.ones(4 * _PIECE_BYTES // 4, np.float32)}
    for step in (1, 2):
        saved = checkpoint.save(tmp_path / "saved", f"FCN8s-1_{step}", values, values, {"step": step})
    checkpoint.retire(saved, 1)  # reads it back
    assert [path.name for path in saved.parent.glob("*.ckpt")] == [saved.name]
    for path in (saved, checkpoint.state_of(saved)):
        assert pages_in_cache(path) <= _PIECE_BYTES // mmap.PAGESIZE


@pytest.mark.parametrize("refused", [0, 1, 3], ids="call {}".format)
def test_direct_access_that_is_refused_on_the_way(tmp_path, monkeypatch, refused):
    """As Linux before 5.5 does at the odd end of a file, and some FUSE file systems anywhere."""
    needs_direct(tmp_path)
    calls = {"write": 0, "readv": 0}

    def but_one(name, call):
        def refusing(descriptor, data):
            is_direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
            calls[name] += 1
            if is_direct and calls[name] > refused:
                raise OSError(errno.EINVAL, "Invalid argument")
            return call(descriptor, data)

        return refusing

    for name in calls:
        monkeypatch.setattr(os, name, but_one(name, getattr(os, name)))
    assert is_right(tmp_path / "file", [os.urandom(4 * _PIECE_BYTES), b"odd"])
    assert min(calls.values()) > 4


def test_on_a_file_system_without_direct_access(tmp_path):
    """ramfs has nothing but the page cache, and refuses O_DIRECT."""
    program = """
import errno, os, sys
from pathlib import Path
from test_files import is_right
path = Path(sys.argv[1]) / "file"
try:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
except OSError as error:
    assert error.errno == errno.EINVAL
else:
    sys.exit("O_DIRECT is not refused: this tests nothing")
assert is_right(path, [b"ab" * 3_000_001, b"c"])
"""
    words = ["unshare", "--mount", "sh", "-c", 'mount -t ramfs none "$0" && exec "$@"', str(tmp_path)]
    try:
        subprocess.run([*words, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a ramfs of one's own is not allowed here: {error}")
    done = subprocess.run(
        [*words, sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
