from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_samples import write_sample
from PIL import Image

from fcn.data.listing import read_image, read_list, read_mask, scan_list
from fcn.errors import DataError
from fcn.pictures import palette, save_mask


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root: Path, text: str) -> Path:
    (root / "list.txt").write_bytes(text.encode())
    return root / "list.txt"


def test_pairs_are_relative_to_the_root_with_or_without_a_leading_slash(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.png", "a/2.jpg", "b/2.png")
    items = read_list(tmp_path, listed(tmp_path, "a/1.jpg b/1.png\n/a/2.jpg\t/b/2.png\n"))
    assert [item.name for item in items] == ["1", "2"]
    assert [item.image_path for item in items] == [tmp_path / "a/1.jpg", tmp_path / "a/2.jpg"]
    assert [item.mask_path for item in items] == [tmp_path / "b/1.png", tmp_path / "b/2.png"]


def test_an_absolute_path_outside_the_root_is_taken_as_it_is(tmp_path):
    touch(tmp_path, "else/1.jpg", "else/1.png", "root/x")
    line = f"{tmp_path}/else/1.jpg {tmp_path}/else/1.png"
    (item,) = read_list(tmp_path / "root", listed(tmp_path, line))
    assert item.image_path == tmp_path / "else/1.jpg"


def test_bare_names_are_found_in_the_known_layouts(tmp_path):
    touch(tmp_path, "img/s.jpg", "cls_png/s.png")
    touch(tmp_path, "JPEGImages/v.jpg", "SegmentationClass/v.png")
    touch(tmp_path, "JPEGImages/w.jpg", "SegmentationClass/w.png", "SegmentationClassAug/w.png")
    touch(tmp_path, "JPEGImages/x.jpg", "SegmentationClassAug/x.png")
    items = read_list(tmp_path, listed(tmp_path, "s\nv\nw\nx\n"))
    assert [str(item.mask_path.relative_to(tmp_path)) for item in items] == [
        "cls_png/s.png",
        "SegmentationClass/v.png",
        "SegmentationClass/w.png",
        "SegmentationClassAug/x.png",
    ]


def test_blank_lines_crlf_a_byte_order_mark_and_a_missing_last_newline(tmp_path):
    touch(tmp_path, "img/a.jpg", "cls_png/a.png", "img/b.jpg", "cls_png/b.png")
    items = read_list(tmp_path, listed(tmp_path, "\ufeffa\r\n\r\n  \r\nb"))
    assert [(item.name, item.line) for item in items] == [("a", 1), ("b", 4)]


def test_names_stay_unique_where_files_share_a_stem(tmp_path):
    touch(tmp_path, "x/1.jpg", "y/1.jpg", "m/1.png")
    items = read_list(tmp_path, listed(tmp_path, "x/1.jpg m/1.png\ny/1.jpg m/1.png\n"))
    assert [item.name for item in items] == ["x/1", "y/1"]


def test_every_bad_line_is_named_at_once(tmp_path):
    touch(tmp_path, "img/a.jpg", "cls_png/a.png", "img/b.jpg")
    text = "a\nmissing\nb\na\none two three\nimg/a.jpg cls_png/none.png\n"
    with pytest.raises(DataError) as error:
        read_list(tmp_path, listed(tmp_path, text))
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{tmp_path}/list.txt:{n}" for n in (2, 3, 4, 5, 6)]
    assert "img/missing.jpg" in lines[0] and "JPEGImages/missing.jpg" in lines[0]
    assert "has no mask" in lines[1] and "cls_png/b.png" in lines[1]
    assert "second time, first on line 1" in lines[2]
    assert "3 words" in lines[3]
    assert "cls_png/none.png" in lines[4] and "img/a.jpg" not in lines[4]


def test_good_lines_are_still_there_for_further_checks(tmp_path):
    touch(tmp_path, "img/a.jpg", "cls_png/a.png")
    items, problems = scan_list(tmp_path, listed(tmp_path, "nothing\na\n"))
    assert [item.name for item in items] == ["a"]
    assert [problem.line for problem in problems] == [1]


@pytest.mark.parametrize("text", ["", "\n\r\n  \n"])
def test_an_empty_list_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="lists no sample"):
        read_list(tmp_path, listed(tmp_path, text))


