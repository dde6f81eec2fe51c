"""Images that are not plain 8-bit colour: each trains and evaluates on the same pixels, or is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import build, run
from PIL import Image

from fcn.data.build import BuildOptions, build_dataset
from fcn.data.listing import READ_BGR, read_image, read_list
from fcn.data.records import read_rows
from fcn.errors import DataError
from fcn.pictures import save_mask

HEIGHT, WIDTH = 24, 36


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def colours() -> np.ndarray:
    """uint8 (HEIGHT, WIDTH, 3) RGB that JPEG keeps nearly as they are."""
    coarse = np.random.default_rng(3).integers(60, 200, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def odd(tmp_path, colours) -> Path:
    """A root with one image of each odd kind and a list of pairs."""
    picture = Image.fromarray(colours)
    picture.convert("L").save(tmp_path / "grey.jpg", quality=95)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    deep = colours[..., ::-1].astype(np.uint16) * 256 + 77
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "deepgrey.png"), deep[..., 0])
    transparent = picture.copy()
    transparent.putalpha(9)
    transparent.save(tmp_path / "alpha.png")
    picture.quantize(256).save(tmp_path / "palette.png")
    picture.save(tmp_path / "upsidedown.jpg", quality=95, exif=turned(3))
    names = ("grey.jpg", "cmyk.jpg", "deep.png", "deepgrey.png", "alpha.png", "palette.png", "upsidedown.jpg")
    save_mask(tmp_path / "mask.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{name} mask.png\n" for name in names))
    return tmp_path


def close(image: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(image.astype(int) - expected).max() <= 24)


def test_every_kind_is_read_as_8_bit_bgr_of_its_own_colours(odd, colours):
    bgr = colours[..., ::-1]
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)[..., None].repeat(3, axis=2)
    for item in read_list(odd, odd / "list.txt"):
        image = read_image(item.image_path)
        assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3), item.name
        expected = {"grey": grey, "deepgrey": bgr[..., :1].repeat(3, axis=2)}.get(item.name, bgr)
        assert close(image, expected), item.name
        if item.name in ("deep", "deepgrey", "alpha"):
            assert np.array_equal(image, expected), item.name


@pytest.mark.parametrize("decoded", [False, True])
def test_training_reads_the_pixels_that_evaluation_reads(odd, decoded):
    dataset = build(odd, odd / "list.txt", decoded=decoded)
    items = read_list(odd, odd / "list.txt")
    for item, row in zip(items, read_rows(dataset.files, dataset.rows.tolist())):
        stored = cv2.imdecode(np.frombuffer(row["data"], np.uint8), READ_BGR)  # as pipeline.py does
        assert np.array_equal(stored, read_image(item.image_path)), item.name


def test_an_exif_rotation_that_fits_its_mask_is_built_with_a_warning(odd, capsys):
    build(odd, odd / "list.txt")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert line.startswith("warning: 1 image carries an EXIF rotation, which training and evaluation ignore")
    assert line.endswith(f"the first is {odd}/upsidedown.jpg")


def test_what_cannot_be_trained_on_is_listed_with_line_and_remedy(odd, colours):
    Image.fromarray(colours).save(odd / "turned.jpg", exif=turned(6))
    save_mask(odd / "upright.png", np.zeros((WIDTH, HEIGHT), np.uint8))  # labelled as a viewer shows it
    save_mask(odd / "small.png", np.zeros((9, 9), np.uint8))
    cases = {
        "turned.jpg upright.png": "an EXIF rotation of the image is ignored: store the image upright",
        "grey.jpg none.png": f"no such file: {odd}/none.png; correct the line or the root",
        "cmyk.jpg small.png": "36x24 pixels but its mask .*small.png 9x9; .*is it the right mask",
        "deep.png grey.jpg": "grey.jpg: is damaged or not a PNG .*; masks must be PNG files",
        "grey.jpg deepgrey.png": "deepgrey.png: is a 16-bit grey picture, .*; convert it to a palette PNG",
    }
    (odd / "bad.txt").write_text("".join(f"{line}\n" for line in cases))
    with pytest.raises(DataError) as error:
        build_dataset(BuildOptions(odd, odd / "bad.txt", odd / "x.mindrecord"))
    lines = str(error.value).splitlines()
    for number, (line, text) in enumerate(zip(lines, cases.values()), start=1):
        assert line.startswith(f"{odd}/bad.txt:{number}: ")
        assert re.search(text, line), line
    assert len(lines) == len(cases) + 1


def test_an_empty_list_is_refused(odd):
    (odd / "empty.txt").write_text("\n\n")
    done = run("build", "--root", odd, "--list", odd / "empty.txt", "--out", odd / "x.mindrecord")
    assert done.returncode == 2
    assert "empty.txt: lists no sample; write one" in json.loads(done.stdout)["errors"][0]
