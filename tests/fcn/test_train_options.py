"""What a configuration can ask of training beyond the original project."""

import json

import numpy as np
import pytest

pytest.importorskip("mindspore")

import mindspore as ms  # noqa: E402
from data_samples import write_samples  # noqa: E402
from mindspore import nn  # noqa: E402
from trainings import EPOCHS, HALF, run  # noqa: E402

from fcn import checkpoint  # noqa: E402
from fcn.optimizer import Momentum  # noqa: E402
from fcn.weights import read_checkpoint  # noqa: E402

# Gradients of one step, undisturbed: weights hardly move, every crop is the whole image.
STILL = ("base_lr=1e-12", "freeze_bn=true", "min_scale=1", "max_scale=1", "crop_size=128", "weight_decay=0")


def gradients(states):
    """Of the first step: what momentum began with."""
    return {name[len("moments.") :]: v for name, v in states[1].items() if name.startswith("moments.")}


def norm(arrays):
    return np.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays.values()))


def test_the_update_is_mindspores_momentum(device, small_config):
    """But for rounding: the decay is added elsewhere."""

    def three_steps(make):
        rng = np.random.default_rng(0)
        shapes = {"conv1.0.weight": (4, 3), "conv1.1.gamma": (5,), "score_fr.weight": (2, 2)}
        weights = [ms.Parameter(rng.normal(size=s).astype(np.float32), name=n) for n, s in shapes.items()]
        update = make(weights)
        for _ in range(3):
            update(tuple(ms.Tensor(rng.normal(size=w.shape).astype(np.float32)) for w in weights))
        return [w.asnumpy() for w in weights]

    def ours(weights):
        cell = Momentum(weights, small_config("momentum=0.9", "weight_decay=0.01"))
        return lambda values: cell(values, ms.Tensor(0.1, ms.float32))

    theirs = three_steps(lambda weights: nn.Momentum(weights, 0.1, 0.9, weight_decay=0.01))
    for a, b in zip(three_steps(ours), theirs):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("slices", [2, 4])
def test_slices_add_up_to_the_same_step(make_trainer, slices):
    """Also where the slices hold different numbers of ignored pixels: they are not averaged."""
    sets = ("freeze_bn=true", "crop_size=96")
    whole, one = run(make_trainer, *sets)
    sliced, several = run(make_trainer, *sets, f"accumulate_steps={slices}")
    np.testing.assert_allclose(several.status.losses, one.status.losses, rtol=1e-5)
    for name, value in whole[-1].items():
        assert np.linalg.norm(sliced[-1][name] - value) <= 1e-4 * np.linalg.norm(value) + 1e-7, name
    assert list(whole[-1]) == list(sliced[-1])  # nothing of the slices is left in a checkpoint


def test_slices_in_mixed_precision_add_up_in_float32(make_trainer):
    """Also where convolutions compute their gradients themselves."""
    sets = ("crop_size=96", "accumulate_steps=2", "loss_scale=1024")
    _, full = run(make_trainer, *sets)
    _, mixed = run(make_trainer, *sets, "amp_level=O2")
    np.testing.assert_allclose(mixed.status.losses, full.status.losses, rtol=0.02)
    assert mixed.status.losses != full.status.losses


def test_a_gradient_beyond_the_limit_is_cut_to_it(make_trainer):
    plain = gradients(run(make_trainer, *STILL)[0])
    limit = norm(plain) / 3
    cut = gradients(run(make_trainer, *STILL, f"clip_norm={limit}")[0])
    assert norm(cut) == pytest.approx(limit, rel=1e-4)
    for name, value in plain.items():
        np.testing.assert_allclose(cut[name], value / 3, rtol=1e-3, atol=1e-7)
    far = gradients(run(make_trainer, *STILL, f"clip_norm={norm(plain) * 2}")[0])
    for name, value in plain.items():
        np.testing.assert_allclose(far[name], value, rtol=1e-5, atol=1e-9)


