import json
import resource
import shutil

import numpy as np
import pytest
from checkpoints import arrays, save

from fcn import checkpoint, files
from fcn.checkpoint import manifest_of, state_of
from fcn.errors import SaveError, WeightsError
from fcn.tensor_files import ckpt


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back(tmp_path, device):
    path = save(tmp_path, 7)
    found = checkpoint.verify(path, to_resume=True)
    assert (path.name, found.step, found.manifest["size"]) == ("FCN8s-1_7.ckpt", 7, path.stat().st_size)
    values, description = checkpoint.load(path)
    assert {name: value.asnumpy().tolist() for name, value in values.items()} == {
        name: value.tolist() for name, value in arrays(7).items()
    }
    assert description["architecture"] == {"model": "FCN8s"}
    state = checkpoint.load_state(path)
    assert {name: value.tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in arrays(7, prefix="moments.").items()
    }
    assert names(tmp_path) == ["FCN8s-1_7.ckpt", "FCN8s-1_7.json", "FCN8s-1_7.state.safetensors"]


def test_the_file_is_what_mindspore_writes_itself(tmp_path, device):
    ms = pytest.importorskip("mindspore")
    rng = np.random.default_rng(0)
    values = {
        "conv6.0.weight": rng.normal(size=(300, 2, 7, 7)).astype(np.float32),
        "half": rng.normal(size=(200,)).astype(np.float16),
        "count": np.arange(70000, dtype=np.int32),
        "scalar": np.array(2.5, np.float32),
    }
    entries = [{"name": name, "data": ms.Tensor(value)} for name, value in values.items()]
    texts = {"fcn_meta": '{"épochs": 3}'}
    ms.save_checkpoint(entries, str(tmp_path / "theirs.ckpt"), append_dict=texts)
    assert b"".join(ckpt(values, texts)) == (tmp_path / "theirs.ckpt").read_bytes()


def test_the_oldest_are_deleted_and_all_but_two_states(tmp_path):
    for step in (1, 2, 3, 10, 11):
        save(tmp_path, step, keep=3)
    assert [path.name for path in checkpoint.listed(tmp_path)] == [
        "FCN8s-1_11.ckpt",
        "FCN8s-1_10.ckpt",
        "FCN8s-1_3.ckpt",
    ]
    assert len(names(tmp_path)) == 3 + 3 + 2
    assert not state_of(tmp_path / "FCN8s-1_3.ckpt").exists()


def test_permanent_ones_stay_and_do_not_count(tmp_path):
    for step in range(1, 8):
        save(tmp_path, step, keep=2, permanent=step in (2, 4))
    assert [path.stem for path in checkpoint.listed(tmp_path)] == [f"FCN8s-1_{s}" for s in (7, 6, 4, 2)]


def test_nothing_is_deleted_before_its_successor_verifies(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"FCN8s-1_2\.ckpt: has"):
        checkpoint.retire(path, keep=1)
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1


def test_one_whose_manifest_does_not_read_back_replaces_nothing(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    manifest_of(path).write_text("{")
    with pytest.raises(WeightsError, match=r"FCN8s-1_2\.json: no usable manifest"):
        checkpoint.retire(path, keep=1)
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1


def test_a_damaged_one_stays_until_the_one_that_replaces_it_is_written(tmp_path, monkeypatch):
    manifest_of(save(tmp_path, 1)).unlink()
    before = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full_disk)
        with pytest.raises(SaveError):
            save(tmp_path, 1)
    assert names(tmp_path) == before
    save(tmp_path, 1)
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1


def test_a_limit_of_the_system_is_told_and_leaves_no_rest(tmp_path):
    save(tmp_path, 1)
    before = names(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(SaveError, match=r"FCN8s-1_2\.ckpt: not saved: File too large"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == before


def full_disk(*args):
    raise OSError(28, "No space left on device")


def test_a_run_that_went_back_behind_a_damaged_one_keeps_what_it_saves_then(tmp_path):
    for step in (5, 10):
        save(tmp_path, step)
    truncate(tmp_path / "FCN8s-1_10.ckpt")
    save(tmp_path, 6, keep=1)
    found, damaged = checkpoint.newest(tmp_path, to_resume=True)
    assert (found.step, len(damaged)) == (6, 1)
    assert [path.stem for path in checkpoint.listed(tmp_path)] == ["FCN8s-1_10", "FCN8s-1_6"]


@pytest.mark.parametrize(
    "where", [(files.os, "fsync"), (checkpoint, "write_atomic")], ids=["data", "manifest"]
)
def test_a_save_that_fails_leaves_the_older_ones_and_no_rest(tmp_path, monkeypatch, where):
    save(tmp_path, 1)
    before = names(tmp_path)
    monkeypatch.setattr(*where, full_disk)
    with pytest.raises(SaveError, match=r"FCN8s-1_2\.ckpt: not saved: No space left on device, .* needed"):
        save(tmp_path, 2, keep=1)
    assert names(tmp_path) == before
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def remove(path):
    path.unlink()


def foreign(path):
    """The file of another checkpoint in its place."""
    shutil.copyfile(str(path).replace("1_2", "1_1"), path)


@pytest.mark.parametrize(
    "which", [lambda path: path, state_of, manifest_of], ids=["ckpt", "state", "manifest"]
)
@pytest.mark.parametrize("damage", [flip, truncate, remove, foreign])
def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(tmp_path, which, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(which(newest))
    with pytest.raises(WeightsError, match="FCN8s-1_2"):
        checkpoint.verify(newest, to_resume=True)
    found, damaged = checkpoint.newest(tmp_path, to_resume=True)
    assert found.step == 1
    if newest.exists():
        assert len(damaged) == 1 and "FCN8s-1_2" in damaged[0]


def test_weights_can_be_scored_where_the_state_is_damaged(tmp_path):
    save(tmp_path, 1)
    truncate(state_of(save(tmp_path, 2)))
    assert checkpoint.newest(tmp_path)[0].step == 2
    assert checkpoint.newest(tmp_path, to_resume=True)[0].step == 1


def test_one_saved_without_its_state_is_not_gone_on_from(tmp_path):
    checkpoint.save(tmp_path, "FCN8s-1_1", arrays(1), None, {"step": 1})
    assert checkpoint.newest(tmp_path)[0].step == 1
    found, damaged = checkpoint.newest(tmp_path, to_resume=True)
    assert found is None and "without the state" in damaged[0]


def test_a_manifest_that_says_too_little_is_refused(tmp_path):
    newest = save(tmp_path, 2)
    manifest_of(newest).write_text(json.dumps({"step": 2, "size": 1}))
    with pytest.raises(WeightsError, match="no usable manifest"):
        checkpoint.verify(newest)


def test_an_unreadable_file_is_refused(tmp_path, device):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="cannot read it"):
        checkpoint.load(path)
