"""A training that was interrupted ends with the bits of one that was not."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore")

import ranks  # noqa: E402
from data_samples import build, write_samples  # noqa: E402
from trainings import run, state_of  # noqa: E402

from fcn.errors import DataError  # noqa: E402

PROGRAM = str(Path(ranks.__file__).with_name("rank_program.py"))
EVERYTHING = ["ema_decay=0.9", "accumulate_steps=2", "amp_level=O2", "dynamic_loss_scale=true", "clip_norm=1"]


class StopAfter:
    """A request to leave that comes before the trainer asks for the n-th time: in step n."""

    def __init__(self, step, done):
        self.step, self.done = step, done

    @property
    def asked(self):
        self.done += 1
        return self.done == self.step

    def agree_with_others(self):
        pass


@pytest.mark.parametrize("settings", [[], EVERYTHING], ids=["plain", "everything"])
def test_it_goes_on_to_the_same_bits(make_trainer, settings):
    """Interrupted in mid-epoch and at the end of one: two steps an epoch."""
    settings = ["global_batch=2", "train_epochs=3", "crop_size=96", *settings]
    states, straight = run(make_trainer, *settings)
    losses = []
    for stop_at in (1, 4, None):
        trainer = make_trainer(*settings, folder="cut")
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
    run(make_trainer, "train_epochs=2", "save_steps=1", folder="run")
    trainer = make_trainer("train_epochs=3", "save_steps=1", folder="run")
    assert trainer.start_step == 2
    newest = trainer.folder / "FCN8s-2_1.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    assert make_trainer("train_epochs=3", "save_steps=1", folder="run").start_step == 1
    assert "FCN8s-2_1.ckpt: has" in capsys.readouterr().out
    assert newest.exists()


def test_another_data_set_is_refused(make_trainer):
    from fcn.files import seal

    _, trainer = run(make_trainer, "train_epochs=1", folder="run")
    (manifest,) = trainer.folder.glob("*.json")
    content = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "checksum"}
    manifest.write_text(json.dumps(seal({**content, "data_fingerprint": "another"})))
    with pytest.raises(DataError, match="is not the data set that .* was trained on"):
        make_trainer("train_epochs=2", folder="run")


def test_what_is_no_longer_exact_is_said_by_who_goes_on(make_trainer, monkeypatch, capsys):
    """Also where no person has asked for it: a run goes on by itself with the devices that are left."""
    from fcn.files import seal

    trainer = make_trainer("train_epochs=2", folder="run")
    trainer.stop.asked = True
    assert trainer.run() == 75
    (manifest,) = trainer.folder.glob("*.json")
    content = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "checksum"}
    manifest.write_text(json.dumps(seal({**content, "world_size": 2})))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    capsys.readouterr()
    make_trainer("train_epochs=2", folder="run")
    said = capsys.readouterr().out
    assert "1 device in place of 2: " in said and "each device with 4; not to the last bit" in said
    assert "ONEDNN_MAX_CPU_ISA SSE41 in place of AVX2: may not give the same last bits" in said


def test_all_ranks_pass_over_a_damaged_checkpoint(tmp_path, small_config):
    """Two ranks go on from the older one, to the bits of a training that was not interrupted."""
    data = build(tmp_path, write_samples(tmp_path, 8)).path
    sets = ["num_classes=8", "crop_size=64", "global_batch=4", f"data_file={data}", "save_steps=1"]
    sets += ["lr_schedule=step", "lr_steps=[1]"]  # the same rates, however many epochs there are

    def trained(name, epochs):
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text(
            json.dumps(small_config(*sets, f"train_epochs={epochs}").model_dump())
        )
        ranks.run(out, [PROGRAM, str(out), str(out / "config.json")], size=2)
        return [dict(np.load(out / f"rank-{rank}.npz")) for rank in (0, 1)]

    straight = trained("straight", 3)
    trained("cut", 2)
    newest = tmp_path / "cut/checkpoints/FCN8s-2_2.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1])
    for one, other in zip(straight, trained("cut", 3)):
        assert other["losses"].tolist() == one["losses"][3:].tolist()
        for name in set(one) - {"losses", "scores"}:
            if ".moving_" not in name:  # each rank's own, and rank 0's count
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)
