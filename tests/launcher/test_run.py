from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cluster import load_cluster
from launcher.errors import UserError
from launcher.files import append_line, write_atomic
from launcher.run import BEST, CHECKPOINTS, Run, find_interrupted, find_run, newest_run, versions
from launcher.run_lock import owned

CLUSTER = load_cluster("2xcpu.yaml")


def create(root, verb="train", **more):
    return Run.create(root, CLUSTER, verb, ["fcn-launch", verb], **more)


def test_a_run_freezes_what_it_runs(tmp_path):
    run = create(tmp_path / "runs", config={"base_lr": 0.015}, data={"samples": 7})
    assert run.path.parent == tmp_path / "runs"
    assert run.path.name[8] == "-" and run.path.name[16:] == "2xcpu"
    record = Run.open(run.path).record()
    assert record["verb"] == "train"
    assert record["command"] == ["fcn-launch", "train"]
    assert record["config"] == {"base_lr": 0.015}
    assert record["data"] == {"samples": 7}
    assert record["cluster"]["device_kind"] == "cpu"
    assert record["versions"]["python"] == sys.version.split()[0]
    assert run.path.joinpath("checkpoints").is_dir()


def test_runs_of_the_same_second_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20261123-142501")
    names = [create(tmp_path).path.name for _ in range(3)]
    assert names == [f"20261123-142501-2xcpu{end}" for end in ("", "-2", "-3")]


def test_a_folder_of_ones_own_is_used_but_never_over_a_run(tmp_path):
    folder = tmp_path / "deep" / "mine"
    run = create(tmp_path, folder=folder)
    before = (run.path / "run.yaml").read_bytes()
    assert run.path == folder
    with pytest.raises(UserError, match="already holds a run"):
        create(tmp_path, folder=folder, config={"other": 1})
    assert (run.path / "run.yaml").read_bytes() == before


@pytest.mark.parametrize("given", [False, True])
def test_a_directory_that_can_not_be_written_is_refused(tmp_path, given):
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "runs"
    with pytest.raises(UserError, match="run directory can not be written: Not a directory") as error:
        create(place, folder=place if given else None)
    assert str(tmp_path / "file") in str(error.value)


def test_an_attempt_that_can_not_be_made_is_refused(tmp_path):
    run = create(tmp_path)
    run.path.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="attempt-001: the run directory can not be written"):
        run.new_attempt()


