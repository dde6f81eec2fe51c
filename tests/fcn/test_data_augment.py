from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.data import augment
from fcn.data.augment import Colours, Draw, draw, recolour

MEAN = (103.53, 116.28, 123.675)
STD = np.array((57.375, 57.120, 58.395), np.float32)
IGNORE = 255
GREY_MEAN = (104, 116, 124)


def apply(image, label, choice, crop, mean=MEAN):
    cut, ids = np.empty((crop, crop, 3), np.uint8), np.empty((crop, crop), np.uint8)
    augment.apply(image, label, choice, mean, IGNORE, cut, ids)
    return cut, ids


def sample(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(image, (5, 5), 0), rng.integers(0, 21, (height, width), dtype=np.uint8)


def written_out(image, label, choice, crop):
    """The order of work as documented, step by step: resize, pad, cut, mirror."""
    height, width = int(choice.scale * image.shape[0]), int(choice.scale * image.shape[1])
    height, width = max(height, 1), max(width, 1)
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


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (30, 200), (64, 64), (7, 5), (300, 250)])
def test_pixels_are_those_of_the_documented_order_of_work(size):
    image, label = sample(*size)
    seen = set()
    for position in range(40):
        choice = draw(3, 1, position, 0.5, 2.0)
        got = apply(image, label, choice, 64)
        for mine, theirs in zip(got, written_out(image, label, choice, 64)):
            assert np.array_equal(mine, theirs)
        seen.add((int(choice.scale * size[0]) < 64, int(choice.scale * size[1]) < 64, choice.flip))
    assert len(seen) >= 2


fractions = st.floats(0, 1, exclude_max=True)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    scale=st.floats(0.1, 3),
    offset_h01=fractions,
    offset_w01=fractions,
    flip=st.booleans(),
    crop=st.integers(1, 90),
)
def test_pixels_are_the_documented_ones_for_any_size_and_draw(
    height, width, scale, offset_h01, offset_w01, flip, crop
):
    image, label = sample(height, width)
    choice = Draw(scale, offset_h01, offset_w01, flip)
    got, expected = apply(image, label, choice, crop), written_out(image, label, choice, crop)
    assert np.array_equal(got[0], expected[0])
    assert np.array_equal(got[1], expected[1])


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
        cut, ids = apply(image, label, choice, 64)
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
        cut, ids = apply(image, label, draw(1, 0, position, 0.5, 2.0), 64, (0, 0, 0))
        inside = ids != IGNORE
        wrong = ((cut[..., 0] > 125) != (ids == 1)) | ((cut[..., 2] > 125) != (ids == 2))
        assert wrong[inside].mean() < 0.04  # the outlines, which cubic and nearest draw differently


@pytest.mark.parametrize("photometric", [False, True])
def test_a_marker_is_at_one_place_in_image_and_mask(photometric):
    rng = np.random.default_rng(2)
    shifts, seen = [], set()
    for position in range(200):
        top, left = rng.integers(0, 80 - 12), rng.integers(0, 100 - 12)
        label = np.zeros((80, 100), np.uint8)
        label[top : top + 12, left : left + 12] = 5
        image = np.where(label[..., np.newaxis] == 5, np.uint8(250), np.uint8(20)).repeat(3, axis=2)
        choice = draw(1, 0, position, 0.5, 2.0, photometric)
        cut, ids = apply(image, label, choice, 64)
        marked, rest = ids == 5, ids == 0
        if marked.sum() < (12 * choice.scale - 1) ** 2:
            continue  # cut off by the crop, in part or altogether
        grey = cut.mean(axis=2)
        bright = (grey > (grey[marked].mean() + grey[rest].mean()) / 2) & (ids != IGNORE)
        shifts.append(np.argwhere(bright).mean(axis=0) - np.argwhere(marked).mean(axis=0))
        seen.add((choice.flip, bool((ids == IGNORE).any()), choice.scale > 1))
    # OpenCV's nearest takes the corner of a pixel where its cubic takes the middle: half a pixel on average
    assert np.abs(shifts).max() <= 1
    assert np.abs(np.mean(shifts, axis=0)).max() <= 0.5
    assert len(seen) >= 6


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_padding_is_the_mean_colour_and_the_ignore_label(scale, flip):
    image, label = sample(20, 30)
    colours = Colours(brightness=20, contrast=1.2, saturation=0.7, hue=5)
    cut, ids = apply(image, label, Draw(scale, 0.9, 0.9, flip, colours), 64)
    padding = np.ones((64, 64), bool)
    padding[: int(20 * scale), : int(30 * scale)] = False
    padding = padding[:, ::-1] if flip else padding
    assert (ids[padding] == IGNORE).all()
    assert (ids[~padding] != IGNORE).all()
    assert (cut[padding] == GREY_MEAN).all()
    assert not (cut[~padding] == GREY_MEAN).all(axis=-1).any()


