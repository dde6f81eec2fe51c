"""The CPU's convolutions, against nn.Conv2d: the same results and the same gradients."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from fcn.onednn import convolution  # noqa: E402


class Product(ms.nn.Cell):
    def __init__(self, cell, factors):
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.factors = ms.Tensor(factors)

    def construct(self, x):
        return (self.cell(x) * self.factors).sum()


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_results_and_gradients_are_the_convolutions(device, kernel):
    rng = np.random.default_rng(0)
    x = ms.Tensor(rng.normal(size=(2, 5, 9, 8)).astype(np.float32))
    weight = ms.Tensor(rng.normal(size=(6, 5, kernel, kernel)).astype(np.float32))
    factors = rng.normal(size=(2, 6, 9, 8)).astype(np.float32)  # nothing cancels or is the same twice
    results = []
    for cell in (ms.nn.Conv2d(5, 6, kernel, pad_mode="same"), convolution(5, 6, kernel)):
        cell.weight.set_data(weight)
        assert [p.name for p in cell.trainable_params()] == ["weight"]
        to_value = ms.value_and_grad(Product(cell, factors), 0, cell.trainable_params())
        value, (to_input, to_weight) = to_value(x)
        results.append([a.asnumpy() for a in (cell(x), value, to_input, to_weight[0])])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
