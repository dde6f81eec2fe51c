import pytest

from fcn.architecture import Architecture
from fcn.flops import forward_macs, training_flop


def test_the_published_networks_arithmetic():
    assert forward_macs(Architecture(), 512, 512) == pytest.approx(111.31e9, rel=1e-4)
    assert training_flop(Architecture(), 512) == pytest.approx(667.8e9, rel=1e-3)


def test_it_grows_with_the_pixels():
    arch = Architecture(4, 0.125, 32)
    assert forward_macs(arch, 64, 128) == 2 * forward_macs(arch, 64, 64)
