from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from fcn.data.listing import read_mask
from fcn.pictures import colour, confusion_picture, contact_sheet, overlay, palette, save_mask


def test_the_palette_is_pascal_vocs():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    known.update({20: (0, 64, 128), 255: (224, 224, 192)})
    colours = palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert {index: tuple(colours[index].tolist()) for index in known} == known
    assert len({tuple(row) for row in colours.tolist()}) == 256
    assert np.array_equal(palette(21), colours[:21])


def test_a_saved_mask_keeps_its_ids_and_shows_vocs_colours(tmp_path):
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_mask(tmp_path / "mask.png", ids[:, ::-1])
    assert np.array_equal(read_mask(tmp_path / "mask.png"), ids[:, ::-1])
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.array(picture.convert("RGB")), palette()[ids[:, ::-1]])


def test_an_overlay_tints_classes_and_leaves_background():
    image = np.full((4, 6, 3), 100, np.uint8)
    ids = np.zeros((4, 6), np.uint8)
    ids[1:3, 2:4] = 1
    mixed = overlay(image, ids)
    assert (mixed[ids == 0] == 100).all()
    assert (mixed[ids == 1] == (50, 50, 114)).all()  # BGR, half way to (128, 0, 0) RGB


def test_a_contact_sheet_shows_each_picture_in_its_column(tmp_path):
    image = np.full((30, 60, 3), (10, 200, 30), np.uint8)
    truth, guess = np.full((30, 60), 1, np.uint8), np.full((30, 60), 2, np.uint8)
    tall = (image.transpose(1, 0, 2), truth.T, guess.T)
    contact_sheet([(image, truth, guess), tall], tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    pictures = (image[0, 0], colour(truth)[0, 0], colour(guess)[0, 0])
    for column, expected in enumerate(pictures):
        left = sheet[:, 8 + 248 * column : 8 + 248 * column + 240]
        matches = (left == expected).all(axis=2)
        assert matches.sum() == 120 * 240 + 240 * 120


def test_a_confusion_matrix_is_dark_where_all_pixels_of_a_row_are(tmp_path):
    names = ["background", "cat", "absent"]
    confusion_picture([[3000, 0, 0], [500, 500, 0], [0, 0, 0]], names, tmp_path / "matrix.png")
    picture = cv2.imread(str(tmp_path / "matrix.png"))
    bottom, right = picture.shape[0] - 8, picture.shape[1] - 8
    left = right - 3 * 34
    # A corner of each cell, which no number covers
    shades = [
        [picture[bottom - 34 * (3 - r) + 2, left + 34 * c + 2].tolist() for c in range(3)] for r in range(3)
    ]
    dark, half, white = [140, 60, 20], [198, 158, 138], [255, 255, 255]
    assert shades == [[dark, white, white], [half, half, white], [white, white, white]]
    beside = picture[bottom - 3 * 34 : bottom, : left - 2]
    assert all((beside[34 * r : 34 * (r + 1)] < 128).any() for r in range(3))  # each row has its name


def test_a_confusion_matrix_of_many_classes_stays_of_use(tmp_path):
    confusion_picture(np.eye(255, dtype=int).tolist(), [str(c) for c in range(255)], tmp_path / "matrix.png")
    assert max(Image.open(tmp_path / "matrix.png").size) < 1500
