from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_samples import build, write_samples

from fcn.data import augment
from fcn.data.listing import read_image, read_mask
from fcn.data.order import global_order, positions
from fcn.data.pipeline import train_batches
from fcn.data.records import open_dataset
from fcn.errors import DataError

SAMPLES, GLOBAL_BATCH, STEPS = 22, 8, 7  # two steps an epoch, so 7 steps end in the fourth epoch


def config(**changes):
    values = {
        "seed": 7,
        "crop_size": 48,
        "min_scale": 0.5,
        "max_scale": 2.0,
        "image_mean": (103.53, 116.28, 123.675),
        "ignore_label": 255,
        "num_classes": 21,
        "data_workers": 2,
        "photometric": False,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    build(folder, write_samples(folder, SAMPLES), shards=3, shuffle=True)
    return folder


@pytest.fixture(scope="module")
def dataset(root):
    return open_dataset(root / "set.mindrecord")


def read(dataset, start=0, total=STEPS, rank=0, world=1, **changes):
    batches = train_batches(
        dataset,
        config(**changes),
        start_step=start,
        total_steps=total,
        global_batch=GLOBAL_BATCH,
        rank=rank,
        world=world,
    )
    return list(batches)


def digest(batches) -> str:
    content = hashlib.sha256()
    for batch in batches:
        for array in batch:
            content.update(array.tobytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def whole(dataset):
    return read(dataset)


def test_shapes_and_types(whole):
    assert len(whole) == STEPS
    for images, labels, ids in whole:
        assert (images.shape, images.dtype) == ((GLOBAL_BATCH, 48, 48, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((GLOBAL_BATCH, 48, 48), np.uint8)
        assert (ids.shape, ids.dtype) == ((GLOBAL_BATCH,), np.int64)


def test_a_batch_is_the_drawn_samples_with_the_drawn_changes(root, whole):
    steps_per_epoch = SAMPLES // GLOBAL_BATCH
    for step, (images, labels, ids) in enumerate(whole):
        epoch, batch = divmod(step, steps_per_epoch)
        order = global_order(SAMPLES, seed=7, epoch=epoch)
        assert np.array_equal(ids, order[positions(batch, GLOBAL_BATCH, rank=0, world=1)])
        for place, sample_id in enumerate(ids):
            image = read_image(root / f"img/s{sample_id:03d}.jpg")
            mask = read_mask(root / f"cls_png/s{sample_id:03d}.png")
            choice = augment.draw(7, epoch, batch * GLOBAL_BATCH + place, 0.5, 2.0)
            expected = np.empty_like(images[place]), np.empty_like(labels[place])
            augment.apply(image, mask, choice, config().image_mean, 255, *expected)
            assert np.array_equal(images[place], expected[0])
            assert np.array_equal(labels[place], expected[1])


def test_colours_change_the_images_alone(dataset, whole):
    coloured = read(dataset, photometric=True)
    for (images, labels, ids), (plain_images, plain_labels, plain_ids) in zip(coloured, whole):
        assert np.array_equal(labels, plain_labels) and np.array_equal(ids, plain_ids)
        assert not np.array_equal(images, plain_images)
    assert digest(read(dataset, photometric=True, data_workers=1)) == digest(coloured)


def test_an_epoch_repeats_no_sample_and_epochs_differ(whole):
    epochs = [np.concatenate([ids for _, _, ids in whole[k : k + 2]]) for k in (0, 2, 4)]
    assert all(len(set(ids)) == 16 for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) == 3


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_together_read_what_one_rank_reads(dataset, whole, world):
    shares = [read(dataset, rank=rank, world=world) for rank in range(world)]
    for step in range(STEPS):
        for field in range(3):
            together = np.concatenate([share[step][field] for share in shares])
            assert np.array_equal(together, whole[step][field])


@pytest.mark.parametrize("workers", [1, 5])
def test_threads_do_not_change_a_byte(dataset, whole, workers):
    assert digest(read(dataset, data_workers=workers)) == digest(whole)


@pytest.mark.parametrize("start", [1, 2, 5, 7])
def test_a_start_in_the_middle_goes_on_as_if_it_had_run(dataset, whole, start):
    assert digest(read(dataset, start=start)) == digest(whole[start:])


def test_shards_and_the_order_of_rows_do_not_matter(root, whole):
    plain = build(root, root / "list.txt", "plain.mindrecord")
    assert digest(read(plain)) == digest(whole)


def test_another_process_reads_the_same_bytes(root, whole):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:2]; import test_data_pipeline as t; from pathlib import Path; "
    )
    code += "print(t.digest(t.read(t.open_dataset(Path(sys.argv[2])))))"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(root / "set.mindrecord")]
    environ = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.split()[-1] == digest(whole)


def test_the_seed_matters(dataset, whole):
    assert digest(read(dataset, seed=8)) != digest(whole)


def test_a_label_without_a_class_names_the_sample(dataset):
    blind = replace(dataset, class_pixels=())  # a manifest that does not know
    with pytest.raises(DataError, match=r"sample \d+ \(s0\d\d\): label [3-7] \(.* outside 0\.\.2"):
        read(blind, num_classes=3)
    with pytest.raises(DataError, match="has pixels of class 3, 4, 5, 6, 7, but num_classes is 3"):
        read(dataset, num_classes=3)


def test_rows_that_are_not_the_manifests_are_noticed(dataset):
    with pytest.raises(DataError, match=r"sample \d+ expected, \d+ read"):
        read(replace(dataset, rows=np.roll(dataset.rows, 1)))


def test_a_file_that_goes_away_is_named(dataset, tmp_path):
    with pytest.raises(DataError, match="MindRecord cannot read it"):
        read(replace(dataset, files=(str(tmp_path / "gone.mindrecord"),)))


def test_too_few_samples_and_uneven_batches_are_refused(dataset):
    def ask(global_batch, world):
        return train_batches(
            dataset, config(), start_step=0, total_steps=1, global_batch=global_batch, rank=0, world=world
        )

    with pytest.raises(DataError, match="22 samples do not fill one global batch of 23"):
        ask(23, 1)
    with pytest.raises(ValueError, match="8 does not divide over 3 ranks"):
        ask(8, 3)


def test_close_ends_the_threads_in_mid_run(dataset):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith(("read", "augment"))]

    batches = train_batches(
        dataset, config(), start_step=0, total_steps=10**6, global_batch=8, rank=0, world=1
    )
    next(batches)
    assert threads()
    batches.close()
    assert threads() == []
    with pytest.raises(StopIteration):
        next(batches)
