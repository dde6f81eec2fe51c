from math import isclose

from fcn.schedule import cosine_by_epoch


def test_it_starts_at_base_lr_halves_midway_and_nearly_ends_at_zero():
    assert cosine_by_epoch(0.015, 0, 500) == 0.015
    assert isclose(cosine_by_epoch(0.015, 250, 500), 0.0075)
    assert 0 < cosine_by_epoch(0.015, 499, 500) < 1e-6