def test_draws_depend_on_seed_epoch_and_position_alone():
    for photometric in (False, True):
        assert draw(1, 2, 3, 0.5, 2.0, photometric) == draw(1, 2, 3, 0.5, 2.0, photometric)
        draws = {
            draw(seed, epoch, position, 0.5, 2.0, photometric)
            for seed in (1, 2)
            for epoch in (0, 1)
            for position in (0, 1)
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
        int(apply(image, label, Draw(1.0, h01, 0.0, flip=False), 64)[0][0, 0, 0])
        for h01 in (0.0, 0.34, 0.67, np.nextafter(1.0, 0.0))
    }
    assert tops == {0, 1, 2}


def test_draws_without_colours_are_those_of_earlier_versions():
    """Written down: a run that goes on under a newer version sees the crops that it would have seen."""
    choice = draw(1, 2, 3, 0.5, 2.0)
    numbers = (choice.scale, choice.offset_h01, choice.offset_w01)
    assert numbers == (1.5057083939774947, 0.1110146366693816, 0.5115090823948739)
    assert choice.colours is None


def test_colours_leave_the_geometry_as_it_is():
    for position in range(20):
        plain, coloured = (draw(1, 0, position, 0.5, 2.0, photometric) for photometric in (False, True))
        assert coloured.colours is not None
        assert plain == Draw(coloured.scale, coloured.offset_h01, coloured.offset_w01, coloured.flip)
        image, label = sample(50, 70)
        assert np.array_equal(apply(image, label, plain, 64)[1], apply(image, label, coloured, 64)[1])


def test_each_colour_change_is_drawn_half_of_the_time_over_its_whole_range():
    colours = [draw(1, 0, position, 0.5, 2.0, photometric=True).colours for position in range(4000)]
    for name, neutral, low, high in (
        ("brightness", 0.0, -32, 32),
        ("contrast", 1.0, 0.5, 1.5),
        ("saturation", 1.0, 0.5, 1.5),
        ("hue", 0, -18, 18),
    ):
        drawn = np.array([getattr(choice, name) for choice in colours])
        changed = drawn[drawn != neutral]
        assert 0.45 < len(changed) / len(drawn) < 0.55
        room = (high - low) / 50
        assert low <= changed.min() < low + room and high - room < changed.max() <= high
        assert abs(changed.mean() - (low + high) / 2) < 1.5 * room
    assert 0.45 < np.mean([choice.contrast_last for choice in colours]) < 0.55


def test_neutral_colours_change_nothing():
    image, _ = sample(40, 50)
    assert np.array_equal(recolour(image, Colours()), image)
    assert np.array_equal(recolour(image, Colours(contrast_last=True)), image)


def one_pixel(pixel, colours):
    """The same changes by colorsys on one pixel, without rounding in between."""

    def clipped(values):
        return np.clip(values, 0, 255)

    bgr = clipped(np.array(pixel, float) + colours.brightness)
    if not colours.contrast_last:
        bgr = clipped(bgr * colours.contrast)
    hue, saturation, value = colorsys.rgb_to_hsv(*bgr[::-1] / 255)
    hue, saturation = (hue + colours.hue / 180) % 1, min(saturation * colours.saturation, 1)
    bgr = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))[::-1]
    return clipped(bgr * colours.contrast) if colours.contrast_last else bgr


def test_colours_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 1, 3), dtype=np.uint8)
    for position in range(40):
        colours = draw(2, 0, position, 0.5, 2.0, photometric=True).colours
        expected = np.array([[one_pixel(row[0], colours)] for row in image])
        # Hue has 180 steps, so a colour is off by up to 1/60 of its range, twice, and contrast stretches that
        assert np.abs(recolour(image, colours) - expected).max() < 8


def test_overflow_is_cut_off():
    image = np.array([[[250, 128, 3]]], np.uint8)
    assert recolour(image, Colours(brightness=30)).tolist() == [[[255, 158, 33]]]
    assert recolour(image, Colours(brightness=-30)).tolist() == [[[220, 98, 0]]]
    assert recolour(image, Colours(contrast=1.5)).tolist() == [[[255, 192, 4]]]
