"""`diagnose`: the first cause among the logs of several processes, of any launcher."""

from __future__ import annotations

import json
import tracemalloc
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from launcher import log_scan
from launcher.catalogue import catalogue
from launcher.cli.diagnose import UNEXPLAINED, diagnose
from launcher.cluster import load_cluster
from launcher.errors import UserError
from launcher.explanation import explain
from launcher.log_scan import Scan, rank_of, scan, scan_blocks
from launcher.run import Run

TIMED_OUT = "EI0002: 2026-11-23-10:{}.000.000 The wait execution of the Notify register times out."
NO_MEMORY = "EL0004: 2026-11-23-10:{}.000.000 Failed to allocate memory."
RAISED = 'Traceback:\n  File "t.py", line 3, in f\n    raise ValueError("EI0006")\nValueError: odd'


def read(text: str, path: str = "rank-00.log") -> Scan:
    return scan_blocks(path, [text.encode()], catalogue())


def names(found):
    return [each.signature.name for each in found]


def test_a_cause_counts_before_an_earlier_consequence_and_what_it_became():
    log = read("\n".join([TIMED_OUT.format("05:00"), NO_MEMORY.format("06:00"), "RuntimeError: odd"]))
    process = explain([log]).first
    assert process.error.signature.name == "npu-memory"
    assert process.error.line == 2
    assert names(process.others) == ["collective-timeout", "exception"]


def test_a_consequence_says_more_than_the_exception_it_became():
    first = explain([read("RuntimeError: run failed\n" + TIMED_OUT.format("05:00"))]).first
    assert first.error.signature.name == "collective-timeout"


def test_between_ranks_the_earliest_cause_counts_whoever_suffered_before():
    early, cause, late = TIMED_OUT.format("01:00"), NO_MEMORY.format("07:00"), NO_MEMORY.format("09:00")
    logs = [read(text, f"rank-0{rank}.log") for rank, text in enumerate([early, late, cause])]
    assert [process.rank for process in explain(logs).processes] == [2, 1, 0]


def test_who_raised_failed_before_those_who_waited():
    logs = [read(TIMED_OUT.format("01:00"), "rank-00.log"), read("RuntimeError: mine", "rank-01.log")]
    assert explain(logs).first.rank == 1


def test_a_line_without_time_has_that_of_the_line_before():
    log = read(f"[INFO] 2026-11-23-10:04:05.100.200 step\n{'no time here' * 9}\n{RAISED}")
    assert [(each.line, each.time) for each in log.found] == [(6, "2026-11-23 10:04:05.100200")]


def test_code_in_a_traceback_is_no_error():
    assert names(read(RAISED).found) == ["program-error"]


def test_logs_of_one_rank_are_one_process():
    worker = read("RuntimeError: init failed", "job/rank-03.log")
    plog = read(
        "[ERROR] HCCP(1,python):2026-11-23-10:00:00.000.000 [x.cc:1]EJ0001 x", "plog/rank-03/debug/plog-9.log"
    )
    (process,) = explain([worker, plog]).processes
    assert (process.rank, process.error.signature.name) == (3, "npu-held")


def test_the_process_that_is_known_to_have_failed_first_stays_the_first():
    logs = [read(NO_MEMORY.format("01:00"), "rank-00.log"), read(TIMED_OUT.format("09:00"), "rank-01.log")]
    assert explain(logs, "rank 1").first.rank == 1


@pytest.mark.parametrize(
    ("path", "rank"),
    [
        ("runs/a/attempt-001/rank-07.log", 7),
        ("/home/worker1/logs/worker_3.log", 3),
        ("/home/worker1/logs/scheduler.log", None),
        ("train_parallel5/log", 5),
        ("a/rank_11/debug/plog/plog-812_2026.log", 11),
        ("plog-812_20261123.log", None),
    ],
)
def test_rank_of_a_path(path, rank):
    assert rank_of(path) == rank


def test_a_plog_tells_its_rank_itself():
    line = (
        "[ERROR] HCCL(1,python):2026-11-23-10:00:00.000.000 [x.cc:1] Task run failed, base information is x"
    )
    assert read(line + ", rankSize[4], rankId[2]", "plog-1.log").rank == 2


@pytest.mark.parametrize("cut", [1, 3, 40, 1000])
def test_lines_are_whole_wherever_a_block_ends(cut):
    text = ("epoch 1\n" * 50 + NO_MEMORY.format("01:00") + "\nend\r\n" + TIMED_OUT.format("02:00")).encode()
    log = scan_blocks("x.log", [text[at : at + cut] for at in range(0, len(text), cut)], catalogue())
    assert [(each.signature.name, each.line) for each in log.found] == [
        ("npu-memory", 51),
        ("collective-timeout", 53),
    ]


