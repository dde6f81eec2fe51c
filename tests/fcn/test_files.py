"""Files of checkpoints: the bytes that were given, whatever the file system takes at once."""

import ctypes
import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcn.files import _BLOCK_BYTES, sha256_of, write_blocks

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "nothing": [],
    "less than a block": [5],
    "a block": [_BLOCK_BYTES],
    "odd ones over several blocks": [3, _BLOCK_BYTES - 1, 0, 2 * _BLOCK_BYTES + 7, 4096],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_what_is_written_is_what_was_given(tmp_path, sizes):
    blocks, told = [os.urandom(size) for size in sizes], []
    path = tmp_path / "file"
    path.write_bytes(b"older, and longer" * _BLOCK_BYTES)
    size, digest = write_blocks(path, blocks, told.append)
    content = b"".join(blocks)
    assert path.read_bytes() == content
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(told) == size
    assert sha256_of(path) == sha256_of(path, is_read_back=True) == digest


def test_on_a_file_system_without_direct_access(tmp_path):
    """ramfs has nothing but the page cache, and refuses O_DIRECT."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace of one's own is allowed here (unshare --mount)")
    program = """
import errno, os, sys
from pathlib import Path
from fcn.files import sha256_of, write_blocks
path = Path(sys.argv[1]) / "file"
try:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
except OSError as error:
    assert error.errno == errno.EINVAL
else:
    sys.exit("O_DIRECT is not refused: this tests nothing")
size, digest = write_blocks(path, [b"ab" * 300_001, b"c"])
assert path.read_bytes() == b"ab" * 300_001 + b"c" and size == 600_003
assert sha256_of(path, is_read_back=True) == digest
"""
    script = 'mount -t ramfs none "$0" && exec "$@"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            script,
            str(tmp_path),
            sys.executable,
            "-c",
            program,
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_is_written_past_the_page_cache(tmp_path):
    """What the training reads stays in it."""
    path, plain = tmp_path / "file", tmp_path / "plain"
    plain.write_bytes(os.urandom(_BLOCK_BYTES))
    assert pages_in_cache(plain) == _BLOCK_BYTES // mmap.PAGESIZE
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip(f"{tmp_path} is on {kind}, which is in memory")
    write_blocks(path, [os.urandom(64 * _BLOCK_BYTES)])
    sha256_of(path, is_read_back=True)
    assert pages_in_cache(path) == 0


def pages_in_cache(path):
    """As mincore says."""
    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        first = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
        return sum(page & 1 for page in pages)
