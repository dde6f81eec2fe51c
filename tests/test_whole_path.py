"""From drawn images to a score, through `fcn-launch` and real MindSpore workers; and what stops it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from fcn.data.listing import read_list, read_mask
from fcn.metrics import confusion, scores

pytest.importorskip("mindspore")

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["num_classes=4", "encoder_width=0.0625", "fc_channels=8", "crop_size=32", "batch_size=4"]
END_S = 180


def command(*words):
    return [sys.executable, "-m", "launcher", *map(str, words)]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}


def fcn_launch(*words, cwd, code=0):
    done = subprocess.run(
        command(*words), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=END_S
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def sets(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def train_words(data, *settings):
    paths = [f"data_file={data}/train.mindrecord", f"data_root={data}", f"data_lst={data}/val.txt"]
    return ["--cluster", "2xcpu.yaml", "train", *sets(*SMALL, *paths, *settings)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    fcn_launch(
        "data", "make-demo", "--out", folder / "set", "--train", 24, "--val", 7, "--size", 48, cwd=folder
    )
    return folder / "set"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder in which a run was trained, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    output = fcn_launch(
        *train_words(data, "train_epochs=4", "save_steps=5", "keep_checkpoint_max=2"), cwd=folder
    )
    return folder, output


def run_of(folder):
    (run,) = (path.parent for path in folder.glob("runs/*/run.yaml"))
    return run


def test_training_prints_its_losses_and_keeps_its_checkpoints(trained):
    folder, output = trained
    assert "2 ranks on localhost" in output
    assert re.search(r"epoch: 4 step: 3, loss is [0-9.]+, lr .*, 12/12, ", output)
    run = run_of(folder)
    names = sorted(path.name for path in (run / "checkpoints").glob("*.ckpt"))
    assert names == [
        "FCN8s-4_1.ckpt",
        "FCN8s-4_3.ckpt",
    ]  # steps 10 and 12; step 5 is past keep_checkpoint_max
    log = (run / "attempt-001" / "rank-00.log").read_text()
    assert len(re.findall(r"^epoch: \d step: \d, loss is ", log, re.MULTILINE)) == 12
    assert json.loads((run / "status.json").read_text())["exit_code"] == 0


def test_the_data_that_was_trained_on_is_on_record(trained, data):
    folder, _ = trained
    record = yaml.safe_load((run_of(folder) / "run.yaml").read_text())
    manifest = json.loads((data / "train.mindrecord.json").read_text())
    assert record["data"]["fingerprint"] == manifest["fingerprint"]
    assert record["data"]["samples"] == manifest["samples"] == 24


def test_the_plan_that_ran_is_on_record(trained):
    folder, _ = trained
    plan = run_of(folder) / "attempt-001" / "plan"
    assert {"plan.json", "rank-00.env", "rank-01.env"} <= {path.name for path in plan.iterdir()}
    shown = subprocess.run(
        ["bash", "-c", f"set -a; source {plan}/rank-01.env; echo $RANK_ID/$RANK_SIZE $FCN_RENDEZVOUS"],
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == "1/2 store"


@pytest.fixture(scope="module")
def evaluated(trained):
    """The folder, with the masks of an evaluation in it, and its result."""
    folder, _ = trained
    output = fcn_launch("eval", "--save-masks", "masks", "--json", cwd=folder)
    return folder, json.loads(output.splitlines()[-1])


def test_the_score_follows_from_the_saved_masks(evaluated, data):
    folder, result = evaluated
    matrix = np.zeros((4, 4), np.int64)
    items = read_list(data, data / "val.txt")
    assert len(items) == 7  # an odd number over two ranks
    for item in items:
        mask = Image.open(folder / "masks" / f"{item.name}.png")
        assert mask.mode == "P"
        matrix += confusion(read_mask(item.mask_path), np.array(mask), 4, 255)
    assert result["iou"] == scores(matrix).iou
    assert result["mean_iou"] == scores(matrix).mean_iou
    assert (max(folder.glob("runs/*/eval.json")).parent / "contact_sheet.png").stat().st_size > 1000


def test_what_is_predicted_is_what_is_evaluated(evaluated, data):
    """Of a folder of images alone: the masks of `eval`, overlays, probabilities."""
    folder, _ = evaluated
    words = ["--out", "predicted", "--save-prob", "--json"]
    (folder / "images").mkdir()
    items = read_list(data, data / "val.txt")
    for item in items:
        (folder / "images" / item.image_path.name).symlink_to(item.image_path)
    output = fcn_launch("predict", "images", *words, cwd=folder)
    out = folder / "predicted"
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[-1] == {
        "images": 7,
        **{name: str(out / name) for name in ("masks", "overlays", "probabilities")},
        "contact_sheet": str(out / "contact_sheet.png"),
    }
    assert [line["done"] for line in lines if line.get("event") == "eval"][-1] == 7
    for item in items:
        mask = out / "masks" / f"{item.name}.png"
        assert mask.read_bytes() == (folder / "masks" / mask.name).read_bytes()
        probabilities = np.load(out / "probabilities" / f"{item.name}.npy")
        assert np.array_equal(probabilities.argmax(axis=0), np.array(Image.open(mask)))
        assert Image.open(out / "overlays" / f"{item.name}.jpg").size == Image.open(mask).size


def test_what_is_exported_sees_what_is_evaluated(evaluated, data):
    """The file on its own: no normalisation, padding or colour order to be known."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, _ = evaluated
    output = fcn_launch("export", "--format", "onnx", "--out", "net.onnx", "--json", cwd=folder)
    items = read_list(data, data / "val.txt")
    comparison = json.loads(output.splitlines()[-1])["comparison"]
    assert comparison["image"] == str(items[0].image_path)
    session = onnxruntime.InferenceSession(str(folder / "net.onnx"))
    for item in items:
        (classes,) = session.run(["classes"], {"images": cv2.imread(str(item.image_path))[None]})
        # Evaluation pads with the mean colour in whole numbers: pixels between two classes may differ.
        assert (classes[0] == np.array(Image.open(folder / "masks" / f"{item.name}.png"))).mean() > 0.99


