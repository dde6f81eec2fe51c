"""What the trainer's tests share. Tests that need MindSpore run in this process, on one CPU device."""

import os
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # read when MindSpore is imported; see fcn.model
os.environ.setdefault("GLOG_v", "3")

import pytest  # noqa: E402

SMALL = ["num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32"]


@pytest.fixture(scope="session")
def device():
    from fcn import platform

    return platform.set_up()


@pytest.fixture
def small_config():
    """A configuration of a network that computes in milliseconds; overrides as `key=value`."""
    from fcn.config import load_config

    return lambda *overrides: load_config(None, [*SMALL, *overrides])[0]


@pytest.fixture(scope="session")
def shared_data():
    """Real images and weights that lie beside a developer's checkout; they are not part of the project."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images and weights in {folder}")
    return folder
