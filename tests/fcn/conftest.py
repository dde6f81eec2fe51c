"""What the trainer's tests share. Tests that need MindSpore run in this process, on one CPU device."""

import os
import shutil
import sys
from itertools import count
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # as the launcher sets it, before MindSpore is imported
os.environ.setdefault("GLOG_v", "3")
if sys.argv[0] == "-c":  # a process of pytest-xdist; MindSpore's compile cache reads the program's file
    sys.argv[0] = __file__

import pytest  # noqa: E402

SMALL = ["num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32"]


@pytest.fixture(scope="session")
def device():
    from fcn import platform

    return platform.set_up()


@pytest.fixture
def small_config():
    """A configuration of a network that computes in milliseconds; overrides as `key=value`."""
    from fcn.config_file import load_config

    return lambda *overrides: load_config(None, [*SMALL, *overrides])[0]


@pytest.fixture(scope="session")
def shared_data():
    """Real images and weights that lie beside a developer's checkout; they are not part of the project."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images and weights in {folder}")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a list of 13 samples, and a data set of 3 shards in it."""
    from data_samples import SAMPLES, build, write_samples

    folder = tmp_path_factory.mktemp("data")
    build(folder, write_samples(folder, SAMPLES), shards=3)
    return folder


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """That root again, to be changed or damaged."""
    return Path(shutil.copytree(root, tmp_path / "copy"))


@pytest.fixture
def make_trainer(tmp_path, device, small_config):
    """A trainer with one step of all samples an epoch, unless told otherwise; overrides as `key=value`.

    Each in a run directory of its own, as it would go on from what it finds; `folder` names one.
    """
    from data_samples import build, write_samples
    from trainings import EPOCHS, trainer

    from fcn.platform import CPU

    numbers = count(1)

    def make(*overrides, platform=CPU, status=None, folder=None):
        data = tmp_path / "data"
        if not data.exists():
            build(data, write_samples(data, 4))
        config = small_config(
            "num_classes=8",
            f"data_file={data}/set.mindrecord",
            "global_batch=4",
            f"train_epochs={EPOCHS}",
            "base_lr=0.1",
            *overrides,
        )
        run = tmp_path / (folder or f"run-{next(numbers)}")
        return trainer(config, run, platform, status)

    return make
