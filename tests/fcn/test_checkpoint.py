import json

import numpy as np
import pytest

from fcn import checkpoint
from fcn.errors import WeightsError

ms = pytest.importorskip("mindspore")


def save(folder, step, keep=10):
    parameters = [("conv1.0.weight", ms.Parameter(np.full((4, 3), step, np.float32), name="conv1.0.weight"))]
    manifest = {"step": step, "epoch": 1, "architecture": {"model": "FCN8s"}}
    return checkpoint.save(folder, f"FCN8s-1_{step}", parameters, manifest, keep)


def test_what_is_saved_comes_back(tmp_path, device):
    path = save(tmp_path, 7)
    found = checkpoint.verify(path)
    assert (path.name, found.step, found.manifest["size"]) == ("FCN8s-1_7.ckpt", 7, path.stat().st_size)
    values, description = checkpoint.load(path)
    assert list(values) == ["conv1.0.weight"]
    assert values["conv1.0.weight"].asnumpy().tolist() == [[7.0] * 3] * 4
    assert description["architecture"] == {"model": "FCN8s"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["FCN8s-1_7.ckpt", "FCN8s-1_7.json"]


def test_plain_mindspore_loads_it(tmp_path, device):
    assert "conv1.0.weight" in ms.load_checkpoint(str(save(tmp_path, 1)))


def test_the_oldest_are_deleted(tmp_path, device):
    for step in (1, 2, 10, 11):
        save(tmp_path, step, keep=2)
    assert [path.name for path in checkpoint.listed(tmp_path)] == ["FCN8s-1_11.ckpt", "FCN8s-1_10.ckpt"]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_save_that_fails_leaves_the_older_ones(tmp_path, device, monkeypatch):
    save(tmp_path, 1)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path)[0].step == 1


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def remove(path):
    path.unlink()


def foreign_manifest(path):
    path.with_suffix(".json").write_text(json.dumps({"step": 2, "size": 1}))


@pytest.mark.parametrize("damage", [flip, truncate, remove, foreign_manifest])
def test_a_damaged_checkpoint_is_named_and_the_older_one_taken(tmp_path, device, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest)
    with pytest.raises(WeightsError, match="FCN8s-1_2"):
        checkpoint.verify(newest)
    found, damaged = checkpoint.newest(tmp_path)
    assert found.step == 1
    assert len(damaged) == 1 and "FCN8s-1_2" in damaged[0]


def test_an_unreadable_file_is_refused(tmp_path, device):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="cannot read it"):
        checkpoint.load(path)
