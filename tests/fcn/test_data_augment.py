from __future__ import annotations

import cv2
import numpy as np
import pytest

from fcn.data.augment import Draw, apply, draw

MEAN = (103.53, 116.28, 123.675)
STD = np.array((57.375, 57.120, 58.395), np.float32)
IGNORE = 255


def sample(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(image, (5, 5), 0), rng.integers(0, 21, (height, width), dtype=np.uint8)


def written_out(image, label, choice, crop):
    """The order of work as documented, step by step: resize, pad, cut, mirror."""
    height, width = int(choice.scale * image.shape[0]), int(choice.scale * image.shape[1])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
    padded_height, padded_width = max(height, crop), max(width, crop)
    canvas = np.empty((padded_height, padded_width, 3), np.uint8)
    canvas[:] = np.rint(MEAN).astype(np.uint8)
    canvas[:height, :width] = image
    ids = np.full((padded_height, padded_width), IGNORE, np.uint8)
    ids[:height, :width] = label
    top = int(choice.offset_h01 * (padded_height - crop + 1))
    left = int(choice.offset_w01 * (padded_width - crop + 1))
    canvas, ids = canvas[top : top + crop, left : left + crop], ids[top : top + crop, left : left + crop]
    return (canvas[:, ::-1], ids[:, ::-1]) if choice.flip else (canvas, ids)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (30, 200), (64, 64), (7, 5)])
def test_pixels_are_those_of_the_documented_order_of_work(size):
    image, label = sample(*size)
    seen = set()
    for position in range(40):
        choice = draw(3, 1, position, 0.5, 2.0)
        got = apply(image, label, choice, 64, MEAN, IGNORE)
        for mine, theirs in zip(got, written_out(image, label, choice, 64)):
            assert mine.dtype == np.uint8
            assert np.array_equal(mine, theirs)
        seen.add((int(choice.scale * size[0]) < 64, int(choice.scale * size[1]) < 64, choice.flip))
    assert len(seen) >= 2


def test_normalising_after_the_cut_gives_what_normalising_before_it_gives():
    image, label = sample(80, 100)
    for position in range(40):
        choice = draw(5, 0, position, 0.5, 2.0)
        height, width = int(choice.scale * 80), int(choice.scale * 100)
        before = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        before = (before - np.float32(MEAN)) / STD
        down, right = max(0, 64 - height), max(0, 64 - width)
        before = cv2.copyMakeBorder(before, 0, down, 0, right, cv2.BORDER_CONSTANT, value=0)
        top = int(choice.offset_h01 * (before.shape[0] - 63))
        left = int(choice.offset_w01 * (before.shape[1] - 63))
        before = before[top : top + 64, left : left + 64]
        before = before[:, ::-1] if choice.flip else before
        cut, ids = apply(image, label, choice, 64, MEAN, IGNORE)
        after = (cut.astype(np.float32) - np.float32(MEAN)) / STD
        assert np.array_equal(after[ids != IGNORE], before[ids != IGNORE])
        assert np.abs((after - before) * STD).max() <= 0.5  # padding: the mean, rounded to a grey level


def test_image_and_mask_stay_aligned():
    label = np.zeros((80, 100), np.uint8)
    label[10:30, 15:60] = 1
    label[50:70, 60:90] = 2
    image = np.zeros((80, 100, 3), np.uint8)
    image[label == 1] = (250, 0, 0)
    image[label == 2] = (0, 0, 250)
    for position in range(60):
        cut, ids = apply(image, label, draw(1, 0, position, 0.5, 2.0), 64, (0, 0, 0), IGNORE)
        inside = ids != IGNORE
        wrong = ((cut[..., 0] > 125) != (ids == 1)) | ((cut[..., 2] > 125) != (ids == 2))
        assert wrong[inside].mean() < 0.04  # the outlines, which cubic and nearest draw differently


def test_padding_is_the_mean_colour_and_the_ignore_label():
    image, label = sample(20, 30)
    cut, ids = apply(image, label, Draw(1.0, 0.9, 0.9, flip=False), 64, MEAN, IGNORE)
    assert np.array_equal(ids[:20, :30], label)
    assert np.array_equal(cut[:20, :30], image)
    padding = np.ones((64, 64), bool)
    padding[:20, :30] = False
    assert (ids[padding] == IGNORE).all()
    assert (cut[padding] == (104, 116, 124)).all()


def test_draws_depend_on_seed_epoch_and_position_alone():
    assert draw(1, 2, 3, 0.5, 2.0) == draw(1, 2, 3, 0.5, 2.0)
    draws = {
        draw(seed, epoch, position, 0.5, 2.0) for seed in (1, 2) for epoch in (0, 1) for position in (0, 1)
    }
    assert len(draws) == 8


def test_draws_fill_their_ranges():
    draws = [draw(1, 0, position, 0.5, 2.0) for position in range(2000)]
    scales = np.array([choice.scale for choice in draws])
    assert scales.min() < 0.51 and scales.max() > 1.99 and abs(scales.mean() - 1.25) < 0.05
    assert 0.45 < np.mean([choice.flip for choice in draws]) < 0.55
    for name in ("offset_h01", "offset_w01"):
        assert abs(np.mean([getattr(choice, name) for choice in draws]) - 0.5) < 0.03


def test_a_fixed_scale_is_allowed():
    assert {draw(1, 0, position, 1.0, 1.0).scale for position in range(10)} == {1.0}


def test_every_offset_is_reached_and_none_is_past_the_end():
    image, label = sample(66, 64)
    image[:] = np.arange(66, dtype=np.uint8)[:, None, None]
    tops = {
        int(apply(image, label, Draw(1.0, h01, 0.0, flip=False), 64, MEAN, IGNORE)[0][0, 0, 0])
        for h01 in (0.0, 0.34, 0.67, np.nextafter(1.0, 0.0))
    }
    assert tops == {0, 1, 2}
