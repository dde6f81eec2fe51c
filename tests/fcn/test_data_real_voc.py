"""The reader on real PASCAL VOC 2012 images and masks, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcn.data.build import BuildOptions, build_dataset
from fcn.data.listing import read_image, read_list, read_mask
from fcn.data.records import open_dataset

VOC = Path(__file__).resolve().parents[3] / "shared/data/voc_animals/VOCdevkit/VOC2012"
LISTS = VOC / "ImageSets/Segmentation"

pytestmark = pytest.mark.skipif(not VOC.is_dir(), reason=f"no VOC images in {VOC}")


def test_palette_masks_are_exact_class_ids_and_so_are_their_colours(tmp_path):
    items = read_list(VOC, LISTS / "mini_val.txt")
    assert len(items) == 20
    for item in items:
        ids = read_mask(item.mask_path)
        assert ids.shape == read_image(item.image_path).shape[:2]
        assert set(np.unique(ids)) <= {*range(21), 255}
        colours = np.array(Image.open(item.mask_path).convert("RGB"))
        table = np.array(Image.open(item.mask_path).getpalette(), np.uint8).reshape(-1, 3)
        assert np.array_equal(table[ids], colours)  # the ids are those that the palette shows
        Image.fromarray(colours).save(tmp_path / "coloured.png")
        assert np.array_equal(read_mask(tmp_path / "coloured.png"), ids)


def test_a_built_set_holds_the_images_and_ids_unchanged(tmp_path):
    build_dataset(BuildOptions(VOC, LISTS / "mini_train.txt", tmp_path / "voc.mindrecord", shards=2))
    dataset = open_dataset(tmp_path / "voc.mindrecord0")
    assert dataset.samples == 37

    import mindspore.dataset as ds

    items = read_list(VOC, LISTS / "mini_train.txt")
    counts = np.zeros(256, np.int64)
    rows = ds.MindDataset(list(dataset.files), shuffle=False)
    for row in rows.create_dict_iterator(num_epochs=1, output_numpy=True):
        item = items[int(row["id"])]
        assert str(row["file_name"]) == item.name
        assert row["data"].tobytes() == item.image_path.read_bytes()
        ids = np.array(Image.open(item.mask_path))
        label = np.frombuffer(row["label"].tobytes(), np.uint8)
        assert np.array_equal(cv2.imdecode(label, cv2.IMREAD_UNCHANGED), ids)
        counts += np.bincount(ids.ravel(), minlength=256)
    assert list(dataset.class_pixels) == counts[:21].tolist()
    assert counts[21:255].sum() == 0 < counts[255]
