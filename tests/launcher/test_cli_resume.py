"""`fcn-launch resume`: which run it takes, and what it refuses before it asks the trainer."""

import os
import signal
import subprocess
import sys
import time

import pytest
from launching import REPOSITORY, environment, wait_dead

from launcher.agent import processes
from launcher.cli.resume import _note
from launcher.cluster import load_cluster
from launcher.errors import UserError
from launcher.run import Run
from launcher.run_lock import owned


@pytest.fixture
def make_run(tmp_path):
    def make(*events, verb="train"):
        run = Run.create(
            tmp_path / "runs", load_cluster("2xcpu.yaml"), verb, ["fcn-launch", verb], {"seed": 1}
        )
        for event in events:
            run.journal(event)
        return run

    return make


def resume(folder, *words):
    """Exit code and what was said."""
    command = [sys.executable, "-m", "launcher", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == ""
    return done.returncode, done.stderr


ENDLESS_CHECK = """
import os, time
with open("pid.writing", "w") as file:
    file.write(str(os.getpid()))
os.rename("pid.writing", "pid")
time.sleep(1e6)
"""
FINISHED = ({"event": "attempt"}, {"event": "end", "exit_code": 0})


def test_a_finished_run_is_said_to_be_finished(make_run, tmp_path):
    run = make_run(*FINISHED)
    code, said = resume(tmp_path, "resume")
    assert (code, said) == (0, f"{run.path}: is finished; --set train_epochs=N trains on\n")
    assert not run.attempts()


def test_a_running_one_is_refused_with_its_process_and_host(make_run, tmp_path):
    run = make_run()
    with owned(run.path):
        code, said = resume(tmp_path, "resume", run.path.name)
    assert code == 2
    assert f"process {os.getpid()} of host {os.uname().nodename}" in said
    assert not run.attempts()


def test_preempted_before_anything_is_started(make_run, tmp_path):
    """The trainer's check never ends here, and is not left behind."""
    run = make_run()
    (tmp_path / "fcn").mkdir()
    (tmp_path / "fcn/__init__.py").touch()
    (tmp_path / "fcn/check.py").write_text(ENDLESS_CHECK)
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "resume"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        check = processes.look(int((tmp_path / "pid").read_text()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
        wait_dead(check)
    finally:
        process.kill()
        process.wait()
    assert not run.attempts()
    assert run.is_running() is False


def test_without_a_training_there_is_nothing_to_resume(make_run, tmp_path):
    evaluation = make_run(verb="eval")
    assert resume(tmp_path, "resume") == (
        2,
        "error: runs: holds no training yet; give the path of one, or start one with `train`\n",
    )
    code, said = resume(tmp_path, "resume", evaluation.path.name)
    assert code == 2 and "is a run of `eval`; expected one of `train`" in said


def test_what_can_not_be_journaled_is_not_changed(make_run):
    run = make_run()
    (run.path / "events.jsonl").symlink_to("/dev/full")
    before = (run.path / "run.yaml").read_bytes()
    answer = {"config": {"seed": 1, "save_steps": 7}, "step": 0}
    with pytest.raises(UserError, match="No space left on device"):
        _note(run, load_cluster("2xcpu.yaml"), answer)
    assert (run.path / "run.yaml").read_bytes() == before


def test_another_kind_of_device_is_refused(make_run, tmp_path):
    make_run()
    code, said = resume(tmp_path, "--cluster", "8xascend910.yaml", "resume")
    assert code == 2 and "device_kind ascend910: " in said and "was trained on cpu" in said