STEPS = "".join(f"epoch: 1 step: {step}\n" for step in range(1500))


def test_errors_that_were_survived_do_not_count():
    log = read(f"PermissionError: no cache\n{STEPS}{TIMED_OUT.format('05:00')}")
    assert names(log.found) == ["collective-timeout"]


def test_an_error_that_comes_again_counts_from_its_last_time():
    log = read(f"{NO_MEMORY.format('01:00')}\n{STEPS}{NO_MEMORY.format('05:00')}\nRuntimeError: x\n")
    assert [(found.signature.name, found.line) for found in log.found] == [
        ("npu-memory", 1502),
        ("exception", 1503),
    ]


def test_an_unknown_error_does_not_hide_what_is_known():
    assert names(read(f"{NO_MEMORY.format('01:00')}\n{STEPS}[ERROR] odd\n").found) == ["npu-memory"]


def test_who_went_on_after_an_error_did_not_fail_first():
    logs = [
        read(f"PermissionError: no cache\n{STEPS}", "rank-00.log"),
        read(TIMED_OUT.format("1:1"), "rank-01.log"),
    ]
    assert [process.rank for process in explain(logs).processes] == [1, 0]


def test_lines_that_differ_in_numbers_are_read_once_and_counted_all():
    text = "".join(f"[ERROR] step {step}: 0x{step:08x}\n" for step in range(5000)) + NO_MEMORY.format("01:00")
    reads = []
    known = SimpleNamespace(find=lambda line: reads.append(line) or catalogue().find(line))
    (found,) = scan_blocks("x.log", [text.encode()], known).found
    assert found.line == 5001
    assert len(reads) < 10


