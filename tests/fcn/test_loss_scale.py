import pytest

from fcn.loss_scale import GROW_AFTER_STEPS, LARGEST, SKIPPED_IN_A_ROW_MAX, LossScale


def test_a_dynamic_scale_halves_on_overflow_and_doubles_after_many_good_steps():
    scale = LossScale(1024.0, dynamic=True)
    scale.update(False, "epoch 2 step 7")
    assert (scale.value, scale.skipped) == (512.0, 1)
    for _ in range(GROW_AFTER_STEPS):
        scale.update(True, "epoch 2 step 8")
    assert (scale.value, scale.good_steps) == (1024.0, 0)


def test_an_overflow_starts_the_count_of_good_steps_anew():
    scale = LossScale(1024.0, dynamic=True, good_steps=GROW_AFTER_STEPS - 1)
    scale.update(False, "epoch 2 step 7")
    scale.update(True, "epoch 2 step 8")
    assert (scale.value, scale.good_steps) == (512.0, 1)


def test_it_stays_within_its_bounds():
    top = LossScale(LARGEST, dynamic=True, good_steps=GROW_AFTER_STEPS - 1)
    top.update(True, "epoch 2 step 8")
    bottom = LossScale(1.0, dynamic=True)
    bottom.update(False, "epoch 2 step 7")
    assert (top.value, bottom.value) == (LARGEST, 1.0)


def test_a_fixed_scale_only_counts():
    scale = LossScale(1024.0, dynamic=False)
    scale.update(False, "epoch 2 step 7")
    scale.update(True, "epoch 2 step 8")
    assert (scale.value, scale.skipped, scale.skipped_in_a_row) == (1024.0, 1, 0)


def test_a_run_in_which_no_step_gets_through_is_stopped():
    scale = LossScale(1024.0, dynamic=False, skipped_in_a_row=SKIPPED_IN_A_ROW_MAX - 1)
    with pytest.raises(FloatingPointError, match="epoch 2 step 7: .* 50 steps in a row .* set dynamic"):
        scale.update(False, "epoch 2 step 7")
