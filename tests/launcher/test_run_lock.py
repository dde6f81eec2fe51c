"""Two launchers never write one run directory."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from launching import environment

from launcher import run_lock
from launcher.errors import UserError
from launcher.run_lock import last_launcher, owned

HOLD = """
import sys, time
from pathlib import Path
from launcher.run_lock import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(1e6)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def files(run):
    return sorted(path.name for path in run.glob("launcher-*.json"))


def test_each_launch_leaves_a_file(tmp_path):
    assert last_launcher(tmp_path) is None
    for number in (1, 2):
        with owned(tmp_path), owned(tmp_path):  # the second changes nothing
            last = last_launcher(tmp_path)
            assert (last.pid, last.host, last.is_alive()) == (os.getpid(), os.uname().nodename, True)
        assert last_launcher(tmp_path).is_alive() is False
        assert len(files(tmp_path)) == number


def test_a_launcher_that_works_is_named_and_one_that_was_killed_is_not_in_the_way(tmp_path, holder):
    with pytest.raises(UserError) as refusal, owned(tmp_path):
        pass
    assert f"process {holder.pid} of host {os.uname().nodename}" in str(refusal.value)
    assert f"kill {holder.pid}" in str(refusal.value)
    holder.send_signal(signal.SIGSTOP)
    assert last_launcher(tmp_path).is_alive() is True  # it can go on
    holder.kill()
    holder.wait()
    with owned(tmp_path):
        assert files(tmp_path) == ["launcher-001.json", "launcher-002.json"]


def test_an_id_that_belongs_to_another_process_by_now_is_no_launcher(tmp_path, holder):
    (path,) = tmp_path.glob("launcher-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "start": 1}))
    with owned(tmp_path):
        pass


@pytest.mark.parametrize("elsewhere", [{"host": "node7"}, {"machine": "5f3a"}, {"pids": "pid:[1]"}])
def test_of_what_can_not_be_seen_it_is_said_what_to_do(tmp_path, elsewhere):
    with owned(tmp_path):
        pass
    (path,) = tmp_path.glob("launcher-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": None, **elsewhere}))
    with pytest.raises(UserError, match=f"where it is gone, or the host is, remove {path}"), owned(tmp_path):
        pass
    path.unlink()
    with owned(tmp_path):
        pass


def test_a_file_that_says_nothing_is_no_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WRITTEN_WITHIN_S", 0)
    (tmp_path / "launcher-001.json").touch()
    with pytest.raises(UserError, match="does not say who works on the run; where no launcher does, remove"):
        last_launcher(tmp_path)


def test_a_full_disk_is_said_and_leaves_nothing_in_the_way(tmp_path):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))" + HOLD
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment(), capture_output=True, text=True
    )
    said = f"UserError: {tmp_path}/launcher-001.json: can not be written: File too large; make room"
    assert said in done.stderr
    with owned(tmp_path):
        assert files(tmp_path) == ["launcher-001.json"]


def test_of_many_at_once_one_gets_it(tmp_path):
    context, number = multiprocessing.get_context("fork"), 8
    ready, tried = context.Barrier(number), context.Barrier(number)
    got = context.Value("i", 0)

    def attempt():
        ready.wait()
        try:
            with owned(tmp_path):
                with got.get_lock():
                    got.value += 1
                tried.wait()
        except UserError:
            tried.wait()

    for count in (1, 2):  # also over one that has ended
        children = [context.Process(target=attempt) for _ in range(number)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * number
        assert got.value == count
