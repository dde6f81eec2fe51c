"""The command line as a person uses it: real processes of `python -m launcher`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fcn_launch(*words, cwd):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launcher", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_help_names_every_verb(tmp_path):
    done = fcn_launch("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in ("train", "eval", "predict", "export", "bench", "config", "plan", "logs", "data"):
        assert f"  {verb} " in done.stdout
    assert "  discover " in done.stdout and "  doctor " in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--cluster", "8xascend910.yaml", "plan"]])
def test_no_framework_is_imported(words, tmp_path):
    program = (
        "import sys\nfrom launcher.cli.main import cli\n"
        f"cli.main({words!r}, standalone_mode=False)\n"
        "heavy = {'mindspore', 'numpy', 'cv2', 'fcn', 'rich', 'psutil', 'pydantic', 'launcher.catalogue'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["train"], 2, "no cluster is named; write `fcn-launch --cluster FILE VERB`"),
        (["--cluster", "2xcpu.yml", "train"], 2, "did you mean '2xcpu.yaml'?"),
        (["--cluster", "2xcpu.yaml", "train"], 2, "data_file: no training data named"),
        (["--cluster", "2xcpu.yaml", "train", "--set", "base_lt=1"], 2, "the nearest known one is base_lr"),
        (["--cluster", "2xcpu.yaml", "train", "--device-id", "7"], 2, "has the devices 0, 1"),
        (["--cluster", "2xcpu.yaml", "train", "--set", "data_file=x.mindrecord"], 2, "no such data set"),
        (["eval"], 2, "runs: holds no run of `train` yet"),
        (["eval", "--ckpt", "x.ckpt", "--run", "y"], 2, "give one of them"),
        (["eval", "--ckpt", "x.ckpt"], 2, "x.ckpt: no such checkpoint"),
        (["eval", "--ckpt", "x.ckpt", "--best"], 2, "--best and --ckpt: give one of them"),
        (["predict", "x.jpg", "--ckpt", "x.ckpt", "--out", "out"], 2, "x.ckpt: no such checkpoint"),
        (["predict", "x.jpg", "--out", "out"], 2, "runs: holds no run of `train` yet"),
        (["predict", "x.jpg"], 2, "Missing option '--out'"),
        (["predict", "--out", "out"], 2, "Missing argument 'IMAGE_OR_DIR...'"),
        (["export", "--format", "onnx", "--ckpt", "x.ckpt"], 2, "x.ckpt: no such checkpoint"),
        (["export", "--format", "pb", "--ckpt", "x.ckpt"], 2, "'pb' is not one of 'onnx', 'mindir', 'air'"),
        (["export", "--format", "onnx", "--height", "0"], 2, "'--height': 0 is not in the range x>=1"),
        (["logs"], 2, "holds no run yet"),
        (["trane"], 2, "No such command 'trane'"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_starts(tmp_path, words, code, expected):
    done = fcn_launch(*words, cwd=tmp_path)
    assert done.returncode == code
    assert expected in done.stderr
    assert list(tmp_path.iterdir()) == []
