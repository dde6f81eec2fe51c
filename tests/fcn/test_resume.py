"""A training that was interrupted ends with the bits of one that was not."""

import json

import numpy as np
import pytest

pytest.importorskip("mindspore")

from trainings import run, state_of  # noqa: E402

from fcn.errors import DataError  # noqa: E402

EVERYTHING = ["ema_decay=0.9", "accumulate_steps=2", "amp_level=O2", "dynamic_loss_scale=true", "clip_norm=1"]


class StopAfter:
    """A request to leave that comes before the trainer asks for the n-th time: in step n."""

    def __init__(self, step, done):
        self.step, self.done = step, done

    @property
    def asked(self):
        self.done += 1
        return self.done == self.step


@pytest.mark.parametrize("settings", [[], EVERYTHING], ids=["plain", "everything"])
def test_it_goes_on_to_the_same_bits(make_trainer, tmp_path, settings):
    """Interrupted in mid-epoch and at the end of one: two steps an epoch."""
    settings = ["global_batch=2", "train_epochs=3", "crop_size=96", *settings]
    states, straight = run(make_trainer, *settings)
    (tmp_path / "run").rename(tmp_path / "straight")
    losses = []
    for stop_at in (1, 4, None):
        trainer = make_trainer(*settings)
        done = trainer.start_step
        trainer.stop = StopAfter(stop_at, done)
        trainer.status.send = lambda event, **fields: losses.append(fields.get("loss"))
        assert trainer.run() == (0 if stop_at is None else 75)
        assert done == {1: 0, 4: 1, None: 4}[stop_at]
    assert [loss for loss in losses if loss is not None] == straight.status.losses
    last = state_of(trainer)
    assert last.keys() == states[-1].keys()
    for name, value in states[-1].items():
        np.testing.assert_array_equal(value, last[name], err_msg=name)
    assert trainer.steps.loss_scale == straight.steps.loss_scale


def test_a_damaged_checkpoint_is_passed_over_by_name(make_trainer, capsys):
    run(make_trainer, "train_epochs=2", "save_steps=1")
    trainer = make_trainer("train_epochs=3", "save_steps=1")
    assert trainer.start_step == 2
    newest = trainer.folder / "FCN8s-2_1.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    assert make_trainer("train_epochs=3", "save_steps=1").start_step == 1
    assert "FCN8s-2_1.ckpt: has" in capsys.readouterr().out
    assert newest.exists()


def test_another_data_set_is_refused(make_trainer):
    from fcn.files import seal

    _, trainer = run(make_trainer, "train_epochs=1")
    (manifest,) = trainer.folder.glob("*.json")
    content = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "checksum"}
    manifest.write_text(json.dumps(seal({**content, "data_fingerprint": "another"})))
    with pytest.raises(DataError, match="is not the data set that .* was trained on"):
        make_trainer("train_epochs=2")
