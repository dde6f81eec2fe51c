"""One training step after the other, against what its parts should do."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore")

import mindspore as ms  # noqa: E402
from data_samples import write_samples  # noqa: E402
from trainings import HALF, Snapshots, run  # noqa: E402

from fcn import checkpoint  # noqa: E402
from fcn.loss_scale import LossScale  # noqa: E402
from fcn.schedule import learning_rate  # noqa: E402


def test_each_epochs_steps_go_by_its_learning_rate(make_trainer):
    """w' = w - lr * m', with momentum m' = 0.9 m + g; an epoch is one step here."""
    states, trainer = run(make_trainer)
    for epoch, (before, after) in enumerate(zip(states, states[1:])):
        lr = np.float32(learning_rate(trainer.config, epoch, 1, 4))
        for name in ("conv1.0.weight", "conv6.1.gamma", "upscore8.weight"):
            moved = before[name] - after[name]
            assert np.abs(moved).max() > 0
            np.testing.assert_allclose(moved, lr * after[f"moments.{name}"], rtol=1e-3, atol=1e-7)


def test_momentum_and_weight_decay(make_trainer):
    """Frozen in place by a tiny learning rate, gradients are the same in every step."""
    sets = ["base_lr=1e-12", "freeze_bn=true", "min_scale=1", "max_scale=1", "crop_size=128"]
    plain, _ = run(make_trainer, *sets, "weight_decay=0")
    decayed, _ = run(make_trainer, *sets, "weight_decay=0.5")
    for name, decay in (("conv3.0.weight", 0.5), ("conv3.1.gamma", 0.0)):
        gradient = plain[1][f"moments.{name}"]
        np.testing.assert_allclose(
            decayed[1][f"moments.{name}"], gradient + decay * plain[0][name], rtol=1e-3, atol=1e-6
        )


def test_half_precision_with_loss_scale_trains_nearly_the_same(make_trainer):
    """The path of Ascend; the CPU has the kernels too."""
    full_states, full = run(make_trainer)
    states, half = run(make_trainer, platform=HALF)
    assert list(states[0]) == list(full_states[0])
    assert {value.dtype for value in states[-1].values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(half.status.losses, full.status.losses, rtol=0.02)
    assert half.status.losses != full.status.losses


def test_the_seed_decides_the_weights(make_trainer):
    states = [run(make_trainer, f"seed={seed}")[0][0]["conv1.0.weight"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(make_trainer, tmp_path):
    with pytest.raises(
        FloatingPointError, match=r"epoch [2-9] step 1, from rank 0; its samples: .*; lower base_lr"
    ):
        run(make_trainer, "base_lr=1e30", "train_epochs=20", "save_steps=1")
    found, damaged = checkpoint.newest(tmp_path / "run-1" / "checkpoints")
    assert found is not None and not damaged


def test_a_request_to_leave_saves_and_ends_with_75(make_trainer):
    trainer = make_trainer("train_epochs=1000")
    trainer.stop.asked = True
    assert trainer.run() == 75
    (manifest,) = trainer.folder.glob("*.json")
    assert json.loads(manifest.read_text())["step"] == 1


@pytest.fixture
def scored(make_trainer, tmp_path):
    """Makes trainers of one run that evaluate after each epoch of one step and keep every second for good.

    Two others stay, though only one is asked for.
    """
    folder = tmp_path / "val"
    sets = (f"data_root={folder}", f"data_lst={write_samples(folder, 3)}", "eval_epochs=1", "train_epochs=3")
    sets += ("save_steps=1", "keep_checkpoint_max=1", "keep_every_epochs=2")
    return lambda: make_trainer(*sets, status=Snapshots(), folder="run")


def scores(trainer):
    return {one["step"]: one["mean_iou"] for one in trainer.status.events if one["event"] == "metric"}


def test_what_was_not_scored_before_leaving_is_scored_when_the_run_goes_on(scored):
    trainer = scored()
    trainer.status.trainer = trainer
    trainer.stop.asked = True
    assert trainer.run() == 75
    assert scores(trainer) == {}
    trainer = scored()
    trainer.status.trainer = trainer
    assert trainer.run() == 0
    assert list(scores(trainer)) == [1, 2, 3]
    (best,) = checkpoint.listed(trainer.folder / "best")
    assert checkpoint.verify(best).manifest["best_mean_iou"] == max(scores(trainer).values())
    assert [path.stem for path in checkpoint.listed(trainer.folder)] == [f"FCN8s-{n}_1" for n in (3, 2, 1)]


EVERYTHING = ("ema_decay=0.9", "accumulate_steps=2", "amp_level=O2", "dynamic_loss_scale=true", "clip_norm=1")


def test_what_a_step_changes_is_in_the_checkpoint(make_trainer, tmp_path):
    """Every parameter that there is, and every plain value of the trainer and what it is made of."""
    folder = tmp_path / "val"
    sets = (f"data_root={folder}", f"data_lst={write_samples(folder, 3)}", "train_epochs=1", "eval_epochs=1")
    sets += ("crop_size=96", *EVERYTHING)
    _, trainer = run(make_trainer, *sets, folder="first")
    assert {parameter.name for parameter in parameters_of(trainer.steps)} >= {"conv1.0.weight"}
    found, _ = checkpoint.newest(trainer.folder, to_resume=True)
    saved = {name: value.asnumpy() for name, value in checkpoint.load(found.path)[0].items()}
    saved.update(checkpoint.load_state(found.path))
    fresh = make_trainer(*sets, folder="second")
    at_start = {parameter.name: parameter.asnumpy() for parameter in parameters_of(fresh.steps)}
    changed = 0
    for parameter in parameters_of(trainer.steps):
        if not np.array_equal(parameter.asnumpy(), at_start[parameter.name]):
            np.testing.assert_array_equal(saved[parameter.name], parameter.asnumpy(), err_msg=parameter.name)
            changed += 1
    assert changed > 100
    before, after = plain_values(fresh), plain_values(trainer)
    moved = {name for name, value in after.items() if value != before.get(name)}
    of_files = ("trainer.saver._", "trainer.metrics._")  # what is being written
    moved = {name for name in moved if not name.startswith(of_files)}
    assert "trainer.steps.loss_scale" in moved
    assert moved <= {
        "trainer.saver.best",
        "trainer.steps.loss_scale",
        "trainer.folder",  # another run's
    }
    assert {"loss_scale", "step"} <= found.manifest.keys()
    assert found.manifest["loss_scale"] == trainer.steps.loss_scale.state()
    best, _ = checkpoint.newest(trainer.folder / "best")
    assert best.manifest["best_mean_iou"] == trainer.saver.best


def parameters_of(root):
    """All MindSpore parameters that an object of ours leads to."""
    found, seen, queue = [], set(), [root]
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ms.Parameter):
            found.append(one)
        elif isinstance(one, (list, tuple, set)):
            queue += one
        elif isinstance(one, dict):
            queue += one.values()
        elif hasattr(one, "__dict__"):
            queue += vars(one).values()
    return found


def plain_values(root, name="trainer"):
    """Numbers, texts and the loss scale of an object of this program and of those that it holds, by path."""
    found = {}
    for key, value in vars(root).items():
        path = f"{name}.{key}"
        if isinstance(value, (int, float, str, Path, LossScale)):
            found[path] = value
        elif type(value).__module__.startswith("fcn.") and not isinstance(value, ms.nn.Cell):
            found.update(plain_values(value, path))
    return found