def test_memory_is_bounded_whatever_the_log(monkeypatch):
    monkeypatch.setattr(log_scan, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(log_scan, "KINDS_BYTES", 1 << 16)
    letters = "ghijklmnopqrstuv"
    unlike = ("".join(letters[n >> shift & 15] for shift in range(0, 24, 4)) * 40 for n in range(4000))
    blocks = (f"{line}\n".encode() for line in unlike)
    endless = (b"no end of line " * 4096 for _ in range(40))
    catalogue()
    tracemalloc.start()
    scan_blocks("x.log", blocks, catalogue())
    scan_blocks("x.log", endless, catalogue())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.fixture
def invoke(tmp_path):
    def invoke(*arguments, code=0):
        context = SimpleNamespace(runs_dir=tmp_path / "runs")
        result = CliRunner().invoke(diagnose, list(map(str, arguments)), obj=context, catch_exceptions=False)
        assert result.exit_code == code
        return result.output

    return invoke


@pytest.fixture
def msrun(tmp_path):
    """The folder of logs of a job that msrun has started."""
    folder = tmp_path / "msrun_log"
    folder.mkdir()
    for rank in (0, 1, 2):
        (folder / f"worker_{rank}.log").write_text(TIMED_OUT.format(f"3{rank}:00") + "\n")
    (folder / "worker_3.log").write_text("step 1\n" + NO_MEMORY.format("04:12") + "\n")
    (folder / "worker_4.log").write_text("step 1\n")
    (folder / "notes.md").write_text("EI0006")
    return folder


def test_first_cause_order_and_what_to_do(invoke, msrun):
    output = invoke(msrun).splitlines()
    assert output[0] == "first    rank 3, 2026-11-23 10:04:12.000000: npu-memory"
    assert output[1].endswith(
        "worker_3.log:2: EL0004: 2026-11-23-10:04:12.000.000 Failed to allocate memory."
    )
    assert output[2].startswith("cause    The NPU has no memory left")
    assert output[3].startswith("to do    Use a smaller batch")
    assert output[4:] == [
        "order",
        "  2026-11-23 10:04:12.000000  rank 3: npu-memory (cause)",
        "  2026-11-23 10:30:00.000000  ranks 0-2: collective-timeout (consequence)",
        "nothing  rank 4",
    ]


def test_consequences_alone_are_told_as_such(invoke, msrun):
    output = invoke(msrun / "worker_1.log", msrun / "worker_0.log")
    assert "first    rank 0" in output
    assert "whose cause is in none of these logs.\n" in output


def test_of_consequences_alone_the_silent_are_suspected(invoke, msrun):
    output = invoke(msrun / "worker_1.log", msrun / "worker_4.log")
    assert "none of these logs; no error is in that of rank 4: killed (see `dmesg`), or hanging?" in output


def test_ranks_that_wait_in_different_collectives_are_told(invoke, tmp_path):
    line = "[ERROR] HCCL(1,python):2026-11-23-10:00:00.000.000 [x.cc] Task run failed, base information is x"
    for rank, collective in enumerate(["AllReduce", "AllGather", "AllReduce"]):
        (tmp_path / f"worker_{rank}.log").write_text(f"{line}, tag[{collective}_127.0.0.1_60000]")
    told = "differ   ranks 0, 2 in AllReduce; rank 1 in AllGather: they run different collectives"
    assert told in invoke(tmp_path).splitlines()
    (tmp_path / "worker_1.log").write_text("")
    assert "differ   " not in invoke(tmp_path)


def test_json(invoke, msrun):
    answer = json.loads(invoke(msrun, "--json"))
    assert (answer["explained"], answer["logs"], answer["silent"]) == (True, 5, ["rank 4"])
    assert (answer["first"]["rank"], answer["first"]["error"], answer["first"]["line"]) == (
        3,
        "npu-memory",
        2,
    )
    assert [each["rank"] for each in answer["order"]] == [3, 0, 1, 2]


def test_unknown_errors_are_shown_and_not_explained(invoke, tmp_path):
    log = tmp_path / "train.log"
    log.write_text("step 1\n[ERROR] the frobnicator is cold\nstep 2\n")
    output = invoke(log, code=UNEXPLAINED)
    assert output.splitlines() == [
        "no error that is known is in these logs",
        f"  {log}:2: [ERROR] the frobnicator is cold",
    ]
    assert json.loads(invoke(log, "--json", code=UNEXPLAINED))["explained"] is False


def test_a_folder_without_logs_is_refused(invoke, tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="holds no logs"):
        invoke(tmp_path / "x")


@pytest.fixture
def run(tmp_path):
    """A run of two attempts, each of whose journals names a rank."""
    run = Run.create(tmp_path / "runs", load_cluster("2xcpu.yaml"), "train", [])
    for number, error in ((1, NO_MEMORY), (2, RAISED)):
        attempt = run.new_attempt()
        (attempt.folder / "rank-00.log").write_text(TIMED_OUT.format("08:00"))
        (attempt.folder / "rank-01.log").write_text(error.format("09:00"))
        (attempt.folder / "agent-localhost.log").write_text("EJ0001")
        attempt.plan_folder.mkdir()
        (attempt.plan_folder / "ranks.txt").write_text("EJ0001")
        verdict = {
            "name": "rank-01",
            "rank": 1,
            "host": "localhost",
            "text": f"rank 1 failed first: {number}",
        }
        run.journal({"event": "verdict", "attempt": number, **verdict})
    return run


def test_of_a_run_the_newest_attempt_with_the_launchers_verdict(invoke, run):
    for place in ((), (run.path,)):
        output = invoke(*place).splitlines()
        assert output[0] == "verdict  rank 1 failed first: 2"
        assert output[1].startswith("first    rank 1")
        assert output[1].endswith("program-error")


def test_of_an_attempt_its_own_logs_and_verdict(invoke, run):
    output = invoke(run.path / "attempt-001")
    assert (
        "verdict  rank 1 failed first: 1\nfirst    rank 1, 2026-11-23 10:09:00.000000: npu-memory" in output
    )


def test_a_run_has_the_plogs_of_its_ranks(invoke, run):
    plog = run.attempts()[-1].folder / "plog/rank-01/debug"
    plog.mkdir(parents=True)
    (plog / "plog-1.log").write_text("EJ0001: Failed to initialize the HCCP process.")
    (run.attempts()[-1].folder / "rank-01.log").write_text("RuntimeError: init failed")
    answer = json.loads(invoke(run.path, "--json"))
    assert (answer["first"]["rank"], answer["first"]["error"], answer["logs"]) == (1, "npu-held", 3)


def test_others_than_the_verdict_names_are_not_told_to_be_first(invoke, run):
    (run.attempts()[-1].folder / "rank-01.log").write_text("step 1\n")
    assert invoke(run.path).splitlines() == [
        "verdict  rank 1 failed first: 2",
        "order",
        "  2026-11-23 10:08:00.000000  rank 0: collective-timeout (consequence)",
        "nothing  rank 1",
    ]


def test_a_verdict_explains_what_no_log_tells(invoke, run):
    for log in run.attempts()[-1].logs():
        log.write_text("step 1\n")
    assert "rank 1 failed first: 2" in invoke(run.path)


def test_a_log_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OSError, match="absent.log"):
        scan(str(tmp_path / "absent.log"), catalogue())
