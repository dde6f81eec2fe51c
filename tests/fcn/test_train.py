"""One training step after the other, against what its parts should do."""

import json

import numpy as np
import pytest

pytest.importorskip("mindspore")

from trainings import HALF, run  # noqa: E402

from fcn import checkpoint  # noqa: E402
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
