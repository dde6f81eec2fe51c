"""Batches, and what the network's scores become."""

from __future__ import annotations

from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ms = pytest.importorskip("mindspore")

from PIL import Image  # noqa: E402

from fcn.data.listing import image_size, read_image  # noqa: E402
from fcn.distributed import World  # noqa: E402
from fcn.errors import DataError  # noqa: E402
from fcn.inference import Inference, Predictor, Sample, fill, padded, plan_batches  # noqa: E402
from fcn.network import build_network  # noqa: E402
from fcn.platform import CPU  # noqa: E402
from fcn.status import Status  # noqa: E402

sides = st.integers(1, 700)


@given(st.lists(st.tuples(sides, sides), max_size=60), st.integers(1, 16))
def test_each_image_is_in_one_batch_that_holds_it(sizes, images_max):
    batches = plan_batches(sizes, images_max)
    assert sorted(place for batch in batches for place in batch.members) == list(range(len(sizes)))
    for batch in batches:
        rows, height, width = batch.shape
        assert 1 <= len(batch.members) <= rows <= images_max
        assert all((padded(sizes[p][0]), padded(sizes[p][1])) == (height, width) for p in batch.members)


@given(st.integers(1, 200), st.integers(1, 16))
def test_a_group_is_one_shape_with_fewer_fillers_than_batches(count, images_max):
    batches = plan_batches([(375, 500)] * count, images_max)
    assert len(batches) >= min(count, 8) // 2  # a short list is shared out, too
    assert len(batches) == ceil(count / images_max) or count < 8 * images_max
    assert {batch.shape[1:] for batch in batches} == {(384, 512)}
    assert len({batch.shape for batch in batches}) == 1
    assert sum(batch.shape[0] for batch in batches) - count < len(batches)


@pytest.mark.parametrize(
    ("size", "scale", "rows"),
    [
        ((375, 500), 1.0, 16),
        ((500, 500), 0.5, 16),
        ((1000, 1000), 1.0, 4),
        ((500, 500), 2.0, 4),
        ((9000, 9000), 1.0, 1),
    ],
)
def test_large_images_make_smaller_batches(size, scale, rows):
    assert {batch.shape[0] for batch in plan_batches([size] * 128, 16, scale)} == {rows}


def turned(image):
    exif = image.getexif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    "kind", ["grey.jpg", "cmyk.jpg", "turned.jpg", "deep.png", "deep.tif", "palette.png", "x.bmp", "x.webp"]
)
def test_the_size_is_that_of_the_pixels(tmp_path, kind):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8))
    path = tmp_path / kind
    if kind.startswith("deep"):
        cv2.imwrite(str(path), rng.integers(0, 65536, (30, 50, 3), np.uint16))
    elif kind == "turned.jpg":
        image.save(path, exif=turned(image))
    else:
        mode = {"grey.jpg": "L", "cmyk.jpg": "CMYK", "palette.png": "P"}.get(kind, "RGB")
        image.convert(mode).save(path)
    assert image_size(path) == (30, 50) == read_image(path).shape[:2]


def test_padding_is_the_mean_below_and_right():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    filled = fill([Sample(0, image)], (2, 5, 6), (1.4, 1.6, 3))  # to the nearest grey level
    np.testing.assert_array_equal(filled[0, :3, :4], image)
    assert (filled[0, 3:] == (1, 2, 3)).all() and (filled[0, :, 4:] == (1, 2, 3)).all()
    with pytest.raises(DataError, match="image 8 of the list"):
        fill([Sample(7, image)], (1, 2, 6), (1, 2, 3))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_progress_is_that_of_all_ranks_and_ends_at_the_total(small_config, device, size):
    class Told(Status):
        def send(self, event, **fields):
            if event == "eval":
                told.append((fields["done"], fields["total"]))

    sizes = [(32, 32)] * 4 + [(40, 64)] * 3
    told = []
    inference = Inference(small_config("eval_batch_size=2"), CPU, World(0, size), Told())
    read = [Sample(place, np.zeros((*shape, 3), np.uint8)) for place, shape in enumerate(sizes)]
    seen = len(list(inference.predict(sizes, read.__getitem__)))
    assert told[-1] == (7, 7) and told == sorted(set(told))
    assert (seen == 7) is (size == 1)


@pytest.fixture
def make(small_config, device):
    """The network and a Predictor of it."""

    def make(*overrides):
        config = small_config(*overrides)
        net = build_network(config, CPU).set_train(False)
        return net, Predictor(net, config).set_train(False), config

    return make


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


def resized(planes, height, width):
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes])


@pytest.mark.parametrize("overrides", [["scales=[1.0]"], ["scales=[0.6,1.3]", "flip=true"]])
def test_probabilities_are_the_mean_over_scales_and_mirror_images(make, overrides):
    net, predictor, config = make(*overrides)
    height, width = 64, 96
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    planes = ((image - np.array(config.image_mean)) / config.image_std).astype(np.float32).transpose(2, 0, 1)
    views = []
    for scale in config.scales:
        scaled = resized(planes, round(height * scale), round(width * scale))
        for step in (1, -1) if config.flip else (1,):
            scores = net(ms.Tensor(np.ascontiguousarray(scaled[None, :, :, ::step]))).asnumpy()[0]
            views.append(resized(softmax(scores)[:, :, ::step], height, width))
    ids, probabilities = (value.asnumpy()[0] for value in predictor(ms.Tensor(image[None])))
    np.testing.assert_allclose(probabilities, np.mean(views, axis=0), atol=2e-5)
    np.testing.assert_array_equal(ids, probabilities.argmax(axis=0))
    assert ids.dtype == np.uint8


def test_with_flip_a_mirrored_image_has_the_mirrored_prediction(make):
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), np.uint8)
    mirrored = np.ascontiguousarray(image[:, :, ::-1])
    for flip, expected in (("true", True), ("false", False)):
        _, predictor, _ = make(f"flip={flip}")
        one, other = (predictor(ms.Tensor(x))[1].asnumpy() for x in (image, mirrored))
        assert np.allclose(one[..., ::-1], other, atol=1e-6) is expected
