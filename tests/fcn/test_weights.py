import numpy as np
import pytest

from fcn.architecture import VGG16_STAGES, Architecture, parameter_shapes
from fcn.errors import WeightsError

ms = pytest.importorskip("mindspore")

from fcn import weights  # noqa: E402
from fcn.model import FCN8s  # noqa: E402
from fcn.vgg16 import read_vgg16  # noqa: E402

SMALL = Architecture(num_classes=4, encoder_width=0.0625, fc_channels=8)


def small_vgg(path, skip=(), **extra):
    """A VGG16-BN file of the small encoder's shapes, random values."""
    rng = np.random.default_rng(0)
    arrays, inputs = {}, 3
    for stage, channels in enumerate(SMALL.stages, start=1):
        for layer, width in enumerate(channels, start=1):
            name = f"conv{stage}_{layer}"
            arrays[f"{name}.weight"] = rng.normal(size=(width, inputs, 3, 3)).astype(np.float16)
            for kind in ("gamma", "beta", "moving_mean", "moving_variance"):
                arrays[f"{name}.{kind}"] = rng.uniform(0.5, 1, width).astype(np.float16)
            inputs = width
    arrays = {name: array for name, array in {**arrays, **extra}.items() if name not in skip}
    np.savez(path, **arrays)
    return arrays


def test_a_vgg16_file_fills_the_encoder_and_nothing_else(tmp_path, device, small_config):
    arrays = small_vgg(tmp_path / "vgg.npz")
    net = FCN8s(SMALL)
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    (line,) = weights.initialise(net, small_config(f"ckpt_vgg16={tmp_path / 'vgg.npz'}"))
    assert "65 encoder parameters loaded" in line
    after = {p.name: p.asnumpy() for p in net.get_parameters()}
    np.testing.assert_array_equal(after["conv3.3.weight"], arrays["conv3_2.weight"].astype(np.float32))
    np.testing.assert_array_equal(
        after["conv5.7.moving_mean"], arrays["conv5_3.moving_mean"].astype(np.float32)
    )
    unchanged = [name for name in before if np.array_equal(before[name], after[name])]
    assert all(name.startswith(("conv6", "conv7", "score", "upscore")) for name in unchanged)
    assert len(unchanged) == len(before) - 65


def test_every_name_that_does_not_fit_is_listed_and_nothing_loaded(tmp_path, device, small_config):
    wrong = np.zeros((9, 9, 3, 3), np.float16)
    small_vgg(tmp_path / "vgg.npz", skip=["conv1_2.beta", "conv4_1.gamma"], **{"conv2_1.weight": wrong})
    net = FCN8s(SMALL)
    before = net.conv1[0].weight.asnumpy().copy()
    with pytest.raises(WeightsError) as error:
        weights.initialise(net, small_config(f"ckpt_vgg16={tmp_path / 'vgg.npz'}"))
    text = str(error.value)
    assert "2 missing: conv1.4.beta, conv4.1.gamma" in text
    assert "1 of another shape: conv2.0.weight (9, 9, 3, 3), needed (8, 4, 3, 3)" in text
    np.testing.assert_array_equal(net.conv1[0].weight.asnumpy(), before)


def test_a_file_of_other_names_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", **{"features.0.weight": np.zeros(1)})
    with pytest.raises(WeightsError, match=r"such as features\.0\.weight"):
        read_vgg16(tmp_path / "x.npz", SMALL)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "x.npz").write_text("text")
    with pytest.raises(WeightsError, match="not a readable .npz"):
        read_vgg16(tmp_path / "x.npz", SMALL)


def test_an_fcn8s_checkpoint_loads_without_its_heads(tmp_path, device, small_config):
    """As the original project writes it: momentum and counters beside the network, other classes in the
    heads.
    """
    other = FCN8s(Architecture(num_classes=7, encoder_width=0.0625, fc_channels=8))
    entries = [{"name": p.name, "data": p} for p in other.get_parameters()]
    entries += [{"name": f"moments.{p.name}", "data": p} for p in other.trainable_params()]
    entries += [
        {"name": name, "data": ms.Tensor([1.0])} for name in ("learning_rate", "momentum", "global_step")
    ]
    path = tmp_path / "FCN8s-1_1.ckpt"
    ms.save_checkpoint(entries, str(path))
    net = FCN8s(SMALL)
    with pytest.raises(WeightsError, match="of another shape: score_fr.weight"):
        weights.initialise(net, small_config(f"ckpt_pre_trained={path}"))
    (line,) = weights.initialise(net, small_config(f"ckpt_pre_trained={path}", "filter_weight=true"))
    assert "6 left out" in line
    np.testing.assert_array_equal(net.conv6[0].weight.asnumpy(), other.conv6[0].weight.asnumpy())


def test_the_real_vgg16_file_fits_the_full_encoder(shared_data):
    values = read_vgg16(shared_data / "vgg16_hed/vgg16bn_hed_fp16.npz", Architecture())
    needed = {n: s for n, s in parameter_shapes(Architecture()).items() if n < "conv6"}
    assert {name: value.shape for name, value in values.items()} == needed
    assert sum(map(len, VGG16_STAGES)) * 5 == len(values)
