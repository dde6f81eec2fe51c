from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from launching import LIMIT_S, LOCAL_CLUSTER, REPOSITORY, Launch, closing, environment

from launcher import logfile
from launcher.cli.logs import logs
from launcher.cluster import load_cluster
from launcher.errors import UserError
from launcher.logfile import Follower, merged, readable, tail
from launcher.run import Run


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "runs", load_cluster("2xcpu.yaml"), "train", [])
    first, second = run.new_attempt(), run.new_attempt()
    (first.folder / "rank-00.log").write_text("from the first attempt\n")
    (second.folder / "rank-00.log").write_bytes(b"a0\n10%\r20%\rdone\nno newline")
    (second.folder / "rank-01.log").write_bytes(b"a1\n\xff\n")
    return run


@pytest.fixture
def show(run):
    def invoke(*arguments):
        context = SimpleNamespace(runs_dir=run.path.parent)
        result = CliRunner().invoke(logs, arguments, obj=context, catch_exceptions=False)
        return result.output.splitlines()

    return invoke


def test_every_rank_under_its_header(run, show):
    folder = run.path / "attempt-002"
    assert show() == [
        f"==> {folder}/rank-00.log <==",
        *("a0", "done", "no newline"),
        f"==> {folder}/rank-01.log <==",
        *("a1", "\ufffd"),
    ]


def test_one_rank_one_attempt_one_run_by_name(run, show):
    assert show("--rank", "1") == ["a1", "\ufffd"]
    assert show(run.path.name, "--attempt", "1") == ["from the first attempt"]


def test_what_is_not_there_is_named(show):
    with pytest.raises(UserError, match="no log of rank 7; there are: rank-00.log, rank-01.log"):
        show("--rank", "7")
    with pytest.raises(UserError, match="has no attempt 3; expected 1 to 2"):
        show("--attempt", "3")
    with pytest.raises(UserError, match="nothing: no run directory"):
        show("nothing")


def test_ranks_of_a_large_run_are_found_by_number(run, show):
    folder = run.new_attempt().folder
    (folder / "rank-005.log").write_text("five\n")
    (folder / "rank-105.log").write_text("another\n")
    assert show("--rank", "5") == ["five"]
    assert show("--rank", "105", "--follow") == ["another"]


@pytest.mark.parametrize("arguments", [[], ["--merge"], ["--follow"], ["--rank", "0"]])
def test_an_attempt_that_started_nothing_says_so(run, show, arguments):
    run.new_attempt()
    with pytest.raises(UserError, match="attempt-003: no process was started, so no logs"):
        show(*arguments)


def test_merged_by_time_where_lines_have_one(run, show):
    folder = run.path / "attempt-002"
    (folder / "rank-00.log").write_text(
        "begins\n[WARNING] ME(1):2026-11-23-03:54:22.100.900 late\n  its second line\n"
    )
    (folder / "rank-01.log").write_text("2026-11-23 03:54:22,050 early\n2026-11-23 03:54:22,101 last\n")
    assert show("--merge") == [
        "[rank-00] begins",
        "[rank-01] 2026-11-23 03:54:22,050 early",
        "[rank-00] [WARNING] ME(1):2026-11-23-03:54:22.100.900 late",
        "[rank-00]   its second line",
        "[rank-01] 2026-11-23 03:54:22,101 last",
    ]


def test_merged_without_times_is_log_after_log(run):
    folder = run.path / "attempt-002"
    names = [name for name, _ in merged((p.stem, str(p)) for p in sorted(folder.glob("*.log")))]
    assert names == ["rank-00"] * 3 + ["rank-01"] * 2


def test_following_a_run_that_has_ended_shows_it_all(show):
    assert sorted(show("--follow")) == sorted(
        ["[rank-00] a0", "[rank-00] done", "[rank-00] no newline", "[rank-01] a1", "[rank-01] \ufffd"]
    )


FOLLOW = """
import sys
from pathlib import Path
from types import SimpleNamespace
from launcher.cli.logs import logs
logs(["--follow"], obj=SimpleNamespace(runs_dir=Path(sys.argv[1])))
"""


def follow(launch):
    return subprocess.Popen(
        [sys.executable, "-c", FOLLOW, str(launch.runs)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=environment(PYTHONUNBUFFERED="1"),
    )


def test_following_goes_on_with_the_next_attempt(tmp_path):
    with closing() as made:
        cluster = LOCAL_CLUSTER.format(devices=1, grace_s=5)
        launch = Launch(tmp_path, cluster, "steps=100000", "step_s=0.02", "max_restarts=1")
        made.append(launch)
        launch.until_training(1)
        follower = follow(launch)
        shown = [follower.stdout.readline()]
        with (launch.attempt / "rank-00.log").open("a") as log:
            log.write("last words")  # without a newline
        os.kill(launch.all("started")[0]["pid"], signal.SIGKILL)
        launch.until("attempt", attempt=2)
        shown += [follower.stdout.readline() for _ in range(2)]
        launch.signal(signal.SIGINT)
        launch.finish()
        assert follower.wait(LIMIT_S) == 0
        assert shown == [f"[rank-00] {line}\n" for line in ("rank 0 begins", "last words", "rank 0 begins")]
        follower.stdout.close()


def test_following_ends_with_the_run(tmp_path):
    with closing() as made:
        launch = Launch(tmp_path, LOCAL_CLUSTER.format(devices=2, grace_s=5), "phase=data:1:600")
        made.append(launch)
        launch.until_training(2)
        follower = follow(launch)
        shown = sorted(follower.stdout.readline() for _ in range(2))
        with (launch.attempt / "rank-01.log").open("a") as log:
            log.write("later\n")
        shown.append(follower.stdout.readline())
        launch.signal(signal.SIGINT)
        launch.finish()
        assert follower.wait(LIMIT_S) == 0
        assert shown == ["[rank-00] rank 0 begins\n", "[rank-01] rank 1 begins\n", "[rank-01] later\n"]
        follower.stdout.close()


def test_a_line_that_comes_in_pieces_is_shown_once_and_whole(tmp_path):
    path = tmp_path / "rank-00.log"
    follower = Follower(str(path))
    assert list(follower.new_lines()) == []
    path.write_bytes("nai\u0308ve ".encode()[:4])
    assert list(follower.new_lines()) == []
    path.write_bytes("nai\u0308ve\nnext".encode())
    assert list(follower.new_lines()) == ["nai\u0308ve"]
    assert list(follower.new_lines(at_end=True)) == ["next"]


def test_the_tail_of_a_long_log_is_read_from_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(logfile, "TAIL_BYTES", 20)
    path = tmp_path / "rank-00.log"
    path.write_text("x" * 1000 + "\n" + "second last\n\nlast\n")
    assert tail(str(path), 2) == ["second last", "last"]
    assert tail(str(path), 20) == ["second last", "last"]
    assert tail(str(tmp_path / "none.log"), 2) == []


def test_a_line_is_shown_as_a_terminal_would_leave_it():
    assert readable(b"10%\r 20%\r100%\r\n") == "100%"
    assert readable(b"\xc3") == "\ufffd"
    assert len(readable(b"x" * 10_000)) < 2100
