"""Large images in tiles: every pixel once, and the same answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.tiles import MARGIN, tiles

SIDE = 28 * 32


@given(st.integers(1, 120), st.integers(1, 120))
def test_every_pixel_is_kept_once_and_seen_with_its_margin(rows, columns):
    height, width = 32 * rows, 32 * columns
    kept = np.zeros((rows, columns), int)
    cut = tiles(height, width, SIDE)
    assert len({tuple(s.stop - s.start for s in tile.seen) for tile in cut}) == 1  # one graph
    for tile in cut:
        kept[tuple(slice(s.start // 32, s.stop // 32) for s in tile.kept)] += 1
        for seen, own, length in zip(tile.seen, tile.kept, (height, width)):
            assert seen.start % 32 == own.start % 32 == own.stop % 32 == 0
            assert seen.stop - seen.start <= SIDE
            assert seen.start == 0 or own.start - seen.start >= MARGIN
            assert seen.stop == length or seen.stop - own.stop >= MARGIN
    assert (kept == 1).all()


def test_an_image_that_fits_is_one_tile():
    (tile,) = tiles(96, SIDE, SIDE)
    assert tile.seen == tile.kept == (slice(0, 96), slice(0, SIDE))


def test_tiles_give_the_whole_images_answers(device, small_config, monkeypatch):
    pytest.importorskip("mindspore")
    from fcn import inference
    from fcn.distributed import World
    from fcn.network import build_network
    from fcn.status import Status

    config = small_config("num_classes=5")
    rng = np.random.default_rng(0)
    values = {p.name: p.asnumpy() for p in build_network(config, device).get_parameters()}
    for name in [name for name in values if name.startswith("score_")]:
        values[name] = rng.normal(size=values[name].shape).astype(np.float32)
    image = rng.integers(0, 256, (1000, 1500, 3), np.uint8)
    results = []
    for side in (2048, SIDE):
        monkeypatch.setattr(inference, "SIDE", side)
        one = inference.Inference(config, device, World(), Status(), with_probabilities=True)
        one.load(values, "drawn")
        (prediction,) = one.predict([image.shape[:2]], lambda place: inference.Sample(place, image))
        results.append(prediction)
    np.testing.assert_allclose(results[1].probabilities, results[0].probabilities, atol=1e-5)
    assert (results[1].ids == results[0].ids).mean() > 0.9999
    assert len(np.unique(results[0].ids)) > 2
