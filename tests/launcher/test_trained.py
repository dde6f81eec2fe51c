"""Which checkpoint and which devices the options of `eval`, `predict` and `export` choose."""

from __future__ import annotations

import json

import pytest

from launcher.cli.main import Settings
from launcher.cli.trained import find_trained
from launcher.cluster import load_cluster
from launcher.errors import UserError
from launcher.run import Run


@pytest.fixture
def run(tmp_path):
    """A run of `train` on two CPU workers that has a checkpoint."""
    run = Run.create(tmp_path / "runs", load_cluster("2xcpu.yaml"), "train", ["fcn-launch"])
    (run.path / "checkpoints" / "FCN8s-1_1.ckpt").write_bytes(b"weights")
    manifest = {"step": 1, "size": len(b"weights")}
    (run.path / "checkpoints" / "FCN8s-1_1.json").write_text(json.dumps(manifest))
    return run


@pytest.fixture
def find(tmp_path, run):
    def find(run_name=None, ckpt=None, best=False, overrides=(), cluster=None):
        return find_trained(Settings(cluster, str(tmp_path / "runs")), run_name, ckpt, best, overrides)

    return find


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("best", [False, True])
def test_a_runs_checkpoint_is_used_on_its_devices(find, run, by_name, best):
    trained = find(run.path.name if by_name else None, best=best)
    folder = f"{run.path}/checkpoints" + ("/best" if best else "")
    assert trained.arguments == ["--run", str(run.path), "--checkpoints", folder]
    assert trained.cluster.world_size == 2
    assert find(best=best, cluster="1xcpu.yaml").cluster.world_size == 1


def test_a_lone_file_is_used_on_one_cpu_unless_a_cluster_is_named(find):
    assert find(ckpt="x.ckpt").arguments == ["--set=ckpt_file=x.ckpt"]
    assert find(ckpt="x.ckpt").cluster.world_size == 1
    assert find(ckpt="x.ckpt", cluster="4xcpu.yaml").cluster.world_size == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ckpt": "x.ckpt", "run_name": "y"}, "--run and --ckpt: give one of them"),
        ({"ckpt": "x.ckpt", "best": True}, "--best and --ckpt: give one of them"),
        ({"overrides": ("ckpt_file=x.ckpt",)}, "name the checkpoint with --ckpt FILE"),
        ({"run_name": "other"}, "other: no run directory"),
    ],
)
def test_what_contradicts_is_refused(find, options, expected):
    with pytest.raises(UserError, match=expected):
        find(**options)
