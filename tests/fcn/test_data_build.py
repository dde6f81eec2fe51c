from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import SAMPLES, build, run, write_samples
from PIL import Image

from fcn.data.__main__ import main
from fcn.data.build import BuildOptions, build_dataset
from fcn.data.records import check_labels, open_dataset
from fcn.errors import DataError
from fcn.pictures import save_mask


def rows_of(files):
    import mindspore.dataset as ds

    rows = ds.MindDataset(list(files), shuffle=False)
    return list(rows.create_dict_iterator(num_epochs=1, output_numpy=True))


def test_what_is_written_is_what_was_listed(root):
    dataset = open_dataset(root / "set.mindrecord")
    rows = rows_of(dataset.files)
    assert len(rows) == dataset.samples == SAMPLES
    assert [int(rows[row]["id"]) for row in dataset.rows] == list(range(SAMPLES))
    counts = np.zeros(256, np.int64)
    for row in rows:
        name = f"s{int(row['id']):03d}"
        assert str(row["file_name"]) == name
        assert row["data"].tobytes() == (root / f"img/{name}.jpg").read_bytes()
        ids = np.array(Image.open(root / f"cls_png/{name}.png"))
        stored = cv2.imdecode(np.frombuffer(row["label"].tobytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(stored, ids)
        counts += np.bincount(ids.ravel(), minlength=256)
    assert list(dataset.class_pixels) == counts[:21].tolist()
    manifest = json.loads((root / "set.mindrecord.json").read_text())
    assert manifest["ignored_pixels"] == counts[255] > 0


def test_files_are_named_as_mindrecord_names_them_and_readable_by_others(root):
    names = sorted(path.name for path in root.glob("*set.mindrecord*"))
    shards = [f"set.mindrecord{n}{end}" for n in range(3) for end in ("", ".db")]
    assert names == sorted([*shards, "set.mindrecord.json"])
    assert {path.stat().st_mode for path in root.glob("set.mindrecord*")} == {
        (root / "list.txt").stat().st_mode
    }


def test_any_shard_or_the_name_itself_opens_the_set(root):
    opened = [open_dataset(root / f"set.mindrecord{end}") for end in ("", "0", "2")]
    assert {dataset.fingerprint for dataset in opened} == {opened[0].fingerprint}
    assert {dataset.path for dataset in opened} == {root / "set.mindrecord"}


def test_the_fingerprint_is_of_the_content_not_of_its_layout(root):
    list_file = root / "list.txt"
    three = open_dataset(root / "set.mindrecord")
    one = build(root, list_file, "one.mindrecord", shards=1, shuffle=True, seed=5)
    again = build(root, list_file, "again.mindrecord", shards=1, shuffle=True, seed=5)
    assert one.fingerprint == three.fingerprint
    assert list(one.rows) != list(range(SAMPLES))
    assert list(one.rows) == list(again.rows)
    (root / "fewer.txt").write_text("s001\ns000\n")
    assert build(root, root / "fewer.txt", "fewer.mindrecord").fingerprint != one.fingerprint


def test_one_shard_is_the_same_bytes_from_process_to_process(root, tmp_path):
    build(tmp_path, root / "list.txt", root=root)
    environ = {**os.environ, "PYTHONHASHSEED": "77"}
    (tmp_path / "other").mkdir()
    run(
        "build",
        "--root",
        root,
        "--list",
        root / "list.txt",
        "--out",
        tmp_path / "other/set.mindrecord",
        env=environ,
    )
    for name in ("set.mindrecord", "set.mindrecord.db"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_decoded_the_set_is_the_same_to_training(root, small_config):
    from fcn.data.pipeline import train_batches

    config = small_config("num_classes=21", "min_scale=0.5", "max_scale=2.0")
    jpeg = open_dataset(root / "set.mindrecord")
    pixels = build(root, root / "list.txt", "pixels.mindrecord", shards=2, decoded=True)
    assert pixels.fingerprint == jpeg.fingerprint
    assert "--decoded" in pixels.rebuild
    (row,) = rows_of(pixels.files)[:1]
    assert row["data"].tobytes()[:2] == b"BM" and row["label"].tobytes()[:2] == b"P5"
    steps = {"start_step": 0, "total_steps": 4, "global_batch": 6, "rank": 0, "world": 1}
    for one, other in zip(train_batches(jpeg, config, **steps), train_batches(pixels, config, **steps)):
        assert all(np.array_equal(*arrays) for arrays in zip(one, other))


def test_opening_does_not_import_mindspore(root):
    code = "import sys; from fcn.data.records import open_dataset; open_dataset(sys.argv[1]); "
    code += "sys.exit('mindspore' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(root / "set.mindrecord")], check=True, timeout=60)


def test_every_bad_sample_is_listed_and_nothing_written(tmp_path):
    list_file = write_samples(tmp_path, 9)
    img, masks = tmp_path / "img", tmp_path / "cls_png"
    (img / "s001.jpg").write_bytes((img / "s001.jpg").read_bytes()[:-100])
    cv2.imwrite(str(masks / "s002.png"), np.full((46, 66, 3), (30, 20, 10), np.uint8))
    save_mask(masks / "s003.png", np.zeros((10, 10), np.uint8))
    save_mask(masks / "s004.png", np.zeros((62, 52), np.uint8))
    save_mask(masks / "s005.png", np.full((55, 60), 38, np.uint8))
    (masks / "s006.png").unlink()
    (masks / "s007.png").write_bytes(b"")
    answer = run("build", "--root", tmp_path, "--list", list_file, "--out", tmp_path / "x.mindrecord")
    assert answer.returncode == 2
    errors = json.loads(answer.stdout)["errors"]
    expected = (
        (2, "img/s001.jpg: is truncated"),
        (3, "colours that PASCAL VOC's palette does not have: (10, 20, 30) in 3,036 pixels"),
        (4, "img/s003.jpg: 64x49 pixels but its mask"),
        (5, "an EXIF rotation of the image is ignored"),
        (6, "cls_png/s005.png: label 38 (3,300 pixels) outside 0..20 and not the ignore label 255"),
        (7, "img/s006.jpg has no mask"),
        (8, "cls_png/s007.png: is damaged or not a PNG"),
    )
    assert len(errors) == len(expected) + 1
    for error, (line, text) in zip(errors, expected):
        assert error.startswith(f"{list_file}:{line}: ") and text in error
    assert errors[-1] == "7 bad lines; no data set was written"
    assert list(tmp_path.glob("*x.mindrecord*")) == []


def test_num_classes_and_ignore_label_decide_which_labels_are_good(tmp_path):
    list_file = write_samples(tmp_path, 3)
    with pytest.raises(DataError, match=r"label \d \(.*outside 0..3 and not the ignore label 255"):
        build(tmp_path, list_file, num_classes=4)
    with pytest.raises(DataError, match=r"label 255 \(.*outside 0..20 and not the ignore label 254"):
        build(tmp_path, list_file, ignore_label=254)
    dataset = build(tmp_path, list_file, num_classes=8)
    check_labels(dataset, 8, 255)
    check_labels(dataset, 21, 255)
    with pytest.raises(
        DataError, match=r"has pixels of class 5, 6, 7, but num_classes is 5; set num_classes=8"
    ):
        check_labels(dataset, 5, 255)
    with pytest.raises(DataError, match="built with ignore label 255, but ignore_label is 254"):
        check_labels(dataset, 8, 254)


def test_bad_options_are_refused(root, tmp_path):
    cases = (
        ({"shards": 0}, "--shards 0"),
        ({"shards": 14}, "lists 13 samples; give at most as many --shards"),
        ({"num_classes": 1}, "--num-classes 1"),
        ({"num_classes": 256}, "--num-classes 256: must be 2 to 255"),
        ({"ignore_label": 300}, "--ignore-label 300: must be 21 to 255"),
        ({"ignore_label": 0}, "--ignore-label 0: must be 21 to 255"),
        ({"seed": -1}, "--seed -1"),
        ({"out": tmp_path / "set1"}, "must not end in a digit"),
        ({"out": tmp_path / "a:b"}, "must not end in a digit"),
        ({"out": tmp_path}, "is a folder"),
        ({"out": root / "list.txt" / "x.mindrecord"}, "cannot be written"),
        (
            {"out": root / "set.mindrecord"},
            "exists already; give another --out, or replace it with --overwrite",
        ),
    )
    for changes, text in cases:
        options = {"root": root, "list_file": root / "list.txt", "out": tmp_path / "x.mindrecord", **changes}
        with pytest.raises(DataError, match=text):
            build_dataset(BuildOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    list_file = write_samples(tmp_path, 1)
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where nobody can make a folder, root neither")
    with pytest.raises(DataError, match=r"/proc/x: cannot be written: No such file"):
        build_dataset(BuildOptions(tmp_path, list_file, Path("/proc/x/set.mindrecord")))


def test_overwrite_replaces_the_set_and_its_surplus_shards(copy):
    (copy / "list.txt").write_text("s000\ns001\n")
    dataset = build(copy, copy / "list.txt", shards=1, overwrite=True)
    assert dataset.samples == 2
    assert sorted(path.name for path in copy.glob("set.mindrecord*")) == [
        "set.mindrecord",
        "set.mindrecord.db",
        "set.mindrecord.json",
    ]


def test_the_originals_own_arguments_are_understood(root, tmp_path, capsys):
    orders = []
    for shuffle in ("--shuffle=True", "--shuffle=False", "--shuffle", "--no-shuffle"):
        out = tmp_path / shuffle.strip("-") / "voc.mindrecord"
        args = (f"--data_root={root}", f"--data_lst={root}/list.txt", f"--dst_path={out}", "--num_shards=1")
        assert main(["build", *args, shuffle]) == 0
        orders.append(list(open_dataset(out).rows))
    assert orders[0] == orders[2] != orders[1] == orders[3] == list(range(SAMPLES))
    output = capsys.readouterr()
    assert [json.loads(line)["samples"] for line in output.out.splitlines()] == [SAMPLES] * 4
    assert output.err.count("checked 13 of 13 samples") == output.err.count("wrote 13 of 13 samples") == 4


def test_usage_errors_are_answers_too(root):
    for args in (["build", "--root", root], ["build", "--shuffle=perhaps"], ["bake"], []):
        answer = run(*args)
        assert answer.returncode == 2
        assert json.loads(answer.stdout)["ok"] is False
