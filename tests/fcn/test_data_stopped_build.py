"""Builds that are killed, interrupted, run out of room or meet another one."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_samples import build, run, write_sample, write_samples

from fcn.data.records import open_dataset
from fcn.errors import DataError


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


def test_a_killed_rebuild_leaves_the_old_set_as_it_was(tmp_path):
    before = build(tmp_path, write_samples(tmp_path, 13)).fingerprint
    write_sample(tmp_path, "s000", (40, 70), seed=99)
    code = stop_in_mid_build(tmp_path, tmp_path / "set.mindrecord", signal.SIGKILL, "--overwrite")
    assert code == -signal.SIGKILL
    assert open_dataset(tmp_path / "set.mindrecord").fingerprint == before


def test_a_write_that_fails_leaves_nothing(tmp_path):
    list_file = write_samples(tmp_path, 13)
    out = tmp_path / "out" / "x.mindrecord"
    limit = (5 << 20, 5 << 20)  # bytes a file may have; a record file has more
    answer = run(
        *("build", "--root", tmp_path, "--list", list_file, "--out", out),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert answer.returncode == 2
    (error,) = json.loads(answer.stdout)["errors"]
    assert error.startswith(f"{out}: MindRecord cannot write it: ") and "MB are free there" in error
    assert list(out.parent.iterdir()) == []


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