def test_a_full_disk_is_refused(tmp_path):
    """A quota by RLIMIT_FSIZE: the write of run.yaml fails as on a full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "from launcher.cluster import load_cluster; from launcher.run import Run\n"
        "from launcher.errors import UserError\n"
        "try: Run.create(Path(sys.argv[1]), load_cluster('2xcpu.yaml'), 'train', [])\n"
        "except UserError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "can not be written: File too large" in said.stdout, said
    assert not list(tmp_path.glob("*/run.yaml"))


def test_attempts_count_up_and_are_never_reused(tmp_path):
    run = create(tmp_path)
    first = run.new_attempt()
    (first.folder / "rank-00.log").write_text("kept")
    (first.folder / "agent-h1.log").write_text("")
    second = Run.open(run.path).new_attempt()
    assert [attempt.number for attempt in run.attempts()] == [1, 2]
    assert second.folder.name == "attempt-002"
    assert [path.name for path in run.attempts()[0].logs()] == ["rank-00.log"]


def test_the_newest_run_is_the_one_made_last(tmp_path):
    assert newest_run(tmp_path) is None
    older, newer = (create(tmp_path, folder=tmp_path / name) for name in ("b", "a"))
    os.utime(older.path / "run.yaml", ns=(1, 1))
    (tmp_path / "no-run").mkdir()
    assert newest_run(tmp_path).path == newer.path


def test_a_run_is_found_by_path_by_name_and_by_default(tmp_path, monkeypatch):
    run = create(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert find_run(tmp_path, str(run.path)).path == run.path
    assert find_run(tmp_path, run.path.name).path == run.path
    assert find_run(tmp_path).path == run.path
    with pytest.raises(UserError, match="nowhere: no run directory"):
        find_run(tmp_path, "nowhere")
    with pytest.raises(UserError, match="holds no run yet"):
        find_run(tmp_path / "empty")
    evaluation = Run.create(tmp_path, CLUSTER, "eval", [])
    assert find_run(tmp_path).path == evaluation.path
    assert find_run(tmp_path, verb="train").path == run.path
    with pytest.raises(UserError, match="is a run of `eval`; expected one of `train`"):
        find_run(tmp_path, evaluation.path.name, verb="train")
    with pytest.raises(UserError, match="not a run directory"):
        Run.open(tmp_path)


@pytest.mark.parametrize("text", ["verb: [", "", "- a\n", "cluster: {}\n", "\0"])
def test_a_damaged_run_is_named_or_passed_over(tmp_path, text):
    whole, damaged = create(tmp_path), create(tmp_path)
    (damaged.path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=f"{damaged.path.name}/run.yaml"):
        damaged.record()
    with pytest.raises(UserError, match=f"{damaged.path.name}/run.yaml"):
        find_run(tmp_path, damaged.path.name, verb="train")
    assert find_run(tmp_path).path == find_run(tmp_path, verb="train").path == whole.path


def test_the_newest_run_with_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="holds no run of `train` yet"):
        find_run(tmp_path, verb="train", needs=CHECKPOINTS)
    first, second, third = (create(tmp_path) for _ in range(3))
    for age, run in enumerate((third, second, first)):
        os.utime(run.path / "run.yaml", ns=(10 - age, 10 - age))
    without = rf"{third.path.name} \(the newest run\): has no checkpoint yet; .*give a run that has one"
    with pytest.raises(UserError, match=without):
        find_run(tmp_path, verb="train", needs=CHECKPOINTS)
    checkpoint(second, "FCN8s-1_9", 9)
    assert find_run(tmp_path, verb="train", needs=CHECKPOINTS).path == second.path
    assert newest_run(tmp_path, needs=CHECKPOINTS).path == second.path
    assert find_run(tmp_path, verb="train").path == third.path
    with pytest.raises(UserError, match=f"{first.path.name}: has no checkpoint yet"):
        find_run(tmp_path, first.path.name, needs=CHECKPOINTS)
    with pytest.raises(UserError, match=f"{third.path.name} .*has no best checkpoint yet .eval_epochs keeps"):
        find_run(tmp_path, needs=BEST)
    checkpoint(first, "FCN8s-1_3", 3, folder=BEST)
    assert find_run(tmp_path, needs=BEST).path == first.path


def test_the_journal_survives_a_line_that_a_crash_cut_short(tmp_path):
    run = create(tmp_path)
    assert list(run.events()) == []
    run.journal({"event": "a"})
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "cut')
    run.journal({"event": "b"})
    assert [event["event"] for event in run.events()] == ["a", "b"]


def checkpoint(run, name, step, size=3, folder=CHECKPOINTS):
    (run.path / folder).mkdir(exist_ok=True)
    (run.path / folder / f"{name}.ckpt").write_bytes(b"abc")
    manifest = {"step": step, "epoch": 1, "size": size}
    (run.path / folder / f"{name}.json").write_text(json.dumps(manifest))


def test_checkpoints_are_listed_newest_first_and_only_whole_ones(tmp_path):
    run = create(tmp_path)
    checkpoint(run, "FCN8s-1_9", 9)
    checkpoint(run, "FCN8s-2_1", 10)
    checkpoint(run, "FCN8s-2_2", 11, size=4)  # cut short
    (run.path / "checkpoints" / "FCN8s-2_3.ckpt").write_bytes(b"no manifest")
    (run.path / "checkpoints" / "FCN8s-2_4.json").write_text('{"step": 12, "size": 3}')  # no checkpoint
    checkpoint(run, "FCN8s-2_5", 13)
    (run.path / "checkpoints" / "FCN8s-2_5.json").write_text("{")
    assert [(c.path.name, c.step, c.epoch) for c in run.checkpoints()] == [
        ("FCN8s-2_1.ckpt", 10, 1),
        ("FCN8s-1_9.ckpt", 9, 1),
    ]


def test_whether_a_run_is_running_and_whether_it_is_finished(tmp_path):
    run = create(tmp_path)
    assert (run.is_running(), run.is_finished()) == (False, False)
    with owned(run.path):
        assert run.is_running() is True
        run.journal({"event": "attempt"})
        run.journal({"event": "end", "exit_code": 0})
    assert (run.is_running(), run.is_finished()) == (False, True)
    run.journal({"event": "resume"})
    assert run.is_finished() is False  # it was taken up again


def test_the_newest_interrupted_training_is_found(tmp_path):
    with pytest.raises(UserError, match="holds no training yet"):
        find_interrupted(tmp_path)
    finished, interrupted, running, other = (create(tmp_path, verb) for verb in ("train",) * 3 + ("eval",))
    for age, run in enumerate((other, running, finished, interrupted)):
        os.utime(run.path / "run.yaml", (1000 - age, 1000 - age))
    finished.journal({"event": "end", "exit_code": 0})
    with owned(running.path):
        assert find_interrupted(tmp_path).path == interrupted.path
        interrupted.journal({"event": "end", "exit_code": 0})
        assert find_interrupted(tmp_path).path == running.path  # to be refused with its launcher's name
    running.journal({"event": "end", "exit_code": 0})
    assert find_interrupted(tmp_path).path == running.path
    with pytest.raises(UserError, match="is a run of `eval`; expected one of `train`"):
        find_interrupted(tmp_path, other.path.name)


def test_run_yaml_is_changed_as_a_whole(tmp_path):
    run = create(tmp_path)
    before = run.record()
    run.change(config={"train_epochs": 7})
    assert run.record() == {**before, "config": {"train_epochs": 7}}


def test_versions_are_those_of_the_packages():
    from importlib import metadata

    assert versions()["numpy"] == metadata.version("numpy")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "status.json"
    write_atomic(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(target, "half \ud800")
    assert target.read_text() == "old"
    write_atomic(target, b"new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_lines_are_appended_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    append_line(path, "one")
    append_line(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