def test_one_device_scores_the_same_as_two(trained, data):
    folder, _ = trained
    checkpoint = run_of_train(folder) / "checkpoints" / "FCN8s-4_3.ckpt"
    where = ["--ckpt", checkpoint, "--root", data, "--list", data / "val.txt", "--json"]
    results = []
    for cluster in ("1xcpu.yaml", "2xcpu.yaml"):
        output = fcn_launch("--cluster", cluster, "eval", *where, *sets("eval_batch_size=3"), cwd=folder)
        results.append(json.loads(output.splitlines()[-1]))
    assert results[0] == results[1]


def run_of_train(folder):
    return next(path.parent for path in folder.glob("runs/*/checkpoints/*.ckpt")).parent


def test_a_single_device_of_the_cluster(data, tmp_path):
    words = train_words(data, "train_epochs=1", "crop_size=32")
    output = fcn_launch(*words, "--device-id", "1", cwd=tmp_path)
    assert "1 rank on localhost" in output
    assert "loss is" in output


def test_ctrl_c_in_mid_training(data, tmp_path):
    process = started(data, tmp_path)
    try:
        wait_for_step(process, 3)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len([p for p in family if "fcn.worker" in " ".join(p.cmdline())]) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
    gone, alive = psutil.wait_procs(family, timeout=2)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    logs = sorted((run_of(tmp_path) / "attempt-001").glob("rank-*.log"))
    assert [log.name for log in logs] == ["rank-00.log", "rank-01.log"]
    assert all("on cpu" in log.read_text() for log in logs)


