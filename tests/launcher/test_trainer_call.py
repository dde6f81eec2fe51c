from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.errors import ExitCode, UserError
from launcher.trainer import TrainerError, call


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Write a module that `call` can run, and return its name."""

    def write(code: str) -> str:
        (tmp_path / "verb_for_test.py").write_text(code)
        return "verb_for_test"

    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return write


def test_an_answer_comes_back_and_stderr_passes_through(verb, capfd):
    lines = (
        "import json, sys",
        "print('working', file=sys.stderr)",
        "print(json.dumps({'ok': True, 'args': sys.argv[1:]}))",
    )
    name = verb("\n".join(lines))
    assert call(name, ["--a", "b c", "é"]) == {"ok": True, "args": ["--a", "b c", "é"]}
    assert capfd.readouterr().err == "working\n"


@pytest.mark.parametrize("code", [0, 2])
def test_a_refusal_is_a_usage_error_with_its_reasons(verb, code):
    name = verb(f'print(\'{{"ok": false, "errors": ["one", "two"]}}\'); raise SystemExit({code})')
    with pytest.raises(UserError, match="^one\ntwo$") as error:
        call(name, [])
    assert error.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise KeyError('x')", "ended with code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with code -9"),
        ("print('hello')", "gave no answer"),
        ("print([1])", "gave no answer"),
        ("", "gave no answer"),
    ],
)
def test_a_broken_trainer_is_not_the_users_fault(verb, code, how):
    with pytest.raises(TrainerError, match=f"-m verb_for_test --x {how}") as error:
        call(verb(code), ["--x"])
    assert error.value.exit_code == ExitCode.TRAINING_CODE


def test_ctrl_c_waits_for_the_trainer_to_clean_up(verb, tmp_path):
    name = verb(
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1], 'began').touch()\n"
        "try:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    pathlib.Path(sys.argv[1], 'cleaned').touch()\n"
    )
    code = f"from launcher.trainer import call; call({name!r}, [{str(tmp_path)!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "began").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert (tmp_path / "cleaned").exists()
