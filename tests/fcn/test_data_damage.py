"""What is found of damage to a data set when it is opened."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
from data_samples import build, flip_a_byte

from fcn.data.records import open_dataset
from fcn.errors import DataError

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
