"""`data voc`: PASCAL VOC alone, merged and with SBD, on small sets of the real structure."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Iterable

import numpy as np
import pytest
from data_samples import gtcls, run, write_sample
from PIL import Image

from fcn.data.listing import read_list, read_mask
from fcn.data.records import open_dataset, read_rows
from fcn.data.voc import OFFICIAL_IMAGES, VocOptions, make_voc, read_names, train_names
from fcn.errors import DataError

TRAIN, VAL = ["2007_1", "2007_2", "2007_3"], ["2007_4", "2007_5"]
SBD_TRAIN, SBD_VAL = ["2007_2", "2008_1", "2007_5"], ["2008_2", "2007_4"]  # two of VOC's validation images
TRAINAUG = [*TRAIN, "2008_1", "2008_2"]


def write_list(path: Path, names: Iterable[str]) -> None:
    """As some editors leave it: CRLF, and no end to the last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\r\n".join(names).encode())


@pytest.fixture
def voc(tmp_path) -> Path:
    """A VOC2012 of five images, three to train on, with masks that have the ignore label."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for index, name in enumerate([*TRAIN, *VAL]):
        write_sample(folder, name, (30 + index, 40), seed=index)
    (folder / "img").rename(folder / "JPEGImages")
    (folder / "cls_png").rename(folder / "SegmentationClass")
    write_list(folder / "ImageSets/Segmentation/train.txt", TRAIN)
    write_list(folder / "ImageSets/Segmentation/val.txt", VAL)
    return folder


@pytest.fixture
def sbd(tmp_path) -> Path:
    """A benchmark_RELEASE whose masks of VOC's images differ from VOC's."""
    scipy_io = pytest.importorskip(
        "scipy.io", reason="scipy, which writes SBD's MATLAB files, is not installed"
    )
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    sizes = {name: (30 + index, 40) for index, name in enumerate([*TRAIN, *VAL])}
    (folder / "cls").mkdir(parents=True)
    for index, name in enumerate([*SBD_TRAIN, *SBD_VAL]):
        write_sample(folder, name, sizes.get(name, (50, 44)), seed=100 + index)
        ids = read_mask(folder / f"cls_png/{name}.png")
        ids[ids == 255] = 0
        scipy_io.savemat(folder / f"cls/{name}.mat", {"GTcls": gtcls(ids)}, do_compression=True)
        (folder / f"cls_png/{name}.png").unlink()
    (folder / "cls_png").rmdir()
    write_list(folder / "train.txt", SBD_TRAIN)
    write_list(folder / "val.txt", SBD_VAL)
    return folder.parent


def masks_in(data_file: Path):
    """Names and masks of a data set, in the order of its list."""
    dataset = open_dataset(data_file)
    rows = read_rows(dataset.files, dataset.rows.tolist())
    return {row["file_name"]: np.array(Image.open(BytesIO(row["label"]))) for row in rows}


def test_with_sbd_the_training_list_is_trainaug_without_a_validation_image(voc, sbd, tmp_path):
    out = tmp_path / "out"
    done = run("voc", "--voc", voc, "--sbd", sbd, "--out", out, "--shards", 2)
    answer = json.loads(done.stdout)
    assert answer["ok"], answer
    train, val = masks_in(out / "train.mindrecord"), masks_in(out / "val.mindrecord")
    assert list(train) == TRAINAUG and list(val) == VAL
    for name, ids in {**train, **val}.items():
        if name in SBD_TRAIN + SBD_VAL and name not in TRAIN + VAL:
            from scipy.io import loadmat

            mat = loadmat(sbd / f"dataset/cls/{name}.mat")
            assert np.array_equal(ids, mat["GTcls"][0]["Segmentation"][0])
            assert not (ids == 255).any()
        else:
            assert np.array_equal(ids, read_mask(voc / f"SegmentationClass/{name}.png"))
            assert (ids == 255).any()
    assert {path.name for path in out.glob("*.mindrecord?")} == {
        f"{split}.mindrecord{shard}" for split in ("train", "val") for shard in (0, 1)
    }
    converted = sorted((out / "cls_png").iterdir())
    assert [path.name for path in converted] == ["2008_1.png", "2008_2.png"]
    assert all(path.read_bytes()[25] == 3 for path in converted)  # indexed, as VOC's own
    assert "converted 2 of 2 samples" in done.stderr
    assert "train: 5 images, PASCAL VOC 2012 has 10,582 in trainaug" in done.stderr
    assert "val: 2 images, PASCAL VOC 2012 has 1,449" in done.stderr
    assert answer["train"]["samples"] == 5 and answer["val"]["samples"] == 2


def test_the_lists_go_with_any_root_and_give_voc_its_own_images(voc, sbd, tmp_path):
    out = tmp_path / "a folder" / "out"  # paths with blanks
    answer = make_voc(VocOptions(voc.parent, out, sbd.parent, shards=1))  # folders above those that are meant
    items = read_list(tmp_path, answer["train_list"])
    assert [item.name for item in items] == TRAINAUG
    assert [item.image_path.parent for item in items[:3]] == [voc / "JPEGImages"] * 3
    assert [item.image_path.parent for item in items[3:]] == [sbd / "dataset/img"] * 2
    assert [item.name for item in read_list("/", out / "val.txt")] == VAL
    assert "fcn-launch data voc" in open_dataset(out / "val.mindrecord").rebuild


def test_voc_alone_is_its_own_two_lists(voc, tmp_path):
    answer = make_voc(VocOptions(voc, tmp_path / "out", decoded=True))
    assert list(masks_in(tmp_path / "out/train.mindrecord")) == TRAIN
    assert list(masks_in(tmp_path / "out/val.mindrecord")) == VAL
    assert answer["warnings"][0].startswith("train: 3 images, PASCAL VOC 2012 has 1,464 in train")
    assert answer["train"]["shards"] == 3 and answer["val"]["shards"] == 2  # no more than images
    assert not (tmp_path / "out/cls_png").exists()


def test_a_merged_folder_is_taken_as_it_is_and_vocs_masks_win(voc, tmp_path):
    for index, name in enumerate([*TRAINAUG, *VAL]):
        write_sample(voc, name, (70, 60), seed=200 + index)
    (voc / "cls_png").rename(voc / "SegmentationClassAug")
    for name in TRAINAUG[3:]:
        (voc / f"img/{name}.jpg").rename(voc / f"JPEGImages/{name}.jpg")
    write_list(voc / "ImageSets/Segmentation/trainaug.txt", [*TRAINAUG, VAL[1]])
    answer = make_voc(VocOptions(voc, tmp_path / "out"))
    masks = masks_in(tmp_path / "out/train.mindrecord")
    assert list(masks) == TRAINAUG
    folders = [voc / "SegmentationClass"] * 3 + [voc / "SegmentationClassAug"] * 2
    for folder, (name, ids) in zip(folders, masks.items()):
        assert np.array_equal(ids, read_mask(folder / f"{name}.png"))
    assert f"1 names of the training list are in the validation list too ({VAL[1]}" in answer["warnings"][0]


def test_a_validation_name_never_enters_training():
    for train, more in (([*TRAIN, VAL[0]], []), (TRAIN, [*SBD_TRAIN, *SBD_VAL, *VAL]), (VAL, VAL)):
        assert not set(train_names(train, VAL, more)) & set(VAL)
    assert train_names([*TRAIN, *TRAIN], VAL, SBD_TRAIN) == [*TRAIN, "2008_1"]


def test_names_are_read_from_lists_of_every_kind(tmp_path):
    write_list(tmp_path / "names.txt", ["a", "", "b ", "a"])
    (tmp_path / "pairs.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    lines = {name: f"{tmp_path}/names.txt:{number}" for name, number in (("a", 1), ("b", 3))}
    assert read_names(tmp_path / "names.txt") == lines
    assert list(read_names(tmp_path / "pairs.txt")) == ["a"]


def test_the_official_lists_give_the_official_10582(shared_data, tmp_path):
    """SBD's lists stand for all that is in trainaug beyond VOC, and a thousand images of VOC's own lists."""
    lists = shared_data / "voc_lists"
    train, val, trainaug = (list(read_names(lists / f"{name}.txt")) for name in ("train", "val", "trainaug"))
    assert {"train": len(train), "val": len(val), "trainaug": len(trainaug)} == OFFICIAL_IMAGES
    further = sorted(set(trainaug) - set(train))
    write_list(tmp_path / "train.txt", [*val[-500:], *further[:8000]])
    write_list(tmp_path / "val.txt", [*further[8000:], *train[-500:], val[0]])
    more = {**read_names(tmp_path / "train.txt"), **read_names(tmp_path / "val.txt")}
    names = train_names(train, val, more)
    assert len(names) == len(set(names)) == 10582
    assert set(names) == set(trainaug)
    assert not set(names) & set(val)


def test_what_is_missing_is_named_with_its_line_before_anything_is_written(voc, sbd, tmp_path):
    (voc / "SegmentationClass/2007_3.png").unlink()
    (sbd / "dataset/img/2008_2.jpg").unlink()
    for image in (voc / "JPEGImages/2007_5.jpg", sbd / "dataset/img/2007_5.jpg"):
        image.unlink()
    with pytest.raises(DataError) as error:
        make_voc(VocOptions(voc, tmp_path / "out", sbd))
    first, second, third, last = str(error.value).splitlines()
    assert first.startswith(f"{voc}/ImageSets/Segmentation/train.txt:3: 2007_3: has no mask: looked for")
    assert second.startswith(f"{sbd}/dataset/val.txt:1: 2008_2: has no image: looked for")
    assert third.startswith(f"{voc}/ImageSets/Segmentation/val.txt:2: 2007_5: has no image")
    assert last.startswith("3 names without their files")
    assert not (tmp_path / "out").exists()


def test_every_bad_file_of_sbd_is_named_and_no_data_set_written(voc, sbd, tmp_path):
    for name in ("2008_1", "2008_2"):
        (sbd / f"dataset/cls/{name}.mat").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"2008_1\.mat: is damaged(.|\n)*2008_2\.mat: is damaged.*\n2 bad files"
    ):
        make_voc(VocOptions(voc, tmp_path / "out", sbd))
    assert list(tmp_path.rglob("*.mindrecord*")) == []


def test_a_bad_validation_mask_is_found_before_the_training_set_is_written(voc, tmp_path):
    Image.new("P", (3, 3)).save(voc / "SegmentationClass/2007_5.png")
    with pytest.raises(DataError, match=r"val\.txt:2: .*2007_5\.jpg: 40x34 pixels but its mask"):
        make_voc(VocOptions(voc, tmp_path / "out"))
    assert list(tmp_path.rglob("*.mindrecord*")) == []
    assert list((tmp_path / "out").iterdir()) == []  # the same command goes through once it is mended


def test_folders_that_are_not_what_they_should_be_are_refused(voc, tmp_path):
    lists = voc / "ImageSets/Segmentation"
    (tmp_path / "file").touch()
    (tmp_path / "built").mkdir()
    (tmp_path / "built/val.mindrecord.json").touch()
    for changes, text in (
        ({"voc": tmp_path / "none"}, r"--voc .*none: has no ImageSets/Segmentation/val\.txt; give .*VOC2012"),
        ({"sbd": tmp_path}, r"--sbd .*: has no cls; give the folder benchmark_RELEASE/dataset"),
        ({"out": lists}, "holds the data that is read; give another folder"),
        ({"out": tmp_path / "file"}, "is a file; give a folder"),
        ({"out": tmp_path / "file/x"}, r"file/x: cannot be written"),
        ({"out": tmp_path / "built"}, r"built/val\.mindrecord\.json: exists already"),
        ({"shards": 0}, "--shards 0: must be 1 to 1000"),
    ):
        if "sbd" in changes:
            pytest.importorskip("scipy.io", reason="scipy is not installed")
        with pytest.raises(DataError, match=text):
            make_voc(VocOptions(**{"voc": voc, "out": tmp_path / "out", **changes}))
    assert (lists / "val.txt").read_bytes() == "\r\n".join(VAL).encode()


def test_empty_lists_are_refused(voc, tmp_path):
    lists = voc / "ImageSets/Segmentation"
    write_list(lists / "train.txt", VAL)
    with pytest.raises(DataError, match=r"train\.txt names validation images alone"):
        make_voc(VocOptions(voc, tmp_path / "out"))
    write_list(lists / "val.txt", ["", " "])
    with pytest.raises(DataError, match=r"val\.txt: lists no image"):
        make_voc(VocOptions(voc, tmp_path / "out"))


def test_nothing_is_replaced_without_overwrite(voc, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.txt").write_text("mine")
    with pytest.raises(DataError, match=r"train\.txt: exists already; give another --out, or .*--overwrite"):
        make_voc(VocOptions(voc, out))
    assert [path.name for path in out.iterdir()] == ["train.txt"] and (
        out / "train.txt"
    ).read_text() == "mine"
    make_voc(VocOptions(voc, out, overwrite=True))
    assert len(read_list(out, out / "train.txt")) == 3


def test_without_scipy_sbd_is_refused_at_once(voc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.io", raising=False)
    with pytest.raises(DataError, match="pip install scipy"):
        make_voc(VocOptions(voc, tmp_path / "out", tmp_path))
    assert not (tmp_path / "out").exists()
