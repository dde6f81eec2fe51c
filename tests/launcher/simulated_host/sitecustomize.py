"""Makes a Python a program of the simulated host whose folder is in SIMULATED_HOST.

The host's files are in that folder; what has no file is in its host.json. Everything else is this machine.
"""

import json
import os
from pathlib import Path

folder = Path(os.environ["SIMULATED_HOST"])
settings = json.loads((folder / "host.json").read_text())

from launcher import devices  # noqa: E402
from launcher.agent import device_watch  # noqa: E402
from launcher.doctor import host, software  # noqa: E402

device_watch.PERIOD_S = 0.1
devices.TOOL_LIMIT_S = settings["tool_limit_s"]
devices.DEV = folder / "dev"
devices.DRIVER_TOOLS = folder / "nothing"
software.DRIVER_INFO = folder / "version.info"
host.MEMORY = folder / "meminfo"
host._main_address = lambda: settings["address"]

_uname, _statvfs = os.uname, os.statvfs


def uname():
    sysname, _, release, version, machine = _uname()
    return os.uname_result((sysname, settings["hostname"], release, version, machine))


def statvfs(path):
    fields = list(_statvfs(path))
    megabytes = settings["disks_mb"].get(str(path))
    if megabytes is not None:  # block size and fragment size, then all and free blocks, and free for users
        fields[:5] = [1_000_000, 1_000_000, megabytes, megabytes, megabytes]
    return os.statvfs_result(fields)


os.uname, os.statvfs = uname, statvfs
software.PYTHON_VERSION = settings["python"]
