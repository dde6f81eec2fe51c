"""How fast this cluster trains this configuration: `fcn-launch bench`. Nothing is saved but the figures."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import closing
from itertools import repeat
from typing import Any, Dict, Generator, List, Tuple

import numpy as np

from fcn.data.pipeline import train_batches
from fcn.data.records import open_dataset
from fcn.files import write_atomic
from fcn.flops import training_flop
from fcn.job import Job
from fcn.network import build_network
from fcn.step import Steps

WARM_UP_STEPS = 2  # after the first, which compiles


def work(job: Job) -> int:
    """Time training steps; rank 0 writes `bench.json`. Returns the exit code."""
    config, status, world = job.config, job.status, job.world
    status.phase("data")
    global_batch = config.batch_over(world.size)
    steps = Steps(build_network(config, job.device), config, job.device, world)
    total = 1 + WARM_UP_STEPS + int(job.options["steps"])
    status.phase("compile")
    times: List[Tuple[float, float]] = []
    with closing(_batches(job, global_batch, total)) as batches:
        for number in range(1, total + 1):
            begin = time.perf_counter()
            status.enter("data", number)
            images, labels = next(batches)
            fed = time.perf_counter()
            status.enter("step", number)
            steps.run(images, labels, rate=0.0)  # the arithmetic is the same, and nothing diverges
            times.append((fed - begin, time.perf_counter() - begin))
            status.send("bench", done=number, total=total)
            if number == 1:
                status.phase("train")
    if world.rank == 0:
        figures = _figures(job, times[1 + WARM_UP_STEPS :], global_batch)
        write_atomic(job.run_dir / "bench.json", json.dumps(figures, indent=1) + "\n")
    return 0


def _batches(job: Job, global_batch: int, steps: int) -> Generator[Tuple[np.ndarray, np.ndarray], None, None]:
    """This rank's images and labels: of data_file, or the same drawn ones again and again."""
    config, world = job.config, job.world
    if not config.data_file:
        rng = np.random.default_rng(config.seed)
        shape = (global_batch // world.size, config.crop_size, config.crop_size)
        images = rng.integers(0, 256, (*shape, 3), np.uint8)
        yield from repeat((images, rng.integers(0, config.num_classes, shape, np.uint8)), steps)
        return
    batches = train_batches(
        open_dataset(config.data_file, verify=False),
        config,
        start_step=0,
        total_steps=steps,
        global_batch=global_batch,
        rank=world.rank,
        world=world.size,
    )
    with closing(batches):
        for images, labels, _ in batches:
            yield images, labels


def _figures(job: Job, times: List[Tuple[float, float]], global_batch: int) -> Dict[str, Any]:
    """Medians over the steps; flop are those of the convolutions, forwards and backwards."""
    step_s = statistics.median(total for _, total in times)
    flop = training_flop(job.config.architecture, job.config.crop_size)
    images_per_s = global_batch / step_s
    waits = sum(waited for waited, _ in times) / sum(total for _, total in times)
    return {
        "steps": len(times),
        "crop_size": job.config.crop_size,
        "global_batch": global_batch,
        "world_size": job.world.size,
        "step_s": step_s,
        "step_s_min": min(total for _, total in times),
        "images_per_s": images_per_s,
        "flop_per_image": flop,
        "tflops_per_device": images_per_s * flop / job.world.size / 1e12,
        "data_wait": waits if job.config.data_file else None,
    }
