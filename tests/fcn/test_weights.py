"""What a training starts from: a VGG16 in real networks and ranks; FCN-8s checkpoints, ours and foreign."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from fcn.architecture import BATCH_NORM_EPS, Architecture
from fcn.errors import ConfigError, WeightsError

ms = pytest.importorskip("mindspore")

from data_samples import build, write_samples  # noqa: E402
from ranks import train  # noqa: E402
from vgg16_files import compute, in_layout, random_vgg  # noqa: E402

from fcn import checkpoint, weights  # noqa: E402
from fcn.distributed import World  # noqa: E402
from fcn.model import FCN8s  # noqa: E402
from fcn.pretrained import check_pretrained  # noqa: E402

SMALL = Architecture(num_classes=4, encoder_width=0.0625, fc_channels=8)
HEADS = ["score_fr", "upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return build(folder, write_samples(folder, 8))


def values_of(net):
    return {parameter.name: parameter.asnumpy().copy() for parameter in net.get_parameters()}


def start(config, data=None, arch=SMALL):
    """A network that has been initialised, and the report."""
    net = FCN8s(arch)
    lines = weights.initialise(net, config, data, World())
    return net, "\n".join(lines)


def test_a_vgg16_computes_in_the_network_what_it_computes_elsewhere(tmp_path, device, small_config, data):
    layers = random_vgg(SMALL, batch_norm=False)
    np.savez(tmp_path / "vgg.npz", **in_layout(layers, "torchvision"))
    config = small_config("num_classes=8", f"ckpt_vgg16={tmp_path / 'vgg.npz'}")
    net, report = start(config, data, Architecture(8, 0.0625, 8))
    assert "75 parameters loaded: the encoder, fc6 and fc7" in report
    assert (
        "15 layers with biases became batch norms; their statistics are those of 8 training images" in report
    )
    assert "start anew: score_fr.weight, upscore2.weight" in report
    image = np.random.default_rng(1).normal(size=(3, 224, 224)).astype(np.float32)
    expected = compute(layers, image[::-1])  # the network's BGR is torchvision's RGB reversed
    x = ms.Tensor(image[None])
    for stage in (net.conv1, net.conv2, net.conv3, net.conv4, net.conv5):
        features = stage.set_train(False)(x)
        x = net.pool(features)
    np.testing.assert_allclose(
        features.asnumpy()[0], np.maximum(expected["conv5_3"], 0), rtol=1e-3, atol=1e-3
    )
    fc7 = net.conv7.set_train(False)(net.conv6.set_train(False)(x)).asnumpy()[0, :, 3, 3]
    np.testing.assert_allclose(fc7, np.maximum(expected["fc7"], 0), rtol=1e-3, atol=1e-3)


def test_the_networks_batch_norm_has_the_eps_that_was_folded(device):
    norms = [cell for _, cell in FCN8s(SMALL).cells_and_names() if isinstance(cell, ms.nn.BatchNorm2d)]
    assert len(norms) == 15 and {norm.eps for norm in norms} == {BATCH_NORM_EPS}


def test_nothing_is_loaded_of_a_file_that_does_not_fit(tmp_path, device, small_config):
    arrays = in_layout(random_vgg(SMALL, batch_norm=True), "torchvision")
    del arrays["features.41.weight"]
    np.savez(tmp_path / "vgg.npz", **arrays)
    net = FCN8s(SMALL)
    before = values_of(net)
    with pytest.raises(WeightsError, match=r"1 missing: features\.41\.weight"):
        weights.initialise(net, small_config(f"ckpt_vgg16={tmp_path / 'vgg.npz'}"), None, World())
    after = values_of(net)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_checkpoint_of_mindspore_is_a_vgg16_too(tmp_path, device, small_config):
    arrays = in_layout(random_vgg(SMALL, batch_norm=True, bias=False), "zoo")
    entries = {**arrays, **{f"moments.{name}": array for name, array in arrays.items()}}
    entries["global_step"] = np.array([5], np.int32)
    path = tmp_path / "vgg16_bn.ckpt"
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(v)} for n, v in entries.items()], str(path))
    net, report = start(
        small_config(f"ckpt_vgg16={path}", "fc_channels=16"), arch=Architecture(4, 0.0625, 16)
    )
    assert "VGG16-BN of the model zoo's names" in report and "refused by shape: classifier.0.weight" in report
    loaded = net.conv3[3].weight.asnumpy()
    np.testing.assert_array_equal(loaded, arrays["layers.17.weight"])


def test_ranks_start_equal_from_a_vgg16_with_biases(tmp_path, device, small_config, data):
    """Its statistics come from images that the ranks share out; one alone finds the same."""
    np.savez(tmp_path / "vgg.npz", **in_layout(random_vgg(SMALL, batch_norm=False), "caffe"))
    sets = ["num_classes=8", f"data_file={data.path}", "global_batch=4", "train_epochs=1", "freeze_bn=true"]
    config = small_config(*sets, f"ckpt_vgg16={tmp_path / 'vgg.npz'}", "base_lr=1e-30")
    alone = values_of(start(config, data, Architecture(8, 0.0625, 8))[0])
    first, second = train(tmp_path / "two", config.model_dump(), size=2)
    assert np.ptp(alone["conv5.7.moving_variance"]) > 0
    for name in [name for name in alone if name < "score"]:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        np.testing.assert_allclose(first[name], alone[name], rtol=1e-5, err_msg=name)


def original_names():
    """The network's parameters as the original project calls them, and which of them it trains."""
    names = []
    for stage, convolutions in enumerate((2, 2, 3, 3, 3, 1, 1), start=1):
        for index in range(convolutions):
            names.append(f"conv{stage}.{3 * index}.weight")
            kinds = ("moving_mean", "moving_variance", "gamma", "beta")
            names += [f"conv{stage}.{3 * index + 1}.{kind}" for kind in kinds]
    names += [f"{head}.weight" for head in HEADS]
    return names, [name for name in names if ".moving_" not in name]


