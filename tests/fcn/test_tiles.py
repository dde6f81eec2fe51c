"""Large images in tiles: every pixel once, and the same answers."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.tiles import MARGIN, tiles

SCALES = [(1.0,), (0.4,), (2.0,), (4.0,), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]


@settings(deadline=None)  # thousands of tiles at scale 4
@given(st.integers(1, 150), st.integers(1, 60), st.sampled_from([*SCALES, (0.333,)]))
def test_every_pixel_is_kept_once_and_seen_with_its_margin(rows, columns, scales):
    height, width = 32 * rows, 32 * columns
    kept = np.zeros((rows, columns), int)
    cut = tiles(height, width, scales)
    assert len({tuple(s.stop - s.start for s in tile.seen) for tile in cut}) == 1  # one graph
    for tile in cut:
        kept[tuple(slice(s.start // 32, s.stop // 32) for s in tile.kept)] += 1
        for seen, own, length in zip(tile.seen, tile.kept, (height, width)):
            assert own.start % 32 == own.stop % 32 == 0
            before, after = own.start - seen.start, seen.stop - own.stop
            assert seen.start == 0 or before * min(scales) >= MARGIN
            assert seen.stop == length or after * min(scales) >= MARGIN
            for scale in scales if scales in SCALES else ():
                assert (seen.start * scale) % 32 == 0
    assert (kept == 1).all()


def test_an_image_that_fits_is_one_tile():
    (tile,) = tiles(96, 640, side=640)
    assert tile.seen == tile.kept == (slice(0, 96), slice(0, 640))


@pytest.mark.parametrize("scales", ["[1.0]", "[0.75,1.25]"])
def test_tiles_give_the_whole_images_answers(device, small_config, monkeypatch, scales):
    pytest.importorskip("mindspore")
    from fcn import inference
    from fcn.distributed import World
    from fcn.network import build_network
    from fcn.status import Status

    config = small_config("num_classes=5", f"scales={scales}")
    rng = np.random.default_rng(0)
    values = {p.name: p.asnumpy() for p in build_network(config, device).get_parameters()}
    for name in [name for name in values if name.startswith("score_")]:
        values[name] = rng.normal(size=values[name].shape).astype(np.float32)
    image = rng.integers(0, 256, (250, 1630, 3), np.uint8)
    results = []
    for side in (4096, 900):
        monkeypatch.setattr(inference, "tiles", partial(tiles, side=side))
        one = inference.Inference(config, device, World(), Status(), with_probabilities=True)
        one.load(values, "drawn")
        (prediction,) = one.predict([image.shape[:2]], lambda place: inference.Sample(place, image))
        results.append(prediction)
    assert len(tiles(256, 1664, config.scales, 900)) > 1
    np.testing.assert_allclose(results[1].probabilities, results[0].probabilities, atol=1e-5)
    assert (results[1].ids == results[0].ids).mean() > 0.999
    assert len(np.unique(results[0].ids)) > 2
