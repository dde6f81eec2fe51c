"""What the catalogue adds to a verdict, and where it stays silent."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from launcher.diagnosis import Failure, Kind, report
from launcher.known import known_error

NO_MEMORY = "EL0004: 2026-11-23-10:06:00.000.000 Failed to allocate memory."
TIMED_OUT = "EI0002: 2026-11-23-10:05:00.000.000 The wait execution of the Notify register times out."


def failure(*error: str, kind: Kind = Kind.RAISED, number=None) -> Failure:
    what = error[-1] if error else "exit code 1"
    return Failure("rank-01", 1, "h1", kind, what, 1, number, error=error, tail=("step 1", *error))


def name(failure, attempt):
    known = known_error(failure, attempt)
    return known and known.name


@pytest.fixture
def plog(tmp_path):
    """A plog of rank 1 which says why the last collective was the last."""
    folder = tmp_path / "plog/rank-01/debug/plog"
    folder.mkdir(parents=True)
    (folder / "plog-812.log").write_text("[INFO] HCCL(1,python):2026-11-23-10:00:00.000.000 x\n" + NO_MEMORY)
    return folder


def test_its_error_lines_tell(tmp_path):
    assert name(failure("RuntimeError: run failed", NO_MEMORY), tmp_path) == "npu-memory"
    assert name(failure(TIMED_OUT, kind=Kind.EXIT_CODE), tmp_path) == "collective-timeout"


def test_a_cause_in_its_plog_says_more_than_a_consequence_or_nothing(plog, tmp_path):
    for error in (TIMED_OUT, "RuntimeError: run failed", "EE9999: Inner Error!"):
        assert name(failure(error), tmp_path) == "npu-memory"
    assert name(failure(kind=Kind.SIGNAL, number=signal.SIGSEGV), tmp_path) == "npu-memory"


def test_the_plogs_of_other_ranks_do_not_count(plog, tmp_path):
    plog.parents[1].rename(tmp_path / "plog/rank-00")
    assert name(failure(TIMED_OUT), tmp_path) == "collective-timeout"


@pytest.mark.parametrize(
    "error", ["ValueError: odd", "RuntimeError: odd", "fcn.errors.DataError: x: no such image"]
)
def test_what_says_no_more_than_the_exception_is_not_added(error, tmp_path):
    assert name(failure(error), tmp_path) is None


@pytest.mark.parametrize(
    "error", ["OSError: [Errno 28] No space left on device", "OSError: Address already in use"]
)
def test_what_the_launcher_itself_knows_better_is_not_added(error, tmp_path):
    assert name(failure(error), tmp_path) is None


def test_a_taken_port_is_known_better_though_mindspore_speaks_of_missing_workers(tmp_path):
    error = "RuntimeError: Failed to initialize distributed job cluster: some are not successfully spawned"
    log = (
        "[WARNING] DISTRIBUTED(1,2): Failed to call bind, url: 127.0.0.1:24429 Address already in use",
        error,
    )
    first = replace(failure(error, kind=Kind.EXIT_CODE), tail=log)
    assert (known_error(first, tmp_path), name(failure(error), tmp_path)) == (None, "workers-missing")


def test_no_log_tells_why_somebody_else_ended_it(plog, tmp_path):
    assert name(failure(NO_MEMORY, kind=Kind.SIGNAL, number=signal.SIGKILL), tmp_path) is None
    assert name(failure(NO_MEMORY, kind=Kind.HUNG), tmp_path) is None


def test_a_verdict_has_the_catalogues_words_instead_of_its_own(tmp_path):
    first = failure(TIMED_OUT)
    known = known_error(first, tmp_path)
    told, plain = report([first], first, None, None, known), report([first], first, None, None)
    assert (told["cause"], told["to_do"]) == (known.cause, known.remedy)
    assert "no cause of it was seen" not in told["text"]
    assert (told["rank"], told["kind"]) == (plain["rank"], plain["kind"])
    assert plain["cause"] is None
    assert "no cause of it was seen" in plain["text"]
