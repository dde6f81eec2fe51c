"""With what a run goes on, and what is refused because it would end with another result."""

import shutil
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import pytest
import yaml
from data_samples import build

from fcn import checkpoint
from fcn.check_resume import EXTENDED, FREE, check_resume
from fcn.config import Config
from fcn.data.records import open_dataset
from fcn.errors import ConfigError, DataError, WeightsError

PLANNED, STEP = 4, 3  # devices; three steps an epoch


@pytest.fixture
def make_run(tmp_path, copy, small_config):
    """A run of four devices that was interrupted after its first epoch."""

    def make(*settings, **manifest):
        data = f"data_file={copy}/set.mindrecord"
        config = small_config("num_classes=8", "global_batch=4", "train_epochs=2", data, *settings)
        run = tmp_path / "run"
        (run / "checkpoints").mkdir(parents=True)
        record = {
            "config": config.model_dump(mode="json"),
            "options": {"world_size": PLANNED},
            "data": {"fingerprint": open_dataset(config.data_file).fingerprint},
        }
        (run / "run.yaml").write_text(yaml.safe_dump(record))
        described = {
            "architecture": {"model": config.model, **asdict(config.architecture)},
            "normalisation": config.normalisation,
            "seed": config.seed,
            "world_size": PLANNED,
            "global_batch": 4,
            "versions": {name: version(name) for name in ("mindspore", "numpy")},
            "onednn_max_cpu_isa": "AVX2",
            **manifest,
        }
        for step in (STEP - 1, STEP):
            values = {"weight": np.full(4, step, np.float32)}
            checkpoint.save(
                run / "checkpoints", f"FCN8s-1_{step}", values, values, {**described, "step": step}
            )
        return run

    return make


def lines(run, *overrides, world_size=PLANNED):
    return check_resume(run, overrides, world_size).lines


def test_without_a_change_there_is_nothing_to_say_but_where_it_goes_on(make_run):
    run = make_run()
    going = check_resume(run, (), PLANNED)
    assert (going.step, going.total_steps, going.planned) == (STEP, 6, PLANNED)
    assert going.lines == [f"goes on from {run}/checkpoints/FCN8s-1_3.ckpt, step 3 of 6"]


@pytest.mark.parametrize(
    "change", ["num_classes=9", "fc_channels=16", "base_lr=0.5", "seed=2", "crop_size=64", "global_batch=8"]
)
def test_what_changes_the_result_is_refused_by_name(make_run, change):
    key, value = change.split("=")
    with pytest.raises(ConfigError, match=f"{key}: {value} in place of .* changes the result"):
        lines(make_run(), change)


def test_all_that_is_refused_is_said_at_once(make_run):
    with pytest.raises(ConfigError) as refusal:
        lines(make_run(), "seed=2", "momentum=0.5", "save_steps=7", "train_epochs=1")
    named = [line.partition(":")[0] for line in str(refusal.value).splitlines()]
    assert named == ["momentum", "seed", "train_epochs"]


def test_what_is_free_can_be_changed(make_run):
    assert {*FREE, EXTENDED} <= set(Config.model_fields)
    going = check_resume(make_run(), ("save_steps=7", "keep_checkpoint_max=1", "data_workers=1"), PLANNED)
    assert (going.config.save_steps, len(going.lines)) == (7, 1)


def test_the_same_data_may_have_moved_and_others_are_refused(make_run, copy, tmp_path):
    run = make_run()
    moved = shutil.copytree(copy, tmp_path / "moved")
    assert check_resume(run, (f"data_file={moved}/set.mindrecord",), PLANNED).step == STEP
    (copy / "reversed.txt").write_text("\n".join(reversed((copy / "list.txt").read_text().split())))
    other = build(copy, copy / "reversed.txt", "other.mindrecord")
    with pytest.raises(DataError, match=r"other.mindrecord: is not the data set that .* was trained on"):
        lines(run, f"data_file={other.path}")


def test_more_epochs_stretch_the_learning_rate(make_run):
    (_, line) = lines(make_run("lr_schedule=poly", "base_lr=1", "lr_power=1"), "train_epochs=4")
    assert "train_epochs: 4 in place of 2: lr_schedule poly is stretched" in line
    assert "step 4 has learning rate 0.75 in place of 0.5" in line


def test_steps_of_the_learning_rate_stay(make_run):
    (_, line) = lines(make_run("lr_schedule=step", "lr_steps=[1]"), "train_epochs=4")
    assert "the learning rate stays" in line


def test_on_other_devices_it_is_said_what_is_no_longer_exact(make_run):
    run = make_run()
    (_, line) = lines(run, world_size=2)
    assert line.startswith("2 devices in place of 4: the same global batches")
    assert "each device with 2 slices of 1;" in line and "batch norm" in line
    with pytest.raises(ConfigError, match="4 samples cannot be shared evenly by 3 devices"):
        lines(run, world_size=3)


def test_other_versions_are_said(make_run):
    (_, line) = lines(make_run(versions={"mindspore": version("mindspore"), "numpy": "1.0"}))
    assert line.startswith(f"numpy {version('numpy')} in place of 1.0")


def test_a_damaged_checkpoint_is_passed_over_by_name_and_stays(make_run):
    run = make_run()
    newest = run / "checkpoints/FCN8s-1_3.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    going = check_resume(run, (), PLANNED)
    assert going.step == STEP - 1 and f"{newest}: has" in going.lines[0]
    assert newest.exists()
    for path in (run / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"")
    going = check_resume(run, (), PLANNED)
    assert going.step == 0 and going.lines[-1].endswith("no checkpoint to go on from: it begins at step 1")


def test_a_checkpoint_of_another_training_is_refused(make_run):
    with pytest.raises(WeightsError, match="FCN8s-1_3.ckpt: is of another training: seed 5, not 1"):
        lines(make_run(seed=5))
