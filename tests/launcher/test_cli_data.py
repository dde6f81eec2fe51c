from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from launcher.cli.data import data
from launcher.errors import UserError


def invoke(*args):
    return CliRunner().invoke(data, list(map(str, args)))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "demo"
    return out, invoke("make-demo", "--out", out, "--train", 6, "--val", 2, "--size", 32)


def test_make_demo_says_what_it_made(demo):
    out, result = demo
    assert result.exit_code == 0, result.output
    assert f"{out}/train.mindrecord: 6 samples in 1 file, " in result.output
    assert f"validation: --root {out} --list {out}/val.txt" in result.output
    assert (out / "train.mindrecord.json").is_file()


def test_build_passes_its_options_on_and_answers_in_json(demo, tmp_path):
    out, _ = demo
    target = tmp_path / "val.mindrecord"
    args = ("--root", out, "--list", out / "val.txt", "--out", target, "--num-classes", 4, "--shards", 2)
    result = invoke("build", *args, "--shuffle=True", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["samples"] == 2 and answer["shards"] == 2 and len(answer["class_pixels"]) == 4
    assert (tmp_path / "val.mindrecord1").is_file()


def test_bad_data_is_a_usage_error(demo, tmp_path):
    out, _ = demo
    (tmp_path / "list.txt").write_text("train_0000\nnothing\n")
    result = invoke(
        "build", "--root", out, "--list", tmp_path / "list.txt", "--out", tmp_path / "x.mindrecord"
    )
    assert isinstance(result.exception, UserError)
    assert f"{tmp_path}/list.txt:2: no image of that name" in str(result.exception)


def test_help_is_the_trainers_own():
    code = "from launcher.cli.data import data; data()"
    answer = subprocess.run(
        [sys.executable, "-c", code, "build", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--num-classes" in answer.stdout and "usage: fcn-launch data build" in answer.stdout


def test_the_commands_import_none_of_the_trainers_libraries():
    code = (
        "import sys, launcher.cli.data; print({'numpy', 'cv2', 'mindspore', 'fcn', 'PIL'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.strip() == "set()"