def original_checkpoint(path, classes):
    """What its ModelCheckpoint writes: the network, a moment for each weight, three more of the optimizer."""
    net = FCN8s(Architecture(classes, 0.0625, 8))
    values = values_of(net)
    names, trained = original_names()
    assert set(names) == set(values)
    entries = {name: ms.Tensor(values[name]) for name in names}
    entries.update({"global_step": ms.Tensor([3], ms.int32), "momentum": ms.Tensor(0.9, ms.float32)})
    entries.update({f"moments.{name}": ms.Tensor(values[name]) for name in trained})
    entries["learning_rate"] = ms.Tensor(np.zeros(500, np.float32))
    assert len(entries) == 135
    ms.save_checkpoint([{"name": name, "data": value} for name, value in entries.items()], str(path))
    return values


def test_a_checkpoint_of_the_original_project_loads_whole(tmp_path, device, small_config):
    values = original_checkpoint(tmp_path / "FCN8s-1_3.ckpt", classes=4)
    net, report = start(small_config(f"ckpt_pre_trained={tmp_path / 'FCN8s-1_3.ckpt'}"))
    assert "81 parameters loaded" in report and "left out, start anew: nothing" in report
    loaded = values_of(net)
    assert all(np.array_equal(loaded[name], values[name]) for name in values)


def test_other_classes_are_refused_with_the_remedy_that_then_works(tmp_path, device, small_config):
    path = tmp_path / "FCN8s-1_3.ckpt"
    values = original_checkpoint(path, classes=7)
    config = small_config(f"ckpt_pre_trained={path}")
    for attempt in (lambda: start(config), lambda: check_pretrained(path, config)):
        with pytest.raises(
            WeightsError, match="predicts 7 classes, num_classes is 4; set filter_weight=true"
        ):
            attempt()
    net, report = start(small_config(f"ckpt_pre_trained={path}", "filter_weight=true"))
    assert "75 parameters loaded" in report
    assert "left out, start anew: score_fr.weight, upscore2.weight, score_pool4.weight" in report
    np.testing.assert_array_equal(net.conv6[0].weight.asnumpy(), values["conv6.0.weight"])
    with pytest.raises(WeightsError, match="num_classes is 4; set num_classes=7"):
        weights.read_checkpoint(str(path), config)


