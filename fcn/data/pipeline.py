"""The training reader: batches that are a function of (seed, global step, global batch, rank, world size).

MindDataset reads one epoch's rows after another in the order that order.py draws; threads decode and augment
them (OpenCV works outside the interpreter's lock), each into its own place of a batch, so that neither their
number nor their timing changes a byte. The next batch is made while a step works on the one before. Memory is
a few batches, and the row numbers of one epoch.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Dict, Generator, Iterator, List, Optional, Tuple

import cv2
import numpy as np

from fcn.data import augment, order
from fcn.data.listing import READ_BGR
from fcn.data.records import DataSet, check_labels, read_rows, reason
from fcn.data.samples import unknown_labels
from fcn.errors import DataError

if TYPE_CHECKING:
    from fcn.config import Config

Batch = Tuple[np.ndarray, np.ndarray, np.ndarray]
_Begun = Tuple[Batch, List[Future[None]]]  # the parts of a batch that workers still fill


@dataclass(frozen=True)
class _Row:
    """A sample as stored, and its place in the run."""

    epoch: int
    position: int
    id: int
    file_name: str
    label: bytes
    data: bytes


@dataclass(frozen=True)
class _Share:
    """Which part of every global batch is this rank's."""

    global_batch: int
    rank: int
    world: int


def train_batches(
    dataset: DataSet,
    config: Config,
    *,
    start_step: int,
    total_steps: int,
    global_batch: int,
    rank: int,
    world: int,
) -> TrainBatches:
    """This rank's batches for the global steps start_step..total_steps-1, counted from 0 over all epochs.

    Step s is batch s % steps_per_epoch of epoch s // steps_per_epoch. Reading starts at once, ahead of the
    first `next`.

    Returns:
        An iterator of images uint8 (b, crop, crop, 3) BGR, labels uint8 (b, crop, crop) and sample ids int64
        (b,), b = global_batch / world; `close` ends its threads early.

    Raises:
        DataError: labels that the configuration has no meaning for, or fewer samples than a global batch;
            while iterating, a sample that is not what the manifest says, by name.
        ValueError: where global_batch does not divide over the ranks.
    """
    check_labels(dataset, config.num_classes, config.ignore_label)
    if order.steps_per_epoch(dataset.samples, global_batch) == 0:
        raise DataError(
            f"{dataset.path}: its {dataset.samples} samples do not fill one global batch of {global_batch}; "
            "lower batch_size, use fewer devices or build a larger set"
        )
    order.positions(0, global_batch, rank, world)
    return TrainBatches(dataset, config, range(start_step, total_steps), _Share(global_batch, rank, world))


class TrainBatches(Iterator[Batch]):
    """Made by `train_batches`."""

    def __init__(self, dataset: DataSet, config: Config, steps: range, share: _Share) -> None:
        # For the whole process: resizing on threads of OpenCV's own would fight with ours for the cores.
        cv2.setNumThreads(1)
        self._path, self._config = dataset.path, config
        self._batch = share.global_batch // share.world
        self._left = len(steps)
        self._rows = _rows(dataset, config.seed, steps, share)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")  # one: rows come in order
        self._workers = ThreadPoolExecutor(config.data_workers, thread_name_prefix="augment")
        self._coming = self._begin_another()

    def __next__(self) -> Batch:
        if self._coming is None:
            self.close()
            raise StopIteration
        try:
            batch, parts = self._coming.result()
            self._coming = self._begin_another()
            for part in parts:
                part.result()
        except BaseException:
            self.close()
            raise
        return batch

    def close(self) -> None:
        """End the threads; there are no more batches."""
        self._coming = None
        for pool in (self._reader, self._workers):
            pool.shutdown(wait=True, cancel_futures=True)
        self._rows.close()

    def _begin_another(self) -> Optional[Future[_Begun]]:
        if self._left == 0:
            return None
        self._left -= 1
        return self._reader.submit(self._begin)

    def _begin(self) -> _Begun:
        """Read the next batch's rows and hand them to the workers."""
        rows = list(islice(self._rows, self._batch))
        side = self._config.crop_size
        images = np.empty((len(rows), side, side, 3), np.uint8)
        labels = np.empty((len(rows), side, side), np.uint8)
        ids = np.array([row.id for row in rows], np.int64)
        parts = [
            self._workers.submit(self._fill, row, images[place], labels[place])
            for place, row in enumerate(rows)
        ]
        return (images, labels, ids), parts

    def _fill(self, row: _Row, image_out: np.ndarray, label_out: np.ndarray) -> None:
        config = self._config
        name = f"{self._path}: sample {row.id} ({row.file_name})"
        image = cv2.imdecode(np.frombuffer(row.data, np.uint8), READ_BGR)
        label = cv2.imdecode(np.frombuffer(row.label, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or label is None or label.shape != image.shape[:2]:
            raise DataError(
                f"{name}: image or mask is damaged, or they differ in size; build the data set again"
            )
        unknown = label >= config.num_classes
        unknown &= label != config.ignore_label
        if unknown.any():
            counts = np.bincount(label.ravel(), minlength=256)
            problem = unknown_labels(counts, config.num_classes, config.ignore_label)
            raise DataError(f"{name}: {problem}; correct the mask or num_classes, and build the set again")
        choice = augment.draw(
            config.seed, row.epoch, row.position, config.min_scale, config.max_scale, config.photometric
        )
        augment.apply(image, label, choice, config.image_mean, config.ignore_label, image_out, label_out)


def _rows(dataset: DataSet, seed: int, steps: range, share: _Share) -> Generator[_Row, None, None]:
    """This rank's rows for the given global steps, in order."""
    steps_per_epoch = order.steps_per_epoch(dataset.samples, share.global_batch)
    step = steps.start
    while step < steps.stop:
        epoch, first = divmod(step, steps_per_epoch)
        last = min(steps_per_epoch, first + steps.stop - step)
        taken = [
            position
            for batch in range(first, last)
            for position in order.positions(batch, share.global_batch, share.rank, share.world)
        ]
        ids = order.global_order(dataset.samples, seed, epoch)[taken]
        stored = _stored(dataset, ids)
        for position, expected in zip(taken, ids.tolist()):
            row = next(stored, {"id": None})
            if row["id"] != expected:
                raise DataError(
                    f"{dataset.path}: sample {expected} expected, {row['id']} read: the files changed during "
                    f"the run or do not belong together; build the data set again:\n  {dataset.rebuild}"
                )
            yield _Row(epoch, position, **row)
        step += last - first


def _stored(dataset: DataSet, ids: np.ndarray) -> Iterator[Dict[str, Any]]:
    """The rows of these samples, in order; each call starts a MindDataset, which takes about 10 ms."""
    try:
        yield from read_rows(dataset.files, dataset.rows[ids].tolist())
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{dataset.path}: MindRecord cannot read it: {reason(error)}") from error
