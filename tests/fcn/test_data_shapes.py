from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fcn.data.listing import read_image, read_list, read_mask
from fcn.data.records import open_dataset
from fcn.data.shapes import CLASSES, DemoOptions, _outline, draw_sample, make_demo
from fcn.errors import DataError


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    make_demo(DemoOptions(out, train=24, val=8, size=64))
    return out


def contents(root: Path):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_lists_records_and_pictures_belong_together(demo):
    dataset = open_dataset(demo / "train.mindrecord")
    assert dataset.samples == 24 and dataset.num_classes == len(CLASSES) == 4
    assert all(pixels > 0 for pixels in dataset.class_pixels)
    assert (demo / "classes.txt").read_text().split() == list(CLASSES)
    for split, count in (("train", 24), ("val", 8)):
        items = read_list(demo, demo / f"{split}.txt")
        assert len(items) == count
        for item in items:
            assert read_image(item.image_path).shape == (64, 64, 3)
            assert set(np.unique(read_mask(item.mask_path))) <= {0, 1, 2, 3, 255}


def test_the_same_arguments_give_the_same_bytes(demo):
    before = contents(demo)
    make_demo(DemoOptions(demo, train=24, val=8, size=64, overwrite=True))
    assert contents(demo) == before


def test_no_picture_occurs_twice(demo):
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (demo / "img").iterdir()]
    assert len(set(digests)) == 32


def test_nothing_is_overwritten_unasked(demo, tmp_path):
    with pytest.raises(DataError, match="is not empty; give another, or replace the set with --overwrite"):
        make_demo(DemoOptions(demo))
    (tmp_path / "file").touch()
    for options, text in (
        (DemoOptions(tmp_path / "file"), "is a file"),
        (DemoOptions(tmp_path / "new", train=0), "--train 0"),
        (DemoOptions(tmp_path / "new", size=8), "--size 8"),
        (DemoOptions(tmp_path / "new", seed=-1), "--seed -1"),
        (DemoOptions(tmp_path / "file" / "below"), "cannot be written"),
    ):
        with pytest.raises(DataError, match=text):
            make_demo(options)
    assert not (tmp_path / "new").exists()


def test_shapes_have_the_area_of_their_disc():
    for shape in CLASSES[1:]:
        x, y = _outline(shape, 10.0, 0.3).T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert area == pytest.approx(np.pi * 100, rel=0.01)


def test_colour_says_nothing_about_the_class():
    colours = {kind: [] for kind in range(len(CLASSES))}
    for index in range(200):
        image, ids = draw_sample(np.random.default_rng([5, index]), 48)
        for kind, found in colours.items():
            if (ids == kind).any():
                found.append(image[ids == kind].mean(axis=0))
    centres = {kind: np.mean(found, axis=0) for kind, found in colours.items()}
    overall = np.mean(list(centres.values()), axis=0)
    spread = np.mean([np.std(found, axis=0) for found in colours.values()])
    assert all(np.abs(centre - overall).max() < 0.4 * spread for centre in centres.values())


def test_a_thin_ignored_border_runs_round_every_shape():
    for index in range(30):
        _, ids = draw_sample(np.random.default_rng([6, index]), 64)
        below, right = (ids[:-1], ids[1:]), (ids[:, :-1], ids[:, 1:])
        for one, other in (below, right):
            touching = (one != other) & (one != 255) & (other != 255)
            assert not touching.any()
        assert 0 < (ids == 255).mean() < 0.25
