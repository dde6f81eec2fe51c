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
    write_checkpoint(run.path / "checkpoints")
    write_checkpoint(run.path / "checkpoints" / "best")
    return run


def write_checkpoint(folder):
    folder.mkdir(exist_ok=True)
    (folder / "FCN8s-1_1.ckpt").write_bytes(b"weights")
    (folder / "FCN8s-1_1.json").write_text(json.dumps({"step": 1, "size": len(b"weights")}))


@pytest.fixture
def find(tmp_path, run):
    def find(run_name=None, ckpt=None, best=False, config=None, overrides=(), cluster=None):
        settings = Settings(cluster, str(tmp_path / "runs"))
        return find_trained(settings, run_name, ckpt, best, config, overrides)

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


def test_a_configuration_that_names_a_checkpoint_is_used_as_ckpt_is(find, run, tmp_path):
    named, other = tmp_path / "named.yaml", tmp_path / "other.yaml"
    named.write_text("ckpt_file: x.ckpt\n")
    other.write_text("flip: true\n")
    for trained in (find(config=str(named)), find(overrides=("ckpt_file=x.ckpt",))):
        assert trained.arguments == ["--set=ckpt_file=x.ckpt"]
        assert trained.cluster.world_size == 1
    with pytest.raises(UserError, match=r"--run and ckpt_file x\.ckpt of the configuration .*: give one"):
        find(run.path.name, config=str(named))
    assert find(ckpt="y.ckpt", config=str(named)).arguments == ["--set=ckpt_file=y.ckpt"]
    of_run = ["--run", str(run.path), "--checkpoints", f"{run.path}/checkpoints"]
    assert find(config=str(other)).arguments == of_run
    assert find(run.path.name, config=str(named), overrides=("ckpt_file=",)).arguments == of_run


@pytest.mark.parametrize("name", ["FCN8s-1_1.ckpt", "best/FCN8s-1_1.ckpt"])
def test_the_checkpoint_is_looked_for_in_the_folder_that_is_asked_for(find, run, name):
    (run.path / "checkpoints" / name).unlink()
    lacking = name.startswith("best")
    assert find(best=not lacking).arguments[:2] == ["--run", str(run.path)]
    with pytest.raises(UserError, match=f"has no {'best ' if lacking else ''}checkpoint yet"):
        find(best=lacking)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ckpt": "x.ckpt", "run_name": "y"}, "--run and --ckpt: give one of them"),
        ({"ckpt": "x.ckpt", "best": True}, "--best and --ckpt: give one of them"),
        ({"ckpt": "x.ckpt", "overrides": ("ckpt_file=y.ckpt",)}, "--ckpt and --set ckpt_file: give one"),
        (
            {"run_name": "y", "overrides": ("ckpt_file=x.ckpt",)},
            r"--run and ckpt_file x\.ckpt of the configuration \(`--set ckpt_file=` leaves it out\)",
        ),
        ({"best": True, "overrides": ("ckpt_file=x.ckpt",)}, "--best and ckpt_file x.ckpt"),
        ({"run_name": "other"}, "other: no run directory"),
    ],
)
def test_what_contradicts_is_refused(find, options, expected):
    with pytest.raises(UserError, match=expected):
        find(**options)
