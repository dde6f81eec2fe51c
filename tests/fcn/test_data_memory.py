"""Reading is streaming: its memory does not grow with the data set."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import build

from fcn.pictures import save_mask

SIDE = 640  # of noise, which takes about 400 kB as JPEG
SMALL, LARGE = 100, 1000  # samples
READ = """
import resource, sys
from types import SimpleNamespace
from fcn.data.pipeline import train_batches
from fcn.data.records import open_dataset
data = open_dataset(sys.argv[1])
config = SimpleNamespace(
    seed=1, crop_size=32, min_scale=0.5, max_scale=1.0, image_mean=(0, 0, 0), ignore_label=255,
    num_classes=8, data_workers=2, photometric=False,
)
steps = int(sys.argv[2])
batches = train_batches(data, config, start_step=0, total_steps=steps, global_batch=4, rank=0, world=1)
assert sum(len(ids) for _, _, ids in batches) == 4 * steps
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set(tmp_path):
    peaks_mb, sizes_mb = {}, {}
    for samples in (SMALL, LARGE):
        folder = tmp_path / str(samples)
        names = _write(folder, samples)
        (folder / "list.txt").write_text("\n".join(names))
        build(folder, folder / "list.txt")
        sizes_mb[samples] = sum(file.stat().st_size for file in folder.glob("set.mindrecord*")) / 2**20
        command = [sys.executable, "-c", READ, str(folder / "set.mindrecord"), str(SMALL)]  # as many steps
        peaks_mb[samples] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    more_mb = sizes_mb[LARGE] - sizes_mb[SMALL]
    assert more_mb > 200
    assert peaks_mb[LARGE] - peaks_mb[SMALL] < more_mb / 5, (peaks_mb, sizes_mb)


def _write(folder: Path, samples: int) -> list:
    """Names of as many samples, all of them one and the same image."""
    for name in ("img", "cls_png"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "img/s0.jpg"), noise)
    save_mask(folder / "cls_png/s0.png", np.ones((SIDE, SIDE), np.uint8))
    names = [f"s{number}" for number in range(samples)]
    for name in names[1:]:
        os.link(folder / "img/s0.jpg", folder / f"img/{name}.jpg")
        os.link(folder / "cls_png/s0.png", folder / f"cls_png/{name}.png")
    return names