def test_a_filter_of_unknown_names_is_refused(tmp_path, device, small_config):
    path = tmp_path / "FCN8s-1_3.ckpt"
    original_checkpoint(path, classes=4)
    named = "filter_list=[moments.score_fr.weight, score_fr.weigth]"  # the original's list has moments too
    with pytest.raises(ConfigError, match=r"filter_list: the network has no score_fr\.weigth$"):
        start(small_config(f"ckpt_pre_trained={path}", "filter_weight=true", named))


def test_a_checkpoint_that_was_cut_anywhere_is_refused(tmp_path, device, small_config):
    """MindSpore loads one that was cut between two parameters without a word."""
    path = tmp_path / "FCN8s-1_3.ckpt"
    values = original_checkpoint(path, classes=4)
    whole = path.read_bytes()
    first_half = [{"name": n, "data": ms.Tensor(values[n])} for n in original_names()[0][:40]]
    ms.save_checkpoint(first_half, str(tmp_path / "half.ckpt"))
    boundary = (tmp_path / "half.ckpt").stat().st_size
    assert whole.startswith((tmp_path / "half.ckpt").read_bytes())
    config = small_config(f"ckpt_pre_trained={path}")
    path.chmod(0o644)
    for end, expected in [
        (boundary, "41 missing: conv4.3.weight"),
        (boundary + 7, "cannot read it"),
        (0, "cannot read it"),
    ]:
        path.write_bytes(whole[:end])
        for attempt in (lambda: start(config), lambda: check_pretrained(path, config)):
            with pytest.raises(WeightsError, match=expected):
                attempt()


def saved_as_trained(folder, net, config):
    """A checkpoint as the trainer writes it."""
    weights = {p.name: p.asnumpy() for p in net.get_parameters()}
    moments = {f"moments.{p.name}": np.zeros(p.shape, np.float32) for p in net.trainable_params()}
    manifest = {
        "step": 1,
        "architecture": {"model": config.model, **asdict(config.architecture)},
        "normalisation": config.normalisation,
    }
    return checkpoint.save(folder, "FCN8s-1_1", weights, moments, manifest)


def test_plain_mindspore_loads_a_checkpoint_of_ours(tmp_path, device, small_config):
    ms.set_seed(1)
    net = FCN8s(SMALL)
    path = saved_as_trained(tmp_path, net, small_config())
    ms.set_seed(2)
    other = FCN8s(SMALL)
    not_in_file, not_in_net = ms.load_param_into_net(other, ms.load_checkpoint(str(path)))
    assert not_in_file == []
    assert not [name for name in not_in_net if name in values_of(net)]
    ours, theirs = values_of(net), values_of(other)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_check_before_a_start_needs_only_the_manifest(tmp_path, device, small_config):
    config = small_config()
    path = saved_as_trained(tmp_path, FCN8s(SMALL), config)
    assert check_pretrained(path, config) == [
        f"ckpt_pre_trained: {path}: 81 parameters loaded",
        "  left out, start anew: nothing",
    ]
    with pytest.raises(WeightsError, match="predicts 4 classes, num_classes is 5"):
        check_pretrained(path, small_config("num_classes=5"))
    with pytest.raises(WeightsError, match=r"of another shape: conv6\.0\.weight \(8, 32, 7, 7\)"):
        check_pretrained(path, small_config("fc_channels=16"))
    with pytest.raises(WeightsError, match="trained with other settings"):
        check_pretrained(path, small_config("image_mean=[1, 2, 3]"))
    assert json.loads(path.with_suffix(".json").read_text())["architecture"]["num_classes"] == 4
