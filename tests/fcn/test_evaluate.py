"""Scores of a network on images and masks; masks and probabilities that ranks predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ms = pytest.importorskip("mindspore")

from data_samples import write_sample  # noqa: E402
from networks import write_checkpoint  # noqa: E402
from ranks import work  # noqa: E402

from fcn.data.listing import read_mask  # noqa: E402
from fcn.distributed import World  # noqa: E402
from fcn.errors import DataError  # noqa: E402
from fcn.evaluate import Evaluator  # noqa: E402
from fcn.metrics import confusion, scores  # noqa: E402
from fcn.pictures import save_mask  # noqa: E402
from fcn.platform import CPU  # noqa: E402
from fcn.status import Status  # noqa: E402
from fcn.weights import read_checkpoint  # noqa: E402

IMAGES = 11


@pytest.fixture
def data(tmp_path, device):
    """Seven images of one padded shape and four of another: shares of two and three ranks differ in size."""
    for index in range(IMAGES):
        size = (40 + 3 * index, 60) if index < 7 else (70 + index, 33)
        write_sample(tmp_path / "data", f"s{index:03d}", size, seed=index)
    (tmp_path / "data" / "list.txt").write_text("".join(f"s{index:03d}\n" for index in range(IMAGES)))
    return tmp_path / "data"


@pytest.fixture
def config(data, tmp_path, small_config):
    def make(*overrides):
        paths = [f"data_root={data}", f"data_lst={data}/list.txt", f"ckpt_file={tmp_path}/c/FCN8s-1_1.ckpt"]
        made = small_config("num_classes=8", "eval_batch_size=2", *paths, *overrides)
        write_checkpoint(tmp_path / "c", made)
        return made

    return make


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_two_and_three_ranks_score_the_same(tmp_path, data, config):
    """Real worker processes, with the threads that each has on a host of two cores."""
    made, results, masks = config().model_dump(), [], []
    for size in (1, 2, 3):
        folder = tmp_path / f"masks-{size}"
        work("eval", tmp_path / f"run-{size}", made, {"save_masks": str(folder)}, size)
        results.append(json.loads((tmp_path / f"run-{size}" / "eval.json").read_bytes()))
        masks.append(files_of(folder))
    assert results[0] == results[1] == results[2]
    assert masks[0] == masks[1] == masks[2]
    assert len(masks[0]) == IMAGES
    the_score_is_that_of_the_masks(results[0], folder, data)
    # And prediction, with another number of ranks and without the masks, is the same.
    images = [str(data / "img" / f"{name}.jpg") for name in names(data)]
    options = {"images": images, "out": str(tmp_path / "out"), "save_prob": True}
    work("predict", tmp_path / "predict", made, options, 2)
    assert files_of(tmp_path / "out" / "masks") == masks[0]
    the_masks_are_the_most_probable_classes(tmp_path / "out", images)
    assert len(files_of(tmp_path / "out" / "overlays")) == IMAGES
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 1000


def names(data):
    return (data / "list.txt").read_text().split()


def the_score_is_that_of_the_masks(result, masks, data):
    matrix = np.zeros((8, 8), np.int64)
    for name in names(data):
        matrix += confusion(
            read_mask(data / "cls_png" / f"{name}.png"), read_mask(masks / f"{name}.png"), 8, 255
        )
    assert result["confusion"] == matrix.tolist()
    assert result["mean_iou"] == scores(matrix).mean_iou
    assert np.count_nonzero(matrix.sum(axis=0)) > 3  # several classes were predicted


def the_masks_are_the_most_probable_classes(out, images):
    for image in map(Path, images):
        probabilities = np.load(out / "probabilities" / f"{image.stem}.npy")
        mask = Image.open(out / "masks" / f"{image.stem}.png")
        assert mask.mode == "P"
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (8, *Image.open(image).size[::-1])
        np.testing.assert_array_equal(np.array(mask), probabilities.argmax(axis=0))
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=1e-5)


@pytest.fixture
def evaluator(config):
    made = config()
    return Evaluator(made, CPU, World(), Status()), read_checkpoint(made.ckpt_file, made)


def test_an_evaluator_reads_its_list_once(data, evaluator):
    """During a training it scores again and again, and the list must stay the same one."""
    scorer, values = evaluator
    first = scorer.score(values, "these weights")
    (data / "list.txt").unlink()
    assert scorer.score(values, "these weights") == first
    negated = {
        name: value.asnumpy() * (-1 if name == "score_fr.weight" else 1) for name, value in values.items()
    }
    assert scorer.score(negated, "other weights") != first


def test_a_mask_that_has_changed_since_the_check_is_named(data, evaluator):
    scorer, values = evaluator
    mask = data / "cls_png" / "s004.png"
    save_mask(mask, np.full_like(read_mask(mask), 38))
    with pytest.raises(DataError, match=r"s004.png: label 38 is neither a class 0..7 nor ignored \(255\)"):
        scorer.score(values, "these weights")
