"""The training step against an independent one in PyTorch: float64 is the truth, its float32 the measure."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mindspore")
torch = pytest.importorskip("torch", reason="PyTorch is the peer: pip install torch")

from benchmarks.exactness import PUBLISHED, TOY, Network, compare, draw, error, in_torch  # noqa: E402

pytestmark = pytest.mark.torch

NEAR = 1e-5
TIMES = 2.0
ROUNDING = 4 * np.finfo(np.float32).eps  # in a sum over a whole batch: batch norm's statistics


def test_no_less_exact_than_pytorch(device, small_config):
    result = compare(small_config(*TOY), device, draws=15)
    assert result.logits < NEAR
    assert result.losses < NEAR
    assert not {
        name: (ours, peers)
        for name, (ours, peers) in result.errors.items()
        if ours > max(TIMES * peers, ROUNDING if ".moving_" in name else 0.0)
    }


@pytest.mark.parametrize(
    "sets",
    [
        # Without batch norm's own rounding a single ReLU that falls the other way is all of the error.
        pytest.param((*TOY, "freeze_bn=true"), id="frozen batch norm"),
        pytest.param(PUBLISHED, id="published size", marks=pytest.mark.slow),
    ],
)
def test_one_training(device, small_config, sets):
    config = small_config(*sets)
    start = draw(config, seed=0)
    truth = in_torch(torch.float64, config, *start)
    ours = Network(config, device).train(*start)
    assert error(ours.logits, truth.logits) < NEAR
    np.testing.assert_allclose(ours.losses, truth.losses, rtol=NEAR)
    assert truth.losses[-1] < truth.losses[0]
    for name, exact in truth.gradients.items():
        assert error(ours.gradients[name], exact) < 2e-2, name
    for name, exact in truth.values.items():
        assert error(ours.values[name], exact) < 1e-4, name
