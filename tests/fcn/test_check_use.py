"""What is refused before a trained network is used: checkpoints that do not fit, bad images, full folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mindspore")

from data_samples import write_samples  # noqa: E402
from networks import write_checkpoint  # noqa: E402

from fcn import check, files  # noqa: E402
from fcn.check_use import check_predict, new_folder, with_checkpoint  # noqa: E402
from fcn.config_file import load_config  # noqa: E402
from fcn.errors import ConfigError, DataError, WeightsError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(tmp_path, device, small_config):
    """A checkpoint of 8 classes with its manifest."""
    return write_checkpoint(tmp_path / "checkpoints", small_config("num_classes=8", "image_std=[50,50,50]"))


def asked(path, *settings):
    return load_config(None, [f"ckpt_file={path}", *settings])[0]


def alone(checkpoint):
    """The checkpoint without its manifest: as from elsewhere, but for what it says inside."""
    checkpoint.with_suffix(".json").unlink()
    return checkpoint


def ask(*words, cwd):
    command = [sys.executable, "-m", "fcn.check", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("manifest", [True, False])
def test_the_checkpoint_says_what_network_it_is_of(trained, manifest):
    config, warnings = with_checkpoint(asked(trained if manifest else alone(trained)), None)
    assert (config.num_classes, config.fc_channels, config.image_std) == (8, 8, (50.0, 50.0, 50.0))
    assert warnings == ([] if manifest else [f"{trained}: has no manifest, so its bytes cannot be checked"])


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("num_classes=5", "num_classes: 5 was asked for, 8 in the file"),
        (
            "image_std=[57,57,57]",
            "image_std: (57.0, 57.0, 57.0) was asked for, (50.0, 50.0, 50.0) in the file",
        ),
    ],
)
def test_another_network_than_the_files_is_not_asked_for(trained, manifest, setting, expected):
    path = trained if manifest else alone(trained)
    with pytest.raises(ConfigError, match="leave these out") as refused:
        with_checkpoint(asked(path, setting), None)
    assert expected in str(refused.value)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint(trained, keep):
    content = trained.read_bytes()
    trained.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(WeightsError, match=f"has {int(keep * len(content))} bytes, its manifest says"):
        with_checkpoint(asked(trained), None)
    with pytest.raises(WeightsError, match=r"FCN8s-1_1.ckpt: (MindSpore cannot read it|does not fit)"):
        with_checkpoint(asked(alone(trained)), None)


def test_a_foreign_checkpoint_of_another_class_count(tmp_path, device, small_config):
    """As the original project writes them: parameters alone."""
    import mindspore as ms

    from fcn.network import build_network
    from fcn.platform import CPU

    net = build_network(small_config("num_classes=6"), CPU)
    ms.save_checkpoint(net, str(tmp_path / "theirs.ckpt"))
    sizes = ["encoder_width=0.0625", "fc_channels=8"]
    with pytest.raises(WeightsError, match="predicts 6 classes, num_classes is 21; set num_classes=6"):
        with_checkpoint(asked(tmp_path / "theirs.ckpt", *sizes), None)
    config, warnings = with_checkpoint(asked(tmp_path / "theirs.ckpt", *sizes, "num_classes=6"), None)
    assert config.num_classes == 6
    assert "neither its bytes nor its normalisation can be checked" in warnings[0]


def test_the_best_checkpoint_is_that_of_its_folder(trained, small_config):
    config = asked("", "num_classes=8")
    with pytest.raises(
        WeightsError, match="best: no such folder; a run with eval_epochs keeps its best there"
    ):
        with_checkpoint(config, trained.parent / "best")
    best = write_checkpoint(trained.parent / "best", small_config("num_classes=8"), "FCN8s-7_1")
    assert with_checkpoint(config, trained.parent / "best")[0].ckpt_file == str(best)
    assert with_checkpoint(config, trained.parent)[0].ckpt_file == str(trained)


def test_what_an_evaluation_lacks_is_told(trained, tmp_path):
    """Real processes, as the launcher asks: exit code 2 and every bad line."""
    root = tmp_path / "data"
    words = [
        "eval",
        f"--set=ckpt_file={trained}",
        f"--set=data_root={root}",
        f"--set=data_lst={root}/list.txt",
    ]
    write_samples(root, 4)
    (root / "cls_png" / "s001.png").unlink()
    code, answer = ask(*words, cwd=tmp_path)
    assert (code, len(answer["errors"])) == (2, 1)
    assert "list.txt:2: " in answer["errors"][0] and "s001.jpg has no mask" in answer["errors"][0]
    (root / "list.txt").write_text("\n\n")
    code, answer = ask(*words, cwd=tmp_path)
    assert code == 2 and "lists no sample" in answer["errors"][0]
    (root / "list.txt").write_text("s000\ns002\n")
    code, answer = ask(*words, "--save-masks", "masks", cwd=tmp_path)
    assert (code, answer["data"], answer["options"]) == (
        0,
        {"images": 2},
        {"save_masks": f"{tmp_path}/masks"},
    )


def test_what_a_prediction_lacks_is_told(trained, tmp_path):
    write_samples(tmp_path / "data", 2)
    words = ["predict", f"--set=ckpt_file={trained}"]
    assert ask(*words, "--out", "out", cwd=tmp_path)[0] == 2
    code, answer = ask(*words, tmp_path / "none.jpg", "--out", "out", cwd=tmp_path)
    assert code == 2 and answer["errors"] == [
        f"{tmp_path}/none.jpg: cannot be read: No such file or directory"
    ]
    code, answer = ask(*words, "data/img", "--out", "data", cwd=tmp_path)
    assert code == 2 and answer["errors"] == [
        "--out data: is not empty; nothing is overwritten; give a new folder"
    ]
    assert not (tmp_path / "out").exists()
    code, answer = ask(*words, "data/img", "--out", "out", cwd=tmp_path)
    images = [f"{tmp_path}/data/img/s00{index}.jpg" for index in range(2)]
    assert (code, answer["options"]) == (0, {"images": images, "out": f"{tmp_path}/out", "save_prob": False})


def test_a_disk_without_room_for_the_probabilities_is_told(trained, tmp_path, monkeypatch, capsys):
    """Two images of 40x70 and 43x68 pixels, 8 classes of 4 bytes."""
    write_samples(tmp_path / "data", 2)
    needed = 4 * 8 * (40 * 70 + 43 * 68)
    words = ["predict", f"--set=ckpt_file={trained}", f"{tmp_path}/data/img", f"--out={tmp_path}/out"]
    for free, options, code in ((needed - 1, ["--save-prob"], 2), (needed - 1, [], 0)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert check.main([*words, *options]) == code
        assert (tmp_path / "out").exists() is (code == 0)
    refused, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert refused["errors"] == [
        f"--save-prob: will take 0.2 MB, {tmp_path}/out has 0.2 MB free; predict fewer images, or give an "
        "--out on another disk"
    ]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    assert check.main([*words, "--save-prob"]) == 0


def write_image(path, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)).save(path, **options)
    return path


def test_all_bad_images_are_told_at_once(tmp_path):
    good = write_image(tmp_path / "a" / "x.png")
    twin = write_image(tmp_path / "b" / "x.jpg")
    cut = write_image(tmp_path / "b" / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-100])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError) as refused:
        check_predict([str(tmp_path / name) for name in ("a", "b", "text.jpg", "c")])
    lines = str(refused.value).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{tmp_path}/c: holds no image (.jpg, ")
    assert lines[0].endswith(") itself; folders in it are not searched")
    assert lines[1] == f"{twin}: its mask would be named as that of {good}; predict them in two calls"
    assert lines[2].startswith(f"{cut}: is truncated") and lines[3].startswith(f"{text}: is damaged")


def test_any_image_that_training_reads_is_taken(tmp_path):
    folder = tmp_path / "images"
    rgb = Image.open(write_image(folder / "rgb.jpg"))
    for name, mode in (("grey.jpg", "L"), ("cmyk.jpg", "CMYK"), ("palette.png", "P"), ("alpha.png", "RGBA")):
        rgb.convert(mode).save(folder / name)
    cv2.imwrite(str(folder / "deep.PNG"), np.full((30, 50, 3), 40000, np.uint16))
    exif = rgb.getexif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("of the photographer")
    images, pixels, warnings = check_predict([str(folder), str(folder / "rgb.jpg")])
    assert pixels == len(images) * 30 * 50
    assert [Path(image).name for image in images] == sorted(
        p.name for p in folder.iterdir() if p.suffix != ".txt"
    )
    assert len(warnings) == 2
    assert "passed over 1 files not named as images, such as notes.txt" in warnings[0]
    assert warnings[1].startswith("1 images are shown turned by viewers, as their EXIF says, such as")


def test_a_folder_for_results_is_made_and_must_be_empty(tmp_path):
    assert new_folder("--out", None) is None
    assert new_folder("--out", str(tmp_path / "a" / "b")) == str(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").touch()
    for name, expected in (("a/b", "is not empty"), ("a/b/file", "cannot be made")):
        with pytest.raises(ConfigError, match=f"--out .*{expected}"):
            new_folder("--out", str(tmp_path / name))