def test_a_list_or_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: cannot be read: No such file"):
        read_list(tmp_path, tmp_path / "none.txt")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_list(tmp_path / "nowhere", listed(tmp_path, "a"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="not a text file"):
        read_list(tmp_path, tmp_path / "binary")


def test_a_tab_separates_paths_that_have_blanks(tmp_path):
    touch(tmp_path, "my images/a 1.jpg", "my masks/a 1.png")
    (item,) = read_list(tmp_path, listed(tmp_path, "my images/a 1.jpg\tmy masks/a 1.png\t\r\n"))
    assert (item.name, item.mask_path) == ("a 1", tmp_path / "my masks/a 1.png")


def test_a_palette_mask_is_read_as_ids_not_as_colours(tmp_path):
    ids = np.array([[0, 1, 15], [20, 255, 13]], np.uint8)
    save_mask(tmp_path / "m.png", ids)
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_bits_is_read_as_ids(tmp_path, bits):
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3) % 2**bits
    picture = Image.fromarray(ids)
    picture.putpalette(palette().tobytes())
    picture.save(tmp_path / "m.png", bits=bits)
    assert (tmp_path / "m.png").read_bytes()[24] == bits
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)


def test_a_grey_mask_is_read_as_ids(tmp_path):
    ids = np.array([[0, 7], [255, 20]], np.uint8)
    cv2.imwrite(str(tmp_path / "m.png"), ids)
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)


def test_a_mask_in_the_colours_of_voc_is_read_as_ids(tmp_path):
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    Image.fromarray(palette()[ids]).save(tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes()[25] == 2  # colour type RGB
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)
    assert palette()[255].tolist() == [224, 224, 192]  # void


def test_other_colours_are_named_with_their_pixels(tmp_path):
    colours = palette()[np.zeros((10, 10), np.uint8)]
    colours[0, :7] = (255, 0, 0)
    colours[1, :3] = (224, 224, 193)
    for column in range(4):
        colours[2, column] = (9, 9, column)
    Image.fromarray(colours).save(tmp_path / "m.png")
    message = r"m\.png: .* \(255, 0, 0\) in 7 pixels, \(224, 224, 193\) in 3 pixels, .* and 1 more; convert"
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "m.png")


def test_masks_that_hold_no_ids_are_refused_with_a_remedy(tmp_path):
    Image.new("RGBA", (2, 2)).save(tmp_path / "alpha.png")
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((2, 2), np.uint16))
    Image.new("1", (2, 2)).save(tmp_path / "bits.png")
    for name, what in (("alpha", "8-bit RGBA"), ("deep", "16-bit grey"), ("bits", "1-bit grey")):
        with pytest.raises(DataError, match=f"{name}.png: is a {what} picture.* convert it to a palette PNG"):
            read_mask(tmp_path / f"{name}.png")


def test_damaged_and_foreign_masks_are_named(tmp_path):
    save_mask(tmp_path / "m.png", np.random.default_rng(0).integers(0, 20, (50, 50), dtype=np.uint8))
    whole = (tmp_path / "m.png").read_bytes()
    jpeg = cv2.imencode(".jpg", np.zeros((4, 4), np.uint8))[1].tobytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x55
    for content in (b"", whole[: len(whole) // 2], whole[:20], bytes(flipped), jpeg, b"text" * 20):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png: is damaged or not a PNG"):
            read_mask(tmp_path / "bad.png")


def test_images_are_bgr_whatever_they_were_stored_as(tmp_path):
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "rgb.png")
    assert read_image(tmp_path / "rgb.png").tolist() == [[[30, 20, 10]] * 3] * 2
    for mode, name in (("L", "grey.jpg"), ("CMYK", "cmyk.jpg"), ("RGBA", "alpha.png"), ("P", "index.png")):
        Image.new(mode, (3, 2)).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.shape == (2, 3, 3) and image.dtype == np.uint8
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((2, 3), 0xABCD, np.uint16))
    assert read_image(tmp_path / "deep.png")[0, 0].tolist() == [0xAB] * 3


def test_an_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to view
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (20, 30, 3)


def test_damaged_images_are_named(tmp_path):
    write_sample(tmp_path, "a", (60, 80), seed=0)
    whole = (tmp_path / "img/a.jpg").read_bytes()
    stream = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(stream, "PNG")
    for content, what in (
        (b"", "is empty"),
        (whole[: len(whole) // 2], "is truncated"),
        (whole[:-2], "is truncated"),
        (stream.getvalue()[:-300], "is damaged"),
        (b"GIF89a but not really", "not an image"),
    ):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(DataError, match=f"bad: .*{what}"):
            read_image(tmp_path / "bad")
    with pytest.raises(DataError, match=r"none\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "none.jpg")
