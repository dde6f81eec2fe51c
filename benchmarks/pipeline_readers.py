"""One reader in a process of its own: READER DATA WORKERS BATCH RANK WORLD.

It says when it is ready, waits for a line, reads EPOCHS whole epochs, and answers with one JSON object.
READER is `fcn` (fcn/data/pipeline.py), `fcn photometric`, or `model zoo`: the order of work of the FCN-8s in
the MindSpore model zoo, written anew. That normalises the whole resized image in float32, pads and cuts it
then, and shuffles finished crops.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Iterator, Tuple

import cv2
import mindspore.dataset as ds
import numpy as np

from fcn.config import Config
from fcn.data.pipeline import train_batches
from fcn.data.records import open_dataset

EPOCHS = 2
SHUFFLED_BATCHES = 10
COLUMNS = ["data", "label"]

Batch = Tuple[np.ndarray, ...]


def fcn(
    data_file: str, workers: int, batch: int, rank: int, world: int, photometric: bool = False
) -> Iterator[Batch]:
    dataset = open_dataset(data_file, verify=False)
    steps = EPOCHS * (dataset.samples // (batch * world))
    config = Config(data_workers=workers, photometric=photometric)
    share = {"global_batch": batch * world, "rank": rank, "world": world}
    return train_batches(dataset, config, start_step=0, total_steps=steps, **share)


def model_zoo(data_file: str, workers: int, batch: int, rank: int, world: int) -> Iterator[Batch]:
    cv2.setNumThreads(0)
    ds.config.set_seed(1)
    files = list(open_dataset(data_file, verify=False).files)
    rows = ds.MindDataset(
        files, COLUMNS, num_parallel_workers=1, shuffle=True, num_shards=world, shard_id=rank
    )
    crops = rows.map(_Preprocess(Config()), COLUMNS, COLUMNS, num_parallel_workers=workers)
    batches = crops.shuffle(SHUFFLED_BATCHES * batch).batch(batch, drop_remainder=True)
    iterator = batches.create_tuple_iterator(num_epochs=EPOCHS, output_numpy=True)
    for _ in range(EPOCHS):
        yield from iterator


class _Preprocess:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._mean, self._std = np.float32(config.image_mean), np.float32(config.image_std)
        self._random = np.random.default_rng(1)

    def __call__(self, data: np.ndarray, label: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        config, random, crop = self._config, self._random, self._config.crop_size
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        ids = cv2.imdecode(np.frombuffer(label, np.uint8), cv2.IMREAD_GRAYSCALE)

        scale = random.uniform(config.min_scale, config.max_scale)
        height, width = (int(scale * side) for side in ids.shape)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
        image = (image - self._mean) / self._std

        below, beside = max(crop - height, 0), max(crop - width, 0)
        if below or beside:
            edges = (0, below, 0, beside, cv2.BORDER_CONSTANT)
            image = cv2.copyMakeBorder(image, *edges, value=0)
            ids = cv2.copyMakeBorder(ids, *edges, value=config.ignore_label)
        top, left = (random.integers(0, side - crop, endpoint=True) for side in ids.shape)
        image, ids = (array[top : top + crop, left : left + crop] for array in (image, ids))
        if random.random() > 0.5:
            image, ids = image[:, ::-1], ids[:, ::-1]
        return image.transpose(2, 0, 1).copy(), ids.copy()


READERS = {"fcn": fcn, "fcn photometric": partial(fcn, photometric=True), "model zoo": model_zoo}


def main() -> None:
    name, data_file, *numbers = sys.argv[1:]
    workers, batch, rank, world = map(int, numbers)
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu, samples = time.perf_counter(), time.process_time(), 0
    for arrays in READERS[name](data_file, workers, batch, rank, world):
        samples += len(arrays[0])
    answer = {
        "samples": samples,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": _peak_mb(),
    }
    print(json.dumps(answer), flush=True)


def _peak_mb() -> float:
    """Of this program alone: what getrusage says begins with the peak of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
