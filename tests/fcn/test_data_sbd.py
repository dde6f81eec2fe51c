"""SBD's MATLAB files: read as scipy writes the structure that the real ones have."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from data_samples import gtcls

from fcn.data import sbd
from fcn.errors import DataError

MASK = np.array([[0, 0, 7], [20, 7, 7]], np.uint8)


@pytest.fixture
def save(tmp_path):
    """Write a file with these top-level variables; returns its path."""
    scipy_io = pytest.importorskip("scipy.io", reason="scipy, which writes MATLAB files, is not installed")

    def write(**variables):
        scipy_io.savemat(tmp_path / "x.mat", variables, do_compression=True)
        return tmp_path / "x.mat"

    return write


def test_the_mask_of_a_real_structure_is_read_exactly(save):
    mask = sbd.read_mask(save(GTcls=gtcls(MASK)))
    assert mask.dtype == np.uint8 and np.array_equal(mask, MASK)


def test_a_mask_of_one_pixel_keeps_its_two_sides(save):
    """MATLAB and scipy drop sides of length 1 where they can."""
    assert sbd.read_mask(save(GTcls=gtcls(MASK[:1, :1]))).shape == (1, 1)
    assert sbd.read_mask(save(GTcls=gtcls(MASK[:1]))).shape == (1, 3)


def test_what_is_no_such_mask_is_named_with_what_it_is(save):
    for variables, text in (
        ({"GTinst": {"Segmentation": MASK}}, r"has no GTcls\.Segmentation \(KeyError"),
        ({"GTcls": {"Boundaries": MASK}}, r"has no GTcls\.Segmentation \(ValueError"),
        (
            {"GTcls": {"Segmentation": MASK.astype(float) + 0.5}},
            r"is float64 of shape \(2, 3\), not a picture",
        ),
        ({"GTcls": {"Segmentation": np.stack([MASK] * 3)}}, r"is uint8 of shape \(3, 2, 3\), not a picture"),
        ({"GTcls": {"Segmentation": MASK + 1}}, r"holds 1 to 21, SBD's classes are 0 to 20"),
        ({"GTcls": {"Segmentation": MASK.astype(np.int16) - 1}}, "holds -1 to 19"),
    ):
        with pytest.raises(DataError, match=r"x\.mat: .*" + text + r".*fetch SBD's x\.mat again"):
            sbd.read_mask(save(**variables))


def test_damaged_and_missing_files_are_named(save, tmp_path):
    path = save(GTcls=gtcls(MASK))
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"MATLAB 7.3" + whole[10:200], b"\x89PNG"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.mat: is damaged, or has no GTcls"):
            sbd.read_mask(path)
    with pytest.raises(DataError, match=r"none\.mat: cannot be read: No such file"):
        sbd.read_mask(tmp_path / "none.mat")


def test_without_scipy_the_remedy_is_named():
    code = "import sys; sys.modules['scipy'] = None; from fcn.data import sbd; from pathlib import Path\n"
    code += "try: sbd.read_mask(Path('x.mat'))\nexcept Exception as error: print(type(error).__name__, error)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("DataError SBD's masks are MATLAB files, and scipy")
    assert done.stdout.endswith("is not installed; pip install scipy\n")
