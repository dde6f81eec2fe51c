"""Batch norms made from biases, with statistics of images."""

from __future__ import annotations

import numpy as np
import pytest
from vgg16_files import compute_ours, in_layout, random_vgg

from fcn import calibrate
from fcn.architecture import Architecture
from fcn.data.listing import read_image
from fcn.vgg16 import read_vgg16

SMALL = Architecture(num_classes=4, encoder_width=0.0625, fc_channels=8)


@pytest.fixture
def plain(tmp_path, small_config):
    """A VGG16 with biases, read."""
    np.savez(tmp_path / "vgg.npz", **in_layout(random_vgg(SMALL, batch_norm=False), "torchvision"))
    return read_vgg16(tmp_path / "vgg.npz", small_config())


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(size=(3, 3, 64, 96)).astype(np.float32)


def with_statistics(vgg, images):
    moments = calibrate.observe(vgg.values, vgg.folded, images)
    return {**vgg.values, **calibrate.with_statistics(vgg.values, vgg.folded, moments.mean(axis=0))}


def test_the_statistics_are_those_of_the_images(plain, images):
    values = with_statistics(plain, images)
    found = [compute_ours(plain.values, image) for image in images]
    for layer, norm in [
        ("conv1_1", "conv1.1"),
        ("conv3_2", "conv3.4"),
        ("conv5_3", "conv5.7"),
        ("fc7", "conv7.1"),
    ]:
        bias = plain.values[f"{norm}.beta"]
        inputs = (
            np.concatenate([each[layer].reshape(len(bias), -1) for each in found], axis=1) - bias[:, None]
        )
        np.testing.assert_allclose(values[f"{norm}.moving_mean"], inputs.mean(axis=1), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            values[f"{norm}.moving_variance"], inputs.var(axis=1), rtol=1e-3, atol=1e-5
        )


def test_a_rank_may_have_no_image(plain, images):
    assert calibrate.observe(plain.values, plain.folded, images[:0]).shape == (0, 4 * 66 + 8 + 8, 2)


def test_the_network_still_computes_the_same(plain, images):
    values = with_statistics(plain, images)
    before, after = compute_ours(plain.values, images[0]), compute_ours(values, images[0])
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-3, atol=1e-4, err_msg=name)
    changed = [name for name in values if not np.array_equal(values[name], plain.values[name])]
    assert {name.split(".")[2] for name in changed} == {"moving_mean", "moving_variance", "gamma", "beta"}


def test_only_the_folded_are_changed(tmp_path, small_config, images):
    """fc6 and fc7 of a VGG16-BN have biases; its encoder keeps the statistics that it came with."""
    np.savez(tmp_path / "bn.npz", **in_layout(random_vgg(SMALL, batch_norm=True), "torchvision"))
    vgg = read_vgg16(tmp_path / "bn.npz", small_config())
    values = with_statistics(vgg, images)
    changed = {name[:5] for name in values if not np.array_equal(values[name], vgg.values[name])}
    assert changed == {"conv6", "conv7"}
    before, after = compute_ours(vgg.values, images[0]), compute_ours(values, images[0])
    np.testing.assert_allclose(after["fc7"], before["fc7"], rtol=1e-3, atol=1e-4)


def test_in_training_a_real_vgg16_keeps_its_features(shared_data, device):
    """Trained on the images of the statistics it sees the original's pool5; with the plain fold, another.

    On other images the batch's statistics differ from these, as batch norm has it.
    """
    import mindspore as ms

    from fcn.config import Config
    from fcn.model import FCN8s
    from fcn.weights import load_strictly

    config = Config(fc_channels=8)
    vgg = read_vgg16(shared_data / "vgg16_hed/vgg16_hed_fp16.npz", config)
    files = sorted((shared_data / "voc_animals/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))[:4]
    crops = np.array([read_image(file)[100:164, 100:164] for file in files])
    images = ((crops - np.array(config.image_mean)) / np.array(config.image_std)).transpose(0, 3, 1, 2)
    images = images.astype(np.float32)
    net = FCN8s(config.architecture)
    heads = [p.name for p in net.get_parameters() if p.name not in vgg.values]

    def pool5(values, training):
        load_strictly(net, values, "values", may_lack=heads)
        x = ms.Tensor(images)
        for stage in (net.conv1, net.conv2, net.conv3, net.conv4, net.conv5):
            x = net.pool(stage.set_train(training)(x))  # each is a graph of its own
        return x.asnumpy()

    original = pool5(vgg.values, training=False)

    def error(values):
        return np.linalg.norm(pool5(values, training=True) - original) / np.linalg.norm(original)

    assert error(with_statistics(vgg, images)) < 1e-3
    assert error(vgg.values) > 0.5