def test_the_moving_average_follows_the_weights_and_is_what_is_evaluated(make_trainer):
    states, trainer = run(make_trainer, "ema_decay=0.75")
    statistics = "conv1.1.moving_mean"  # those of the weights as they are belong to other weights
    assert not np.array_equal(states[-1][f"ema.{statistics}"], states[-1][statistics])
    np.testing.assert_array_equal(trainer._weights_to_score()[statistics], states[-1][f"ema.{statistics}"])
    name = "conv3.0.weight"
    np.testing.assert_array_equal(states[0][f"ema.{name}"], states[0][name])
    for before, after in zip(states, states[1:]):
        expected = 0.75 * before[f"ema.{name}"] + 0.25 * after[name]
        np.testing.assert_allclose(after[f"ema.{name}"], expected, rtol=1e-5, atol=1e-8)
    values = read_checkpoint(str(checkpoint.newest(trainer.folder)[0].path), trainer.config)
    np.testing.assert_array_equal(values[name].asnumpy(), states[-1][f"ema.{name}"])
    np.testing.assert_array_equal(trainer._weights_to_score()[name], states[-1][f"ema.{name}"])
    assert not [key for key in values if key.startswith("ema.")]


def test_the_encoder_can_learn_more_slowly(make_trainer):
    states, _ = run(make_trainer, "encoder_lr_factor=0.1", "train_epochs=1")
    before, after = states
    for name, lr in (("conv1.0.weight", 0.01), ("conv5.7.gamma", 0.01), ("conv6.0.weight", 0.1)):
        moved = before[name] - after[name]
        np.testing.assert_allclose(moved, lr * after[f"moments.{name}"], rtol=1e-3, atol=1e-7)


def test_a_class_of_no_weight_teaches_nothing(make_trainer):
    """Without weight decay only what has a gradient moves; here all classes that occur have no weight."""
    weights = [0.0] * 21
    weights[20] = 1.0  # which no mask has
    sets = ("num_classes=21", f"class_weights={weights}", "weight_decay=0", "freeze_bn=true")
    (before, *_, after), trainer = run(make_trainer, *sets)
    assert trainer.status.losses == [0.0] * EPOCHS
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_a_pixel_counts_as_much_as_its_class(make_trainer):
    trainer = make_trainer("class_weights=[1, 0, 0, 0.5, 0, 0, 0, 0]")
    assert trainer.steps.valid(np.array([[[0, 3, 3, 255, 2]]], np.uint8)) == 2.0


def test_steps_that_overflow_are_skipped_and_counted_and_halve_the_scale(make_trainer):
    sets = (f"loss_scale={2**30}", "dynamic_loss_scale=true")
    states, trainer = run(make_trainer, *sets, platform=HALF)
    learned = [name for name in states[0] if ".moving_" not in name]
    for name in learned:
        np.testing.assert_array_equal(states[-1][name], states[0][name])
    assert trainer.steps.loss_scale.skipped == EPOCHS
    assert trainer.steps.loss_scale.value == 2.0**30 / 2**EPOCHS
    manifest = checkpoint.newest(trainer.folder)[0].manifest
    assert manifest["loss_scale"] == trainer.steps.loss_scale.state()


def test_a_fixed_scale_skips_too(make_trainer):
    states, trainer = run(make_trainer, f"loss_scale={2**30}", platform=HALF)
    np.testing.assert_array_equal(states[-1]["conv1.0.weight"], states[0]["conv1.0.weight"])
    assert (trainer.steps.loss_scale.value, trainer.steps.loss_scale.skipped) == (2**30, EPOCHS)


def test_evaluation_during_training_keeps_the_best(make_trainer, tmp_path):
    folder = tmp_path / "val"
    lines = write_samples(folder, 3)
    sets = (f"data_root={folder}", f"data_lst={lines}", "eval_epochs=2", "train_epochs=5")
    _, trainer = run(make_trainer, *sets)
    scores = {e["step"]: e["mean_iou"] for e in trainer.status.events if e["event"] == "metric"}
    assert list(scores) == [2, 4, 5]  # the last epoch always
    (best,) = (trainer.folder / "best").glob("*.ckpt")
    manifest = json.loads(best.with_suffix(".json").read_text())
    assert manifest["best_mean_iou"] == max(scores.values()) == scores[manifest["step"]]
    assert checkpoint.newest(trainer.folder)[0].step == 5


def test_weights_that_are_not_finite_are_not_saved(make_trainer):
    trainer = make_trainer()
    weight = trainer.net.conv3[0].weight
    weight.set_data(ms.Tensor(np.full(weight.shape, np.inf, np.float32)))
    trainer._save(1, last=False)
    with pytest.raises(FloatingPointError, match=r"conv3\.0\.weight; they were not saved"):
        trainer.saver.finish(stay=True)
    assert not trainer.folder.exists()
