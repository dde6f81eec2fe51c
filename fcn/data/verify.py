"""Read every record of a data set and compare it with the manifest, to name what is bad.

MindRecord reads most damage without a word, and on some it aborts the process that reads: the files are read
in a child process, and a new one goes on behind the file that ended it.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import cv2
import numpy as np

from fcn.data import records
from fcn.data.listing import READ_BGR
from fcn.data.samples import CHUNK_SAMPLES, THREADS, Progress, unknown_labels


@dataclass(frozen=True)
class Bad:
    """A file, or a sample in it, that is not as it was built."""

    file: str
    problem: str
    id: Optional[int] = None
    name: Optional[str] = None


@dataclass(frozen=True)
class _Sample:
    id: int
    name: str
    digest: str


@dataclass(frozen=True)
class _Shard:
    """A file and the samples that belong in it, in order."""

    path: Path
    samples: Tuple[_Sample, ...]
    num_classes: int
    ignore_label: int


def verify_dataset(data_file: Union[str, Path]) -> Dict[str, Any]:
    """Check the checksum of every file, and the number, checksum, decoding and labels of every sample.

    Returns:
        What the command prints; `bad` is a list of `Bad` as dictionaries, empty where all is well.

    Raises:
        DataError: where the manifest itself is missing, damaged or without the checksums of samples.
    """
    dataset, manifest = records.read_manifest(data_file)
    faults = records.file_faults(dataset, manifest, verify=True)
    bad = [Bad(name, fault) for name, fault in faults.items()]
    bad += _read_all([shard for shard in _shards(dataset, manifest) if shard.path.is_file()])
    return {
        "data_file": str(dataset.path),
        "samples": dataset.samples,
        "shards": len(dataset.files),
        "fingerprint": dataset.fingerprint,
        "bad": [asdict(entry) for entry in bad],
        "rebuild": dataset.rebuild,
    }


def _shards(dataset: records.DataSet, manifest: Dict[str, Any]) -> List[_Shard]:
    ids = iter(manifest["row_ids"])
    shards = []
    for file, count in zip(dataset.files, manifest["shard_samples"]):
        samples = (_Sample(i, manifest["names"][i], manifest["digests"][i]) for i in islice(ids, count))
        shards.append(_Shard(Path(file), tuple(samples), dataset.num_classes, dataset.ignore_label))
    return shards


def _read_all(shards: List[_Shard]) -> List[Bad]:
    context = get_context("spawn")  # forking would copy locks that threads hold
    bad: List[Bad] = []
    done = 0
    while done < len(shards):
        receiving, sending = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(shards[done:], sending), daemon=True)
        child.start()
        sending.close()
        try:
            while done < len(shards):
                bad += receiving.recv()
                done += 1
        except EOFError:
            child.join()
            how = f"MindRecord ends the process that reads it (exit code {child.exitcode})"
            bad.append(
                Bad(shards[done].path.name, f"{how}: its {len(shards[done].samples)} samples are lost")
            )
            done += 1
        child.join()
    return bad


def _child(shards: List[_Shard], sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer, which ends this process
    os.environ.setdefault("GLOG_v", "4")  # MindSpore's own report of damage is pages long
    for shard in shards:
        sending.send(_bad_of(shard))


def _bad_of(shard: _Shard) -> List[Bad]:
    bad: List[Bad] = []
    count = 0
    progress = Progress(f"{shard.path.name}: verified", len(shard.samples))
    rows = records.read_rows([str(shard.path)])
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            while chunk := list(islice(rows, CHUNK_SAMPLES)):
                samples = shard.samples[count : count + len(chunk)]
                for sample, problem in zip(samples, pool.map(partial(_problem, shard), samples, chunk)):
                    if problem:
                        bad.append(Bad(shard.path.name, problem, sample.id, sample.name))
                count += len(chunk)
                progress.add(len(chunk))
    except RuntimeError as error:
        left = f"the last {len(shard.samples) - count} of its {len(shard.samples)} samples"
        return [*bad, Bad(shard.path.name, f"MindRecord cannot read {left}: {records.reason(error)}")]
    if count != len(shard.samples):
        bad.append(Bad(shard.path.name, f"holds {count} samples, {len(shard.samples)} were written"))
    return bad


def _problem(shard: _Shard, sample: _Sample, row: Dict[str, Any]) -> str:
    """What is wrong with a row, if anything."""
    if records.digest(**row) != sample.digest:
        return "is not what was written (its checksum differs)"
    image = cv2.imdecode(np.frombuffer(row["data"], np.uint8), READ_BGR)
    mask = cv2.imdecode(np.frombuffer(row["label"], np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or mask is None:
        return f"its {'image' if image is None else 'mask'} cannot be decoded"
    if mask.shape != image.shape[:2]:
        return (
            f"its image is {image.shape[1]}x{image.shape[0]} pixels, its mask {mask.shape[1]}x{mask.shape[0]}"
        )
    return unknown_labels(np.bincount(mask.ravel(), minlength=256), shard.num_classes, shard.ignore_label)
