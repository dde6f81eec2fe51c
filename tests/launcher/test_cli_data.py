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


def test_info_shows_what_is_in_the_set(demo, tmp_path):
    out, _ = demo
    result = invoke("info", out / "train.mindrecord", "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:4] == [f"{out}/train.mindrecord:", "6", "samples", "in"]
    assert ["width", "32", "to", "32", "pixels,", "median", "32"] in lines
    labels = [words[0] for words in lines if words and words[0].isdigit()]
    assert labels == ["0", "1", "2", "3", "255"]
    assert lines[-1] == ["contact", "sheet", f"{tmp_path}/sheet.png"]
    assert (tmp_path / "sheet.png").is_file()


def test_verify_says_so_or_names_what_is_bad_with_exit_code_2(demo, tmp_path):
    out, _ = demo
    good = invoke("verify", out / "train.mindrecord")
    assert good.exit_code == 0, good.output
    assert "6 samples in 1 file, all as they were built, fingerprint" in good.stdout
    for file in out.glob("train.mindrecord*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    image = (out / "img/train_0003.jpg").read_bytes()
    records = tmp_path / "train.mindrecord"
    records.write_bytes(records.read_bytes().replace(image, image[:-2] + b"xx"))
    bad = invoke("verify", records)
    assert bad.exit_code == 2
    assert "  train.mindrecord: sample 3 (train_0003): is not what was written" in bad.stdout
    assert f"build the data set again:\n  fcn-launch data make-demo --out {out}" in bad.stdout
    answer = invoke("verify", records, "--json")
    assert answer.exit_code == 2
    assert {"file": "train.mindrecord", "id": 3, "name": "train_0003"}.items() <= (
        json.loads(answer.stdout)["bad"][-1].items()
    )


def test_voc_prints_both_sets_and_how_to_evaluate(demo, tmp_path):
    out, _ = demo
    voc = tmp_path / "VOC2012"
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        names = (out / f"{split}.txt").read_text()
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text(names)
    (voc / "JPEGImages").symlink_to(out / "img")
    (voc / "SegmentationClass").symlink_to(out / "cls_png")
    result = invoke("voc", "--voc", voc, "--out", tmp_path / "set", "--shards", 1)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path}/set/train.mindrecord: 6 samples in 1 file, " in result.stdout
    assert f"{tmp_path}/set/val.mindrecord: 2 samples in 1 file, " in result.stdout
    assert f"validation: --root {tmp_path}/set --list {tmp_path}/set/val.txt" in result.stdout


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