def test_a_killed_rank_is_named_and_the_training_goes_on_in_another_attempt(data, tmp_path):
    process = started(data, tmp_path, save_steps=2)
    try:
        wait_for_step(process, 5)
        family = psutil.Process(process.pid).children(recursive=True)
        (victim,) = (p for p in family if p.environ().get("RANK_ID") == "1" and "fcn.worker" in p.cmdline())
        victim.kill()
        said = "".join(takewhile(lambda line: line != "attempt 2\n", process.stdout))
        wait_for_step(process, 7)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
    assert "going on from" in (run_of(tmp_path) / "attempt-002" / "rank-00.log").read_text()
    assert "rank 1 (host localhost, device 1) failed first: killed by SIGKILL" in said
    assert "s: device 1 of localhost failed; 9 restarts are left" in said
    for attempt in ("attempt-001", "attempt-002"):
        assert "on cpu" in (run_of(tmp_path) / attempt / "rank-01.log").read_text()


def test_preemption_saves_and_leaves(data, tmp_path):
    process = started(data, tmp_path)
    try:
        wait_for_step(process, 3)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(30) == 75
    finally:
        process.kill()
    (manifest,) = (run_of(tmp_path) / "checkpoints").glob("*.json")
    assert json.loads(manifest.read_text())["step"] >= 3


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_does_not_end_the_training(data, tmp_path):
    """A small disk of its own, without a byte left until long after the failure has been told."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace of one's own is allowed here (unshare --mount)")
    words = train_words(data, "train_epochs=300", "save_steps=5", "keep_checkpoint_max=2")
    script = 'mount -t tmpfs -o size=64m none "$0" && cd "$0" && exec "$@"'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *command(*words)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    disk = Path(f"/proc/{process.pid}/root{tmp_path}")  # as the namespace has it
    try:
        wait_for_step(process, 12)
        told = []
        for line in process.stdout:
            fill(disk / "ballast")  # again and again: a save under way ends well, and deletes an older one
            if line.startswith("warning: ") and "not saved" in line:
                told.append(line)
            if len(told) == 30:
                break
        assert len(told) == 30  # or the run has ended
        log = (run_of(disk) / "attempt-001/rank-00.log").read_text()
        assert log.count("not saved") < len(told)  # nor was there room for these lines
        (disk / "ballast").unlink()
        last = [line for line in process.stdout if line.startswith("checkpoint: ")][-1]
        assert process.wait(END_S) == 0
    finally:
        process.kill()
    assert re.search(
        r"checkpoints/FCN8s-\d+_\d+\.ckpt: not saved: No space left on device, .* are needed", told[0]
    )
    assert last.endswith("FCN8s-300_3.ckpt\n")


def fill(ballast):
    """Take all the room that there is."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def started(data, folder, save_steps=1_000_000):
    words = train_words(data, "train_epochs=1000", f"save_steps={save_steps}", "keep_checkpoint_max=2")
    return subprocess.Popen(command(*words), cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)


def wait_for_step(process, number):
    deadline = time.monotonic() + END_S
    for line in process.stdout:
        found = re.search(r", (\d+)/\d+\b", line)
        if found and int(found.group(1)) >= number:
            return
        assert time.monotonic() < deadline
    raise AssertionError("the run ended before that step")


def test_bench_times_the_start_and_the_steps(data, tmp_path):
    words = ["--cluster", "2xcpu.yaml", "bench", "--steps", 2, "--json"]
    output = fcn_launch(*words, *sets(*SMALL, f"data_file={data}/train.mindrecord"), cwd=tmp_path)
    figures = json.loads(output.splitlines()[-1])
    assert (figures["world_size"], figures["global_batch"], figures["steps"]) == (2, 8, 2)
    assert figures["images_per_s"] == pytest.approx(8 / figures["step_s"])
    flop = figures["images_per_s"] / 2 * figures["flop_per_image"]
    assert figures["tflops_per_device"] == pytest.approx(flop / 1e12)
    assert 0 <= figures["data_wait"] < 1
    assert list(figures["start_s"]) == [
        "agents, plan, processes",
        "python",
        "device and rendezvous",
        "network",
        "compilation and first step",
    ]
    assert all(seconds > 0 for seconds in figures["start_s"].values())
    assert not list(run_of(tmp_path).glob("checkpoints/*"))
