from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import SAMPLES, build, run
from PIL import Image

from fcn.data.info import describe
from fcn.data.listing import read_image
from fcn.data.records import open_dataset
from fcn.errors import DataError
from fcn.pictures import palette


def test_the_facts_are_those_of_the_files(root, tmp_path):
    done = run("info", root / "set.mindrecord1", "--sheet", tmp_path / "sheet.png")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    masks = [np.array(Image.open(path)) for path in sorted((root / "cls_png").iterdir())]
    labels = np.concatenate([mask.ravel() for mask in masks])
    for row in answer["classes"]:
        assert row["pixels"] == (labels == row["label"]).sum()
        assert row["images"] == sum((mask == row["label"]).any() for mask in masks)
    assert len(answer["classes"]) == 21 and answer["classes"][15]["name"] == "person"
    assert answer["ignored_pixels"] == (labels == 255).sum()
    for side, axis in (("height", 0), ("width", 1)):
        lengths = [mask.shape[axis] for mask in masks]
        expected = {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)}
        assert answer["image_sizes"][side] == expected
    assert sum(shard["samples"] for shard in answer["shards"]) == answer["samples"] == SAMPLES
    for shard in answer["shards"]:
        assert shard["bytes"] == (root / shard["file"]).stat().st_size
    assert answer["fingerprint"] == open_dataset(root / "set.mindrecord").fingerprint
    assert answer["decoded"] is False


def test_the_sheet_shows_images_beside_their_masks(root, tmp_path):
    describe(root / "set.mindrecord", tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    first, last = (read_image(root / f"img/s{index:03d}.jpg") for index in (0, SAMPLES - 1))
    ids = np.array(Image.open(root / f"cls_png/s{SAMPLES - 1:03d}.png"))
    for picture in (first, last, palette()[:, ::-1][ids]):
        scale = 240 / max(picture.shape[:2])
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        cell = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
        assert cv2.matchTemplate(sheet, cell, cv2.TM_SQDIFF).min() == 0


def test_the_sheet_beside_the_set_is_that_of_the_present_set(copy):
    sheet = Path(describe(copy / "set.mindrecord")["sheet"])
    assert sheet == copy / "set.mindrecord.png"
    old = sheet.read_bytes()
    (copy / "list.txt").write_text("s003\ns001\n")
    build(copy, copy / "list.txt", overwrite=True)
    describe(copy / "set.mindrecord")
    assert sheet.read_bytes() != old
    describe(copy / "set.mindrecord", copy / "same.png")
    assert sheet.read_bytes() == (copy / "same.png").read_bytes()


def test_a_named_sheet_overwrites_no_other_picture(root, tmp_path):
    sheet = tmp_path / "sheet.png"
    describe(root / "set.mindrecord", sheet)
    describe(root / "set.mindrecord", sheet)  # the same picture again
    sheet.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"sheet\.png: exists already .* give another --sheet"):
        describe(root / "set.mindrecord", sheet)
    assert sheet.read_bytes() == b"mine"


def test_a_sheet_that_cannot_be_written_is_named(root):
    with pytest.raises(DataError, match=r"list\.txt/x\.png: cannot be written: .*; give another --sheet"):
        describe(root / "set.mindrecord", root / "list.txt" / "x.png")
