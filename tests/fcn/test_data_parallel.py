"""One rank and two, with the same global batch, are the same training."""

import os
import threading
import time
from datetime import timedelta
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from fcn.data.order import global_order, positions
from fcn.pictures import save_mask

pytest.importorskip("mindspore")

from data_samples import build, write_samples  # noqa: E402
from mindspore.mint.distributed import TCPStore  # noqa: E402
from ranks import END_S, free_port, train  # noqa: E402

from fcn import distributed  # noqa: E402

STEPS = 20
SETTINGS = ["num_classes=8", "crop_size=64", "global_batch=4", "freeze_bn=true", "base_lr=0.01", "seed=3"]


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """20 images that a crop covers to different degrees, so that shards differ in ignored pixels."""
    folder = tmp_path_factory.mktemp("data")
    return build(folder, write_samples(folder, 20)).path


@pytest.fixture
def config(data_file, small_config):
    def make(*overrides):
        return small_config(*SETTINGS, f"data_file={data_file}", "train_epochs=4", *overrides).model_dump()

    return make


def trained(arrays):
    """Weights, momentum and average: all but the batch-norm moving statistics, which are each rank's own."""
    return {n: value for n, value in arrays.items() if ".moving_" not in n and n not in ("losses", "scores")}


def distance(one, other):
    joined = [np.concatenate([a[name].ravel() for name in sorted(one)]) for a in (one, other)]
    return np.linalg.norm(joined[0] - joined[1]) / np.linalg.norm(joined[0])


def test_two_ranks_train_as_one(tmp_path, config):
    (alone,) = train(tmp_path / "one", config(), size=1)
    first, second = train(tmp_path / "two", config(), size=2)
    assert len(alone["losses"]) == STEPS
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert len(set(alone["losses"])) > STEPS / 2  # the steps move the weights
    for name, value in trained(first).items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert distance(trained(alone), trained(first)) < 1e-4


def test_the_first_gradients_agree(tmp_path, config):
    """After one step without weight decay the momentum is the gradient."""
    one_step = config("global_batch=20", "train_epochs=1", "weight_decay=0")
    (alone,) = train(tmp_path / "one", one_step, size=1)
    first, _ = train(tmp_path / "two", one_step, size=2)
    gradients = [{n: v for n, v in arrays.items() if n.startswith("moments.")} for arrays in (alone, first)]
    assert len(gradients[0]) > 50
    assert distance(*gradients) < 1e-4


def test_a_repeated_run_is_the_same_to_the_last_bit(tmp_path, config):
    settings = config("freeze_bn=false", "train_epochs=1")
    runs = [train(tmp_path / name, settings, size=2) for name in ("a", "b")]
    for one, other in zip(*runs):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_scheduler_start_trains_the_same(tmp_path, config):
    settings = config("train_epochs=1")
    store = train(tmp_path / "store", settings, size=2)
    scheduler = train(tmp_path / "scheduler", settings, size=2, rendezvous="scheduler")
    for one, other in zip(store, scheduler):
        np.testing.assert_array_equal(one["losses"], other["losses"])


def test_two_ranks_in_slices_score_on_the_way_as_one_rank_does(tmp_path, config, data_file):
    """Slices, average and evaluation; each rank reads its part of the validation list, rank 0 reports."""
    folder = data_file.parent
    lists = [f"data_root={folder}", f"data_lst={folder}/list.txt", "eval_epochs=2", "ema_decay=0.5"]
    (alone,) = train(tmp_path / "one", config(*lists), size=1)
    first, second = train(tmp_path / "two", config(*lists, "accumulate_steps=2"), size=2)
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert (alone["scores"].shape, first["scores"].shape, second["scores"].shape) == ((2, 2), (2, 2), (0,))
    np.testing.assert_allclose(first["scores"], alone["scores"], rtol=1e-3)
    assert distance(trained(alone), trained(first)) < 1e-4
    for name, value in trained(first).items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_mixed_precision_trains_nearly_as_float32_does(tmp_path, config):
    """With batch norm in float32 and a dynamic scale, as the recipe `best` has it."""
    settings = ["freeze_bn=false", "train_epochs=1"]
    full, _ = train(tmp_path / "full", config(*settings), size=2)
    mixed = config(*settings, "amp_level=O2", "dynamic_loss_scale=true")
    first, second = train(tmp_path / "mixed", mixed, size=2)
    np.testing.assert_allclose(first["losses"], full["losses"], rtol=0.02)
    assert (first["losses"] != full["losses"]).any()
    for name, value in trained(first).items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_a_loss_that_is_not_finite_on_one_rank_stops_both_and_is_not_saved(tmp_path, config):
    """A weight so large that the sum of one sample's pixels overflows: infinite, and over all ranks zero."""
    samples, seed = 8, 3
    written = write_samples(tmp_path, samples)
    odd = global_order(samples, seed, epoch=0)[positions(1, 4, rank=1, world=2)[0]]
    for index, mask in enumerate(sorted((tmp_path / "cls_png").iterdir())):
        save_mask(mask, np.full((40 + 3 * index, 70 - 2 * index), 7 if index == odd else 1, np.uint8))
    settings = config(
        f"data_file={build(tmp_path, written).path}", f"class_weights={[1.0] * 7 + [1e38]}", f"seed={seed}"
    )
    with pytest.raises(AssertionError, match="the loss is nan at epoch 1 step 2, from rank 1; lower"):
        train(tmp_path / "out", settings, size=2)
    assert f"from rank 1; its samples: {odd}" in (tmp_path / "out" / "rank-1.log").read_text()
    assert not list(tmp_path.glob("out/checkpoints/*"))


def test_who_is_done_waits_for_rank_0_however_long_its_last_save_takes(monkeypatch):
    port = free_port()
    store_0, store_1 = (
        TCPStore("127.0.0.1", port, 2, is_master, timedelta(seconds=END_S), wait_for_workers=False)
        for is_master in (True, False)
    )
    done = []
    monkeypatch.setattr(os, "_exit", done.append)
    hours = count(step=3600)
    monkeypatch.setattr(distributed, "time", SimpleNamespace(monotonic=lambda: next(hours), sleep=time.sleep))

    def save_for_long():
        time.sleep(0.5)
        done.append("saved")
        store_0.add("leave", 1)

    saving = threading.Thread(target=save_for_long)
    saving.start()
    distributed.World(1, 2, _store=store_1).leave(75)
    saving.join()
    assert done == ["saved", 75]
