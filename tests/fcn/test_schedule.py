from math import cos, isclose, pi

import pytest

from fcn.schedule import learning_rate, start_rate

EPOCH_STEPS = 10


@pytest.fixture
def rate(small_config):
    def at(step, *overrides, global_batch=4):
        config = small_config("base_lr=0.015", "train_epochs=500", *overrides)
        return learning_rate(config, step, EPOCH_STEPS, global_batch)

    return at


def test_the_originals_schedule_halves_midway_and_is_constant_in_an_epoch(rate):
    assert rate(0) == rate(EPOCH_STEPS - 1) == 0.015
    assert isclose(rate(250 * EPOCH_STEPS), 0.0075)
    assert isclose(rate(EPOCH_STEPS), 0.015 * (1 + cos(pi / 500)) / 2)
    assert 0 < rate(500 * EPOCH_STEPS - 1) < 1e-6


def test_cosine_by_step_falls_at_every_step(rate):
    rates = [rate(step, "lr_schedule=cosine") for step in (0, 1, 2500, 4999)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.015 and isclose(rates[2], 0.0075)


def test_poly(rate):
    assert isclose(rate(2500, "lr_schedule=poly"), 0.015 * 0.5**0.9)
    assert isclose(rate(2500, "lr_schedule=poly", "lr_power=2"), 0.015 * 0.25)


def test_step_multiplies_after_the_named_epochs(rate):
    steps = ("lr_schedule=step", "lr_steps=[2, 4]", "lr_gamma=0.1")
    assert rate(19, *steps) == 0.015
    assert isclose(rate(20, *steps), 0.0015)
    assert isclose(rate(40, *steps), 0.00015)


def test_warm_up_is_linear_and_ends_at_the_schedule(rate):
    assert isclose(rate(0, "warmup_epochs=2"), 0.015 / 20)
    assert isclose(rate(9, "warmup_epochs=2"), 0.015 / 2)
    assert rate(25, "warmup_epochs=2") == rate(25)


def test_the_rate_grows_with_the_global_batch_only_when_asked(small_config):
    assert start_rate(small_config("base_lr=0.1", "batch_size=4"), 32) == 0.1
    assert isclose(start_rate(small_config("base_lr=0.1", "batch_size=4", "scale_lr=true"), 32), 0.8)
