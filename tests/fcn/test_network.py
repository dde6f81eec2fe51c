"""The network, its loss and its normalisation, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from fcn.architecture import Architecture, parameter_count, parameter_shapes  # noqa: E402
from fcn.loss import PixelCrossEntropy  # noqa: E402
from fcn.model import FCN8s, Normalise, start_as_in_the_paper  # noqa: E402
from fcn.network import build_network  # noqa: E402

SMALL = Architecture(num_classes=4, encoder_width=0.0625, fc_channels=8)


def shapes(net):
    return {parameter.name: tuple(parameter.shape) for parameter in net.get_parameters()}


def test_the_published_size():
    arch = Architecture()
    assert parameter_count(arch) == 134_526_944
    assert parameter_count(arch, trainable_only=True) == 134_502_112


@pytest.mark.parametrize("for_onednn", [False, True])
@pytest.mark.parametrize("arch", [SMALL, Architecture(21, 0.25, 64)])
def test_names_and_shapes_are_the_architectures(device, arch, for_onednn):
    assert list(shapes(FCN8s(arch, for_onednn)).items()) == list(parameter_shapes(arch).items())


def test_names_are_the_original_projects():
    names = set(parameter_shapes(Architecture()))
    expected = ["conv1.0.weight", "conv1.1.gamma", "conv1.4.moving_mean", "conv5.6.weight", "conv6.0.weight"]
    expected += ["conv7.1.beta", "score_fr.weight", "upscore2.weight", "score_pool4.weight"]
    assert names.issuperset([*expected, "upscore_pool4.weight", "score_pool3.weight", "upscore8.weight"])


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_synchronised_batch_norm_has_the_same_parameters_in_float32(device, small_config, level):
    """As far as it goes without a device that can compute it."""
    config = small_config("sync_bn=true", f"amp_level={level}")
    net = build_network(config, replace(device, for_onednn=False))
    norms = [cell for _, cell in net.cells_and_names() if isinstance(cell, ms.nn.SyncBatchNorm)]
    assert len(norms) == 15
    assert list(shapes(net).items()) == list(parameter_shapes(config.architecture).items())
    assert {parameter.dtype for parameter in net.get_parameters()} == {ms.float32}


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 50), (5, 70)])
def test_any_image_size_comes_back(device, size):
    net = FCN8s(SMALL).set_train(False)
    assert net(ms.Tensor(np.zeros((2, 3, *size), np.float32))).shape == (2, 4, *size)


def test_padding_inside_equals_padding_outside(device):
    net = FCN8s(SMALL).set_train(False)
    image = np.random.default_rng(0).normal(size=(1, 3, 40, 60)).astype(np.float32)
    padded = np.zeros((1, 3, 64, 64), np.float32)
    padded[:, :, :40, :60] = image
    outside = net(ms.Tensor(padded)).asnumpy()[:, :, :40, :60]
    np.testing.assert_array_equal(net(ms.Tensor(image)).asnumpy(), outside)


def test_the_three_pools_are_fused(device):
    """Each head's weight changes the scores; without the fusion two of them would not."""
    ms.set_seed(1)
    net = FCN8s(SMALL).set_train(False)
    image = ms.Tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    before = net(image).asnumpy()
    for head in (net.score_fr, net.score_pool4, net.score_pool3):
        kept = head.weight.asnumpy().copy()
        head.weight.set_data(ms.Tensor(kept * 2))
        assert np.abs(net(image).asnumpy() - before).max() > 1e-4
        head.weight.set_data(ms.Tensor(kept))


@pytest.mark.parametrize(("name", "factor"), [("upscore2", 2), ("upscore8", 8)])
def test_bilinear_upsampling_interpolates_each_class_by_itself(device, name, factor):
    net = FCN8s(SMALL)
    start_as_in_the_paper(net)
    ramp = np.arange(8, dtype=np.float32)
    scores = np.zeros((1, 4, 8, 8), np.float32)
    scores[0, 2] = ramp[None, :] + 10 * ramp[:, None]
    result = getattr(net, name)(ms.Tensor(scores)).asnumpy()
    inside = slice(factor, -factor)  # at the border the zeros outside count
    fine = (np.arange(8 * factor) + 0.5) / factor - 0.5
    expected = (fine[None, :] + 10 * fine[:, None])[inside, inside]
    np.testing.assert_allclose(result[0, 2, inside, inside], expected, rtol=1e-4)
    assert not result[0, [0, 1, 3]].any()


def test_normalise(device):
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    expected = ((image - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        Normalise(mean, std)(ms.Tensor(image)).asnumpy(), expected, rtol=1e-5, atol=1e-6
    )


def cross_entropy(scores, labels, ignore=255):
    total = 0.0
    for n, y, x in np.argwhere(labels != ignore):
        s = scores[n, :, y, x].astype(np.float64)
        total += np.log(np.exp(s - s.max()).sum()) + s.max() - s[labels[n, y, x]]
    return total


def test_the_loss_is_the_sum_over_pixels_that_count(device):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 5, 6)).astype(np.float32) * 3
    labels = rng.choice([0, 1, 2, 3, 255], (2, 5, 6)).astype(np.uint8)
    value = PixelCrossEntropy(4, 255)(ms.Tensor(scores), ms.Tensor(labels)).asnumpy()
    assert value == pytest.approx(cross_entropy(scores, labels), rel=1e-5)


def test_a_pixel_counts_as_much_as_its_class(device):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], (2, 5, 6)).astype(np.uint8)
    weights = [0.0, 0.5, 1.0, 3.0]
    value = PixelCrossEntropy(4, 255, weights)(ms.Tensor(scores), ms.Tensor(labels)).asnumpy()
    expected = sum(
        weight * cross_entropy(scores, np.where(labels == label, labels, 255))
        for label, weight in enumerate(weights)
    )
    assert value == pytest.approx(expected, rel=1e-5)


def test_an_all_ignored_batch_adds_nothing(device):
    scores = ms.Tensor(np.ones((1, 4, 2, 2), np.float32))
    labels = ms.Tensor(np.full((1, 2, 2), 255, np.uint8))
    assert PixelCrossEntropy(4, 255)(scores, labels).asnumpy() == 0


@pytest.mark.parametrize("label", [4, 200, 254])
def test_a_label_that_is_no_class_is_not_passed_over(device, label):
    scores = ms.Tensor(np.ones((1, 4, 2, 2), np.float32))
    labels = ms.Tensor(np.array([[[0, 1], [label, 255]]], np.uint8))
    assert np.isnan(PixelCrossEntropy(4, 255)(scores, labels).asnumpy())
