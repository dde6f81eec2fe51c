"""Saving in the background: real files, a stand-in for MindSpore's parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from checkpoints import arrays

from fcn import checkpoint, saver
from fcn.checkpoint import state_of
from fcn.errors import SaveError
from fcn.saver import BEST, Saver
from fcn.status import Status

HERE = Path(__file__).resolve().parent
END_S = 60


class Value:
    """What the saver needs of a parameter."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def asnumpy(self):
        return self.values


class Heard(Status):
    """What was reported."""

    def __init__(self):
        self.events = []

    def send(self, event, **fields):
        self.events.append({"event": event, **fields})

    def of(self, event):
        return [one for one in self.events if one["event"] == event]


class Training:
    """A saver with the values that it saves; `set` is a step."""

    def __init__(self, folder, keep=3, **options):
        self.status = Heard()
        self.weights = [Value(name, values) for name, values in arrays(0).items()]
        self.state = [Value(name, values) for name, values in arrays(0, prefix="moments.").items()]
        self.saver = Saver(folder, self.weights, self.state, keep, self.status, **{"writes": True, **options})

    def save(self, step, regular=True, **options):
        for one in (*self.weights, *self.state):
            one.values[...] = step
        self.saver.save(step, f"FCN8s-1_{step}", {"step": step, "permanent": False}, regular, **options)


@pytest.fixture
def gate(monkeypatch):
    """Saves wait for it before they write."""
    opened, write = threading.Event(), checkpoint.save

    def save(*args):
        assert opened.wait(END_S)
        return write(*args)

    monkeypatch.setattr(checkpoint, "save", save)
    yield opened
    opened.set()


def values_of(path):
    return {float(value) for values in checkpoint.load_state(path).values() for value in values.flat}


def test_training_goes_on_and_what_is_saved_is_of_that_moment(tmp_path, gate):
    training = Training(tmp_path)
    training.save(1)
    for one in (*training.weights, *training.state):
        one.values[...] = 77
    training.saver.tell()
    assert not training.status.of("checkpoint")
    gate.set()
    training.saver.finish(stay=True)
    found, _ = checkpoint.newest(tmp_path, to_resume=True)
    assert found.step == 1 and values_of(found.path) == {1.0}
    assert b"\x00\x00\x80\x3f" * 6 in found.path.read_bytes()  # 1.0, the weights
    assert training.status.of("checkpoint") == [
        {"event": "checkpoint", "path": str(found.path), "step": 1},
    ]


def test_a_save_waits_for_the_one_before(tmp_path, gate):
    training = Training(tmp_path)
    training.save(1)
    threading.Timer(0.2, gate.set).start()
    training.save(2)
    training.saver.finish(stay=True)
    assert [one["step"] for one in training.status.of("checkpoint")] == [1, 2]


def test_one_that_would_keep_the_other_ranks_waiting_too_long_is_left_out(
    tmp_path, gate, monkeypatch, capsys
):
    monkeypatch.setattr(saver, "WAIT_S", 0.1)
    training = Training(tmp_path)
    training.save(1)
    training.save(2)
    (event,) = training.status.of("save_failed")
    assert "FCN8s-1_2.ckpt: not saved: the save before it" in event["message"]
    assert event["message"] in capsys.readouterr().out
    gate.set()
    training.saver.finish(stay=True)
    assert [path.stem for path in checkpoint.listed(tmp_path)] == ["FCN8s-1_1"]


def test_the_last_one_is_never_left_out(tmp_path, gate, monkeypatch):
    monkeypatch.setattr(saver, "WAIT_S", 0.0)
    training = Training(tmp_path)
    training.save(1)
    threading.Timer(0.2, gate.set).start()
    training.save(2, last=True)
    training.saver.finish(stay=True)
    assert [path.stem for path in checkpoint.listed(tmp_path)] == ["FCN8s-1_2", "FCN8s-1_1"]


def test_the_best_one_is_kept_apart_without_its_state(tmp_path):
    training = Training(tmp_path)
    for step, score in ((1, 0.3), (2, 0.5), (3, 0.4), (4, None)):
        training.save(step, regular=step > 2, score=score)
    training.saver.finish(stay=True)
    (best,) = checkpoint.listed(tmp_path / BEST)
    assert checkpoint.verify(best).manifest["best_mean_iou"] == 0.5
    assert best.name == "FCN8s-1_2.ckpt" and not state_of(best).exists()
    assert [path.stem for path in checkpoint.listed(tmp_path)] == ["FCN8s-1_4", "FCN8s-1_3"]


