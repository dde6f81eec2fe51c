"""Training samples read and augmented per second, beside the order of work of the model zoo's FCN-8s.

Crop 512, scale 0.5 to 2, batches of 32, each measurement in a process of its own, the readers by turns.
FCN_BENCH_VOC=VOCdevkit/VOC2012 takes real images; without it, pictures of that size and that many bytes
are drawn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np

from benchmarks.report import report
from fcn.data.build import BuildOptions, build_dataset
from fcn.pictures import save_mask

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, BATCH, REPEATS = 320, 32, 3

# What one Ascend 910 trains at the 564.65 ms that the original reports for 32 images, and a host with eight
DEVICE_PER_S, HOST_PER_S = 57, 453


def main() -> None:
    """Samples per second, CPU time, peak memory, and what that says of a host's cores."""
    cores = len(os.sched_getaffinity(0))
    cases = [  # reader, data, workers a process, processes
        ("model zoo", "compressed", 1, 1),
        ("fcn", "compressed", 1, 1),
        ("fcn", "compressed", min(2, cores), 1),
        ("fcn", "compressed", 1, cores),
        ("fcn photometric", "compressed", 1, 1),
        ("fcn", "decoded", 1, 1),
        ("fcn", "decoded", 1, cores),
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ.get("FCN_BENCH_VOC") or _draw(Path(folder)))
        data = {name: _build(root, Path(folder), name == "decoded") for name in ("compressed", "decoded")}
        found: Dict[Tuple, List[Dict[str, float]]] = {case: [] for case in cases}
        for _ in range(REPEATS):
            for case in cases:
                reader, kind, workers, processes = case
                found[case].append(_measure(reader, data[kind], workers, processes))
    columns = ["per_s", "cpu_ms", "peak_mb"]
    figures = {
        case: [statistics.median(run[name] for run in runs) for name in columns]
        for case, runs in found.items()
    }
    rows = [
        [*case, *values, *(values[1] / 1000 * rate for rate in (DEVICE_PER_S, HOST_PER_S))]
        for case, values in figures.items()
    ]
    zoo, ours = (figures[case] for case in cases[:2])
    report(
        "pipeline",
        ["reader", "data", "workers", "processes", *columns, "cores_a_device", "cores_a_host"],
        rows,
        images=root.name if "FCN_BENCH_VOC" in os.environ else "drawn",
        samples_to_model_zoo=ours[0] / zoo[0],
        cpu_to_model_zoo=ours[1] / zoo[1],
        peak_to_model_zoo=ours[2] / zoo[2],
    )


def _measure(reader: str, data_file: Path, workers: int, processes: int) -> Dict[str, float]:
    """All processes together: samples per second; CPU ms a sample; the largest peak."""
    program = [sys.executable, "-m", "benchmarks.pipeline_readers"]
    command = [*program, reader, str(data_file), str(workers), str(BATCH)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
    started = [
        subprocess.Popen(
            [*command, str(rank), str(processes)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    runs = [json.loads(process.communicate()[0]) for process in started]
    samples = sum(run["samples"] for run in runs)
    return {
        "per_s": samples / max(run["wall_s"] for run in runs),
        "cpu_ms": 1000 * sum(run["cpu_s"] for run in runs) / samples,
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def _build(root: Path, folder: Path, decoded: bool) -> Path:
    names = (root / "ImageSets/Segmentation/train.txt").read_text().split()[:SAMPLES]
    listed = folder / "names.txt"
    listed.write_text("\n".join(names))
    out = folder / f"{'decoded' if decoded else 'compressed'}.mindrecord"
    build_dataset(BuildOptions(root, listed, out, decoded=decoded))
    return out


def _draw(root: Path) -> Path:
    """A set in the layout of VOC: images of 500x375 pixels and 0.1 MB, masks of objects with borders."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(1)
    names = [f"drawn_{index:03d}" for index in range(SAMPLES)]
    for name in names:
        image, ids = _picture(random), np.zeros((375, 500), np.uint8)
        for label in random.integers(1, 21, 3).tolist():
            centre, axes = random.integers(0, (500, 375)).tolist(), random.integers(30, 130, 2).tolist()
            outline = (centre, axes, float(random.uniform(0, 180)), 0, 360)
            cv2.ellipse(ids, *outline, label, cv2.FILLED)
            cv2.ellipse(ids, *outline, 255, 5)
        cv2.imwrite(str(root / f"JPEGImages/{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        save_mask(root / f"SegmentationClass/{name}.png", ids)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    return root


def _picture(random: np.random.Generator) -> np.ndarray:
    image = np.full((375, 500, 3), 118.0, np.float32)
    for cells in (3, 6, 12, 25, 50, 100, 200, 400):
        noise = random.normal(0, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        # Grey and coloured parts; octaves are of nearly one strength, as in photographs
        noise = noise.mean(axis=2, keepdims=True) * 1.5 + noise * 0.3
        image += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC) * 33 / cells**0.1
    return image.clip(0, 255).astype(np.uint8)
