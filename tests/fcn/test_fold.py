"""Batch norm folded into the convolutions: the same function."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from fcn.architecture import Architecture, parameter_shapes  # noqa: E402
from fcn.errors import WeightsError  # noqa: E402
from fcn.fold import fold  # noqa: E402
from fcn.model import FCN8s, Shift  # noqa: E402
from fcn.network import inference_network, set_inference_weights  # noqa: E402
from fcn.platform import CPU  # noqa: E402
from fcn.weights import load_strictly  # noqa: E402


def drawn(arch, seed=0):
    """Parameters with batch norms that do something, and activations that neither die nor explode."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in parameter_shapes(arch).items():
        if name.endswith(".weight"):
            spread = np.sqrt(2 / np.prod(shape[1:]))
            values[name] = rng.normal(0, spread, shape)
        elif name.endswith((".gamma", ".moving_variance")):
            values[name] = rng.uniform(0.3, 3.0, shape)
        else:
            values[name] = rng.normal(0, 0.5, shape)
    return {name: value.astype(np.float32) for name, value in values.items()}


@pytest.mark.parametrize(
    "arch", [Architecture(4, 0.0625, 8), Architecture(5, 0.125, 16, skip_scales=(0.01, 0.0001))]
)
def test_scores_are_those_of_the_network_with_batch_norm(device, arch):
    values = drawn(arch)
    trained = FCN8s(arch).set_train(False)
    load_strictly(trained, values, "drawn")
    folded = FCN8s(arch, norm=Shift).set_train(False)
    load_strictly(folded, fold(values, arch, "drawn"), "folded")
    image = ms.Tensor(np.random.default_rng(1).normal(size=(2, 3, 40, 70)).astype(np.float32))
    expected, scores = trained(image).asnumpy(), folded(image).asnumpy()
    assert np.abs(scores - expected).max() < 1e-5 * np.abs(expected).max()
    best = np.sort(expected, axis=1)
    decided = best[:, -1] - best[:, -2] > 1e-4 * np.abs(expected).max()
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(scores.argmax(1)[decided], expected.argmax(1)[decided])


def test_a_channel_without_variance_stays_finite():
    arch = Architecture(4, 0.0625, 8)
    values = drawn(arch)
    values["conv1.1.moving_variance"][:] = 0
    assert all(np.isfinite(value).all() for value in fold(values, arch, "drawn").values())


def test_what_was_given_is_left_as_it_was():
    arch = Architecture(4, 0.0625, 8)
    values, same = drawn(arch), drawn(arch)
    fold(values, arch, "drawn")
    for name, value in values.items():
        np.testing.assert_array_equal(value, same[name])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda values: values.pop("conv6.1.moving_mean"), "1 missing: conv6.1.moving_mean"),
        (lambda values: values.update(x=np.zeros(3)), "1 unexpected: x"),
        (lambda values: values.update({"conv7.1.beta": np.zeros(9)}), "conv7.1.beta (9,), needed (8,)"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_trained_name(device, small_config, change, expected):
    config = small_config()
    values = drawn(config.architecture)
    change(values)
    net = inference_network(config, CPU)
    before = net.conv1[0].weight.asnumpy().copy()
    with pytest.raises(WeightsError, match="some.ckpt: does not fit this network") as error:
        set_inference_weights(net, values, config, "some.ckpt")
    assert expected in str(error.value)
    np.testing.assert_array_equal(net.conv1[0].weight.asnumpy(), before)
