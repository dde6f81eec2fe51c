"""A rank's output is its log, on a disk that may be full."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource, sys
from fcn import worker
worker.log_what_fits()
print("first", flush=True)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
print("second", flush=True)
print("third", flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print("\\nlast", flush=True)
print("nowhere", file=sys.stderr)
"""


def test_what_the_disk_does_not_take_is_lost_and_ends_nothing(tmp_path):
    with (tmp_path / "log").open("ab") as log, Path("/dev/full").open("wb") as full:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, stdout=log, stderr=full)
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == "first\nse\nlast\n"
