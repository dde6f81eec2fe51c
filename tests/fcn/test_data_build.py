from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import build, write_sample, write_samples
from PIL import Image

from fcn.data.__main__ import main
from fcn.data.build import BuildOptions, build_dataset
from fcn.data.records import check_labels, open_dataset
from fcn.errors import DataError
from fcn.pictures import save_mask

SAMPLES = 13


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a list of 13 samples, and a data set of 3 shards in it."""
    folder = tmp_path_factory.mktemp("data")
    build(folder, write_samples(folder, SAMPLES), shards=3)
    return folder


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """That root again, to be damaged."""
    return Path(shutil.copytree(root, tmp_path / "copy"))


def run(*args: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fcn.data", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


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


def test_opening_does_not_import_mindspore(root):
    code = "import sys; from fcn.data.records import open_dataset; open_dataset(sys.argv[1]); "
    code += "sys.exit('mindspore' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(root / "set.mindrecord")], check=True, timeout=60)


def test_every_bad_sample_is_listed_and_nothing_written(tmp_path):
    list_file = write_samples(tmp_path, 9)
    img, masks = tmp_path / "img", tmp_path / "cls_png"
    (img / "s001.jpg").write_bytes((img / "s001.jpg").read_bytes()[:-100])
    cv2.imwrite(str(masks / "s002.png"), np.zeros((46, 66, 3), np.uint8))
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
        (3, "cls_png/s002.png: is a 8-bit RGB picture"),
        (4, "img/s003.jpg: 64x49 pixels but its mask"),
        (5, "an EXIF rotation of the image is ignored"),
        (6, "cls_png/s005.png: label 38 (3,300 pixels) outside 0..20 and not the ignore label 255"),
        (7, "img/s006.jpg has no mask"),
        (8, "cls_png/s007.png: is damaged or not a PNG"),
    )
    assert len(errors) == len(expected) + 1
    for error, (line, text) in zip(errors, expected):
        assert error.startswith(f"{list_file}:{line}: ") and text in error
    assert errors[-1] == "7 bad lines; nothing was written"
    assert list(tmp_path.glob("*x.mindrecord*")) == []


def test_num_classes_and_ignore_label_decide_which_labels_are_good(tmp_path):
    list_file = write_samples(tmp_path, 3)
    with pytest.raises(DataError, match=r"label \d \(.*outside 0..3 and not the ignore label 255"):
        build(tmp_path, list_file, num_classes=4)
    with pytest.raises(DataError, match=r"label 255 \(.*outside 0..20 and not the ignore label 0"):
        build(tmp_path, list_file, ignore_label=0)
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
        ({"ignore_label": 300}, "--ignore-label 300"),
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


def flip_a_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "missing file": (lambda root: (root / "set.mindrecord1").unlink(), r"set\.mindrecord1: is missing"),
    "missing index": (
        lambda root: (root / "set.mindrecord2.db").unlink(),
        r"set\.mindrecord2\.db: is missing",
    ),
    "cut short": (
        lambda root: os.truncate(root / "set.mindrecord0", 100),
        r"mindrecord0: is truncated: 100 byt",
    ),
    "cut in its padding": (
        lambda root: os.truncate(root / "set.mindrecord0", (root / "set.mindrecord0").stat().st_size - 1),
        r"mindrecord0: is truncated",
    ),
    "longer": (
        lambda root: (root / "set.mindrecord0").open("ab").write(b"x"),
        r"mindrecord0: is not the file it was",
    ),
    "a byte flipped in the data": (
        lambda root: flip_a_byte(root / "set.mindrecord2", (4 << 20) + 5000),
        r"mindrecord2: is not the file that was built",
    ),
    "a byte flipped in the index": (
        lambda root: flip_a_byte(root / "set.mindrecord1.db", 9000),
        r"mindrecord1\.db: is not the file that was built",
    ),
    "shards exchanged": (
        lambda root: shutil.copy(root / "set.mindrecord0", root / "set.mindrecord1"),
        r"mindrecord1: is (truncated|not the file)",  # the shards may differ in size
    ),
    "no manifest": (
        lambda root: (root / "set.mindrecord.json").unlink(),
        r"has no manifest .*fcn-launch data build .*--overwrite",
    ),
    "manifest cut short": (
        lambda root: os.truncate(root / "set.mindrecord.json", 300),
        r"manifest is damaged",
    ),
    "a manifest of another set": (
        lambda root: (root / "set.mindrecord.json").write_bytes((root / "one.mindrecord.json").read_bytes()),
        r"set\.mindrecord1: is not a file of the data set|one\.mindrecord",
    ),
    "some other json": (lambda root: (root / "set.mindrecord.json").write_text("[]"), "is not the manifest"),
    "nothing there": (
        lambda root: [path.unlink() for path in root.glob("set.mindrecord*")],
        r"no such data set\. Build it:\n  fcn-launch data build",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_with_the_way_to_rebuild(copy, damage):
    inflict, message = DAMAGES[damage]
    if "another set" in damage:
        build(copy, copy / "list.txt", "one.mindrecord", overwrite=True)
        for path in copy.glob("one.mindrecord*"):
            if path.suffix != ".json":
                path.unlink()
    inflict(copy)
    with pytest.raises(DataError) as error:
        open_dataset(copy / "set.mindrecord")
    assert re.search(message, str(error.value), re.DOTALL)
    if damage != "some other json":
        assert "fcn-launch data build" in str(error.value)


def test_any_flipped_byte_of_a_manifest_is_noticed(copy):
    manifest = copy / "set.mindrecord.json"
    whole = manifest.read_bytes()
    rng = np.random.default_rng(0)
    for offset in rng.integers(0, len(whole), 60):
        content = bytearray(whole)
        content[offset] = (content[offset] + 1 + rng.integers(0, 9)) % 128
        if json_or_none(content) == json.loads(whole):
            continue  # a blank became another blank
        manifest.write_bytes(content)
        with pytest.raises(DataError):
            open_dataset(copy / "set.mindrecord")


def json_or_none(content):
    try:
        return json.loads(bytes(content))
    except ValueError:
        return None


def test_without_verify_sizes_are_still_checked_but_not_contents(copy):
    flip_a_byte(copy / "set.mindrecord2", (4 << 20) + 5000)
    open_dataset(copy / "set.mindrecord", verify=False)
    os.truncate(copy / "set.mindrecord0", 100)
    with pytest.raises(DataError, match="is truncated"):
        open_dataset(copy / "set.mindrecord", verify=False)


def stop_in_mid_build(root: Path, out: Path, number: int, *more: str) -> int:
    """Start a build of `root`, send it a signal as soon as it writes files; returns its exit code."""
    command = [sys.executable, "-m", "fcn.data", "build", "--root", root, "--list", root / "list.txt"]
    process = subprocess.Popen(
        [*command, "--out", out, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first_file = out.with_name(f".{out.name}.building") / out.name
    while not first_file.exists():
        assert process.poll() is None, "ended before it wrote anything"
        time.sleep(0.0005)
    process.send_signal(number)
    return process.wait(timeout=60)


def test_a_killed_build_leaves_no_half_data_set(tmp_path):
    write_samples(tmp_path, 13)
    out = tmp_path / "x.mindrecord"
    assert stop_in_mid_build(tmp_path, out, signal.SIGKILL) == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("x.mindrecord*")] == []
    with pytest.raises(DataError, match="no such data set"):
        open_dataset(out)
    assert build(tmp_path, tmp_path / "list.txt", "x.mindrecord").samples == 13
    assert list(tmp_path.glob(".x.mindrecord*")) == []


def test_ctrl_c_in_mid_build_leaves_nothing_at_all(tmp_path):
    write_samples(tmp_path, 13)
    assert stop_in_mid_build(tmp_path, tmp_path / "x.mindrecord", signal.SIGINT) == 130
    assert list(tmp_path.glob("*x.mindrecord*")) == []


def test_a_killed_rebuild_leaves_the_old_set_as_it_was(copy):
    before = open_dataset(copy / "set.mindrecord").fingerprint
    write_sample(copy, "s000", (40, 70), seed=99)
    code = stop_in_mid_build(copy, copy / "set.mindrecord", signal.SIGKILL, "--overwrite")
    assert code == -signal.SIGKILL
    assert open_dataset(copy / "set.mindrecord").fingerprint == before


def test_a_write_that_fails_leaves_nothing(root, tmp_path):
    out = tmp_path / "x.mindrecord"
    limit = (5 << 20, 5 << 20)  # bytes a file may have; a record file has more
    answer = run(
        *("build", "--root", root, "--list", root / "list.txt", "--out", out),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert answer.returncode == 2
    (error,) = json.loads(answer.stdout)["errors"]
    assert error.startswith(f"{out}: MindRecord cannot write it: ") and "MB are free there" in error
    assert list(tmp_path.iterdir()) == []


def test_two_builds_of_one_set_do_not_mix(tmp_path):
    list_file = write_samples(tmp_path, 2)
    folder = tmp_path / ".set.mindrecord.building"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another build of it is under way"):
        build(tmp_path, list_file)
    os.close(lock)
    assert build(tmp_path, list_file).samples == 2


def test_a_source_that_changes_during_the_build_is_noticed(tmp_path, monkeypatch):
    from fcn.data import build as building

    list_file = write_samples(tmp_path, 3)
    check_room = building._check_room

    def change_then_check(*args):
        write_sample(tmp_path, "s001", (43, 68), seed=77)
        check_room(*args)

    monkeypatch.setattr(building, "_check_room", change_then_check)
    with pytest.raises(DataError, match=r"s001\.jpg or its mask .* changed during the build"):
        build(tmp_path, list_file)
    assert list(tmp_path.glob("*set.mindrecord*")) == []
