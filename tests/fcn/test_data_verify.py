"""`data verify`: every bad sample and file is named, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from data_samples import SAMPLES, build, flip_a_byte, run, write_samples

from fcn.data import records
from fcn.data.verify import verify_dataset
from fcn.files import seal


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data set of 13 samples, mixed over 3 shards."""
    folder = tmp_path_factory.mktemp("data")
    build(folder, write_samples(folder, SAMPLES), shards=3, shuffle=True)
    return folder


def manifest_of(root: Path) -> dict:
    return json.loads((root / "set.mindrecord.json").read_text())


def change_manifest(root: Path, **changes: object) -> None:
    """A manifest that says something else, with its own checksum right."""
    manifest = {**manifest_of(root), **changes}
    manifest.pop("checksum")
    (root / "set.mindrecord.json").write_text(json.dumps(seal(manifest)))


def place_of(root: Path, sample_id: int):
    """The shard of a sample, and where the pixels of its image lie in it."""
    dataset = records.open_dataset(root / "set.mindrecord")
    (row,) = records.read_rows(dataset.files, [int(dataset.rows[sample_id])])
    for file in map(Path, dataset.files):
        offset = file.read_bytes().find(row["data"])
        if offset >= 0:
            return file, offset + len(row["data"]) // 2
    raise AssertionError(f"sample {sample_id} is in no shard")


def named(answer) -> list:
    return [(bad["file"], bad["id"], bad["name"]) for bad in answer["bad"]]


def test_a_good_set_is_read_to_its_end_and_has_nothing_bad(root):
    done = run("verify", root / "set.mindrecord")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["bad"], answer["samples"], answer["shards"]) == (0, [], SAMPLES, 3)
    counts = manifest_of(root)["shard_samples"]
    assert sum(counts) == SAMPLES
    for shard, count in enumerate(counts):
        assert f"set.mindrecord{shard}: verified {count} of {count} samples" in done.stderr


def test_samples_with_a_flipped_byte_are_named_with_their_file(copy):
    places = {sample_id: place_of(copy, sample_id) for sample_id in (2, 11)}
    for file, offset in places.values():
        flip_a_byte(file, offset)
    done = run("verify", copy / "set.mindrecord1")
    answer = json.loads(done.stdout)
    assert done.returncode == 2
    damaged = {(file.name, None, None) for file, _ in places.values()}
    samples = {(file.name, i, f"s{i:03d}") for i, (file, _) in places.items()}
    assert set(named(answer)) == damaged | samples
    assert len(answer["bad"]) == len(damaged | samples)


def test_damage_that_makes_mindrecord_abort_costs_one_file_alone(copy):
    with (copy / "set.mindrecord0").open("r+b") as file:
        file.seek(50)
        file.write(b"XXXX")  # in the header's JSON
    answer = verify_dataset(copy / "set.mindrecord")
    assert named(answer) == [("set.mindrecord0", None, None)] * 2
    assert "sha256 differs" in answer["bad"][0]["problem"]
    lost = manifest_of(copy)["shard_samples"][0]
    assert f"its {lost} samples are lost" in answer["bad"][1]["problem"]
    assert "ends the process that reads it (exit code -" in answer["bad"][1]["problem"]


def test_missing_and_truncated_files_are_named_and_the_others_still_read(copy):
    sample_id = manifest_of(copy)["row_ids"][-1]
    file, offset = place_of(copy, sample_id)
    assert file.name == "set.mindrecord2"
    flip_a_byte(file, offset)
    (copy / "set.mindrecord0").unlink()
    os.truncate(copy / "set.mindrecord1", 1000)
    answer = verify_dataset(copy / "set.mindrecord")
    problems = [(bad["file"], bad["problem"]) for bad in answer["bad"]]
    assert problems[0] == ("set.mindrecord0", "is missing")
    assert problems[1][0] == "set.mindrecord1" and problems[1][1].startswith("is truncated: 1,000 bytes")
    assert problems[3][0] == "set.mindrecord1" and problems[3][1].startswith("MindRecord ")
    assert named(answer)[4:] == [("set.mindrecord2", sample_id, f"s{sample_id:03d}")]


def test_a_file_with_fewer_or_more_samples_than_were_written_is_named(copy):
    """Rows that MindRecord loses in writing are known by nothing but their number."""
    first, second, third = manifest_of(copy)["shard_samples"]
    change_manifest(copy, shard_samples=[first + 1, second - 1, third])
    problems = [bad["problem"] for bad in verify_dataset(copy / "set.mindrecord")["bad"]]
    assert f"holds {first} samples, {first + 1} were written" in problems
    assert f"holds {second} samples, {second - 1} were written" in problems


def test_labels_and_sizes_are_judged_again(copy):
    """Even where every checksum is right: what wrote the set may have been wrong."""
    change_manifest(copy, num_classes=4, class_pixels=[1] * 4)
    answer = verify_dataset(copy / "set.mindrecord")
    assert sorted(bad["id"] for bad in answer["bad"]) == list(range(SAMPLES))
    assert all("outside 0..3 and not the ignore label 255" in bad["problem"] for bad in answer["bad"])