def test_the_best_one_is_the_only_one_in_its_folder(tmp_path):
    """Also where a run fell back behind it, and scores more at an earlier step."""
    before = Training(tmp_path)
    before.save(9, regular=False, score=0.5)
    before.saver.finish(stay=True)
    again = Training(tmp_path)
    again.save(7, regular=False, score=0.6)
    again.saver.finish(stay=True)
    assert [path.stem for path in checkpoint.listed(tmp_path / BEST)] == ["FCN8s-1_7"]


def test_a_best_one_that_could_not_be_written_is_not_the_best(tmp_path, monkeypatch):
    training = Training(tmp_path)
    training.save(1, regular=False, score=0.3)
    training.saver.finish(stay=True)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full_disk)
        training.save(2, regular=False, score=0.5)
        training.saver.finish(stay=False)
    training.save(3, regular=False, score=0.4)
    training.saver.finish(stay=True)
    assert [path.stem for path in checkpoint.listed(tmp_path / BEST)] == ["FCN8s-1_3"]


def test_who_goes_on_knows_the_best_one_by_itself(tmp_path):
    """The last regular one was saved before the score: killed then, with evaluations at other steps later."""
    training = Training(tmp_path)
    for step, score in ((1, 0.4), (2, 0.5)):
        training.save(step)
        training.save(step, regular=False, score=score)
    training.saver.close()
    training = Training(tmp_path)
    training.save(3, regular=False, score=0.45)
    training.saver.finish(stay=True)
    assert [path.stem for path in checkpoint.listed(tmp_path / BEST)] == ["FCN8s-1_2"]


def test_a_best_one_that_is_damaged_is_none(tmp_path):
    training = Training(tmp_path)
    training.save(1, regular=False, score=0.5)
    training.saver.close()
    (tmp_path / BEST / "FCN8s-1_1.ckpt").write_bytes(b"")
    training = Training(tmp_path)
    training.save(2, regular=False, score=0.45)
    training.saver.finish(stay=True)
    assert checkpoint.newest(tmp_path / BEST)[0].step == 2


def test_what_failed_is_tried_again_with_the_next_save_of_its_step(tmp_path, monkeypatch):
    """A training saves, evaluates, and then saves the best."""
    training = Training(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full_disk)
        training.save(1)
        training.saver.finish(stay=False)
    assert training.saver.has_failed
    training.save(1, regular=False, score=0.5)
    training.saver.finish(stay=True)
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1
    assert checkpoint.newest(tmp_path / BEST)[0].step == 1


def test_other_ranks_write_nothing(tmp_path):
    training = Training(tmp_path / "none", writes=False)
    training.save(1)
    training.saver.finish(stay=True)
    training.saver.close()
    assert not (tmp_path / "none").exists() and not training.status.events


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    training = Training(tmp_path / "none")
    training.save(float("nan"))
    with pytest.raises(FloatingPointError, match=r"4 parameters are not finite"):
        training.saver.finish(stay=True)
    assert not (tmp_path / "none").exists()


def full_disk(folder, name, *_):
    raise SaveError(f"{folder / name}.ckpt: not saved: No space left on device, 5.0 MB more are needed")


def test_a_last_save_that_fails_for_good_fails_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "RETRY_S", 0.1)
    monkeypatch.setattr(saver, "RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(checkpoint, "save", full_disk)
    training = Training(tmp_path)
    training.save(1, last=True)
    with pytest.raises(SaveError, match="No space left on device"):
        training.saver.finish(stay=True)
    assert len(training.status.of("save_failed")) == 1


def test_who_was_asked_to_leave_does_not_wait_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full_disk)
    training = Training(tmp_path)
    training.save(1, last=True)
    training.saver.finish(stay=False)
    assert len(training.status.of("save_failed")) == 1


def test_a_full_disk_and_a_read_only_one(tmp_path):
    """A small disk of its own; see the program for what happens to it."""
    program = [sys.executable, str(HERE / "full_disk_program.py"), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace of one's own is allowed here (unshare --mount)")
    done = subprocess.run(
        ["unshare", "--mount", *program], env=env, capture_output=True, text=True, timeout=END_S
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["after_full"] == {"newest": 2, "rest": []}
    (failed,) = seen["failed"]
    assert failed.startswith(str(tmp_path))
    assert "FCN8s-1_3.ckpt: not saved: No space left on device, " in failed
    assert (
        seen["missing_mb"][0] <= float(failed.split("device, ")[1].split(" MB")[0]) <= seen["missing_mb"][1]
    )
    assert seen["at_end"] == {"newest": 4, "damaged": []}
    assert "FCN8s-1_5.ckpt: not saved: Read-only file system; earlier" in seen["read_only"]["failed"]
    assert seen["read_only"]["newest"] == 4
