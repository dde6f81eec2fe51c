"""A training's saves on a disk that fills up, is emptied again and then read-only.

    unshare --mount python THIS FOLDER

Prints as JSON what was seen. The disk takes 40 MB; a checkpoint is 8 MB and the best two are kept.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from test_saver import Heard, Value

from fcn import checkpoint, saver
from fcn.saver import Saver

DISK_MB, FILE_MB = 40, 4

folder = Path(sys.argv[1])
options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)]
subprocess.run(["mount", *options], check=True)
ballast = folder / "ballast"
saver.RETRY_EVERY_S = 0.2

values = FILE_MB * 1_000_000 // 4
weights = [Value("conv6.0.weight", np.zeros(values, np.float32))]
state = [Value("moments.conv6.0.weight", np.zeros(values, np.float32))]
status = Heard()
own = Saver(folder / "checkpoints", weights, state, 2, status, writes=True)


def save(step, last=False):
    weights[0].values[...] = state[0].values[...] = step
    own.save(step, f"FCN8s-1_{step}", {"step": step, "permanent": False}, regular=True, last=last)
    if not last:
        own.finish(stay=False)


def newest():
    found, damaged = checkpoint.newest(folder / "checkpoints", to_resume=True)
    return found.step, damaged


save(1)
save(2)
ballast.write_bytes(bytes((DISK_MB * 1024 * 1024 - 2 * 2 * FILE_MB * 1_000_000) - 6_000_000))  # 6 MB are left
save(3)
rest = [path.name for path in (folder / "checkpoints").glob("*1_3*")]
seen = {"after_full": {"newest": newest()[0], "rest": rest}}
seen["failed"] = [one["message"] for one in status.of("save_failed")]
seen["missing_mb"] = [2 * FILE_MB - 6, 2 * FILE_MB - 6 + 1]

save(4, last=True)  # fails too, until there is room
threading.Timer(0.5, ballast.unlink).start()
own.finish(stay=True)
step, damaged = newest()
seen["at_end"] = {"newest": step, "damaged": damaged}

subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
save(5)
seen["read_only"] = {"failed": status.of("save_failed")[-1]["message"], "newest": newest()[0]}
print(json.dumps(seen))
