"""`python -m fcn.check`: what is refused before any worker starts, as a subprocess that answers in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_samples import build, write_sample, write_samples
from vgg16_files import in_layout, random_vgg

from fcn import check, files
from fcn.architecture import Architecture
from fcn.errors import FcnError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("mindspore")
    folder = tmp_path_factory.mktemp("data")
    build(folder, write_samples(folder, 6))
    return folder


def ask(*words, cwd):
    command = [sys.executable, "-m", "fcn.check", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


def sets(data, *settings):
    paths = [f"data_file={data}/set.mindrecord", f"data_root={data}", f"data_lst={data}/list.txt"]
    return [
        word for item in (*paths, "encoder_width=0.1", "fc_channels=8", *settings) for word in ("--set", item)
    ]


def test_a_good_configuration_is_resolved(data, tmp_path):
    code, answer = ask("train", *sets(data, "batch_size=3", "num_classes=8"), "--world-size", 2, cwd=tmp_path)
    assert (code, answer["ok"], answer["errors"]) == (0, True, [])
    assert answer["data"]["samples"] == 6
    assert answer["config"]["data_file"] == f"{data}/set.mindrecord"
    assert answer["config"]["base_lr"] == 0.015


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["batch_size=4"], "6 samples are fewer than one step takes (2 ranks, global batch 8)"),
        (["global_batch=3"], "3 samples cannot be shared evenly by 2 devices"),
        (["num_classes=5"], "set num_classes=21"),
        (["data_file=other.mindrecord"], "other.mindrecord: no such data set"),
        (["batch_size=1", "ckpt_vgg16=none.npz"], "ckpt_vgg16: none.npz: no such file"),
        (["batch_size=1", "ckpt_vgg16=."], "ckpt_vgg16: .: is a folder; name the file"),
        (["batch_size=1", "ckpt_pre_trained=none.ckpt"], "ckpt_pre_trained: none.ckpt: no such file"),
        (["batch_size=1", "sync_bn=true"], "sync_bn: MindSpore has no CPU kernel"),
        (["batch_size=1", "eval_epochs=1", "data_lst="], "no validation list named"),
        (
            ["global_batch=6", "accumulate_steps=2"],
            "6 samples cannot be shared evenly by 2 devices in 2 slices",
        ),
        (["batch_size=1", "crop_size=32"], "one image at a time: batch norm of fc6 has a single value"),
        (["crop_sise=64"], "the nearest known one is crop_size"),
    ],
)
def test_what_would_stop_the_run_is_refused(data, tmp_path, settings, expected):
    code, answer = ask("train", *sets(data, *settings), "--world-size", 2, cwd=tmp_path)
    assert (code, answer["ok"]) == (2, False)
    assert expected in "\n".join(answer["errors"])


def test_what_training_would_start_from_is_told(data, tmp_path):
    arch = Architecture(num_classes=8, encoder_width=0.1, fc_channels=8)
    np.savez(tmp_path / "vgg.npz", **in_layout(random_vgg(arch, batch_norm=True), "timm"))
    words = ["train", *sets(data, "batch_size=3", "num_classes=8", "ckpt_vgg16=vgg.npz", "fc_channels=9")]
    code, answer = ask(*words, cwd=tmp_path)
    assert code == 0
    assert "VGG16-BN of torchvision's names, trained on RGB images" in answer["data"]["weights"][0]
    assert answer["data"]["weights"][1] == "  65 parameters loaded: the encoder"
    assert "refused by shape: pre_logits.fc1.weight (8, 51, 7, 7)" in answer["warnings"][0]


def test_bad_masks_are_listed_before_an_evaluation(data, tmp_path, device, small_config):
    """A label beyond the classes would index outside the confusion matrix after minutes of work."""
    from networks import write_checkpoint

    checkpoint = write_checkpoint(tmp_path, small_config("num_classes=5"))
    words = ["eval", *sets(data, f"ckpt_file={checkpoint}", "encoder_width=0.0625")]
    code, answer = ask(*words, cwd=tmp_path)
    assert (code, answer["ok"]) == (2, False)
    assert len(answer["errors"]) == 6
    assert all(f"{data}/list.txt:{line}: " in text for line, text in enumerate(answer["errors"], start=1))


def test_masks_that_a_training_would_evaluate_on_are_checked_before_it(data, tmp_path):
    write_sample(tmp_path, "x", (40, 50), seed=0, classes=200)
    (tmp_path / "list.txt").write_text("x\n")
    words = sets(
        data, "batch_size=3", "num_classes=8", f"data_root={tmp_path}", f"data_lst={tmp_path}/list.txt"
    )
    assert ask("train", *words, cwd=tmp_path)[0] == 0
    code, answer = ask("train", *words, "--set=eval_epochs=1", cwd=tmp_path)
    assert code == 2 and "outside 0..7 and not the ignore label 255" in answer["errors"][0]


def test_a_missing_validation_list_is_told_before_training(data, tmp_path):
    words = ["train", *sets(data, "batch_size=3", "num_classes=8", "data_lst=none.txt")]
    code, answer = ask(*words, cwd=tmp_path)
    assert code == 2 and "none.txt: cannot be read" in answer["errors"][0]


def test_a_runs_configuration_is_overridden_by_a_file_and_that_by_a_setting(data, tmp_path):
    (tmp_path / "run.yaml").write_text("config: {num_classes: 8, crop_size: 64, batch_size: 2}\n")
    (tmp_path / "more.yaml").write_text("crop_size: 96\ntrain_batch_size: 3\n")
    words = ["train", f"--run={tmp_path}", f"--config={tmp_path}/more.yaml", *sets(data, "crop_size=128")]
    config = ask(*words, cwd=tmp_path)[1]["config"]
    assert (config["num_classes"], config["crop_size"], config["batch_size"]) == (8, 128, 3)


def test_the_checkpoint_that_a_file_or_a_setting_names_is_told_unchecked(tmp_path):
    (tmp_path / "more.yaml").write_text("ckpt_file: a.ckpt\nignore_label: 7  # of a run with 5 classes\n")
    (tmp_path / "none.yaml").write_text("ckpt_file:\n")
    for words, expected in (
        (["--config=more.yaml"], "a.ckpt"),
        (["--config=more.yaml", "--set=ckpt_file=b.ckpt"], "b.ckpt"),
        (["--config=more.yaml", "--set=ckpt_file="], ""),
        (["--config=none.yaml"], ""),
        (["--set=flip=true"], ""),
    ):
        assert ask("checkpoint", *words, cwd=tmp_path) == (0, {"ok": True, "ckpt_file": expected})
    code, answer = ask("checkpoint", "--config=other", cwd=tmp_path)
    assert code == 2 and "no such configuration file" in answer["errors"][0]


def test_no_framework_is_imported():
    program = "import sys, fcn.check; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


class Disk:
    free = 0


@pytest.mark.parametrize(
    ("free_gb", "eval_epochs", "expected"),
    [
        (1.0, 0, "2 checkpoints of this network take 2.2 GB"),
        (2.5, 1, "3 checkpoints of this network take 2.7 GB"),
        (20.0, 0, "500 checkpoints will take 270.1 GB"),
        (20.0, 0, "set keep_checkpoint_max=33 "),
        (20.0, 1, "500 checkpoints and the best one will take 270.7 GB"),
        (20.0, 1, "set keep_checkpoint_max=32 "),
        (9000.0, 1, None),
    ],
)
def test_a_disk_that_will_be_full_is_foreseen(
    data, tmp_path, monkeypatch, small_config, free_gb, eval_epochs, expected
):
    """The full network's weights take 0.54 GB, as much as its momentum; 500 epochs of one step keep 500."""
    disk = Disk()
    disk.free = int(free_gb * 1e9)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: disk)
    full = ["encoder_width=1", "fc_channels=4096", "num_classes=21", "save_steps=1", "batch_size=6"]
    paths = [f"data_file={data}/set.mindrecord", f"data_root={data}", f"data_lst={data}/list.txt"]
    config = small_config(*paths, *full, f"eval_epochs={eval_epochs}")
    try:
        _, warnings = check.check_train(config, 1, tmp_path)
    except FcnError as error:
        warnings = [str(error)]
    assert len(warnings) == (expected is not None)
    assert expected is None or expected in warnings[0]
