"""Questions to the trainer: `python -m fcn.<verb>` as a subprocess that answers with one JSON object.

The trainer imports NumPy and MindSpore, which the launcher must not, and could be another program.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Dict, Sequence

from launcher.errors import ExitCode, LaunchError, UserError


class TrainerError(LaunchError):
    """The trainer's program itself failed; its stderr has been seen."""

    exit_code = ExitCode.TRAINING_CODE


def call(module: str, args: Sequence[str]) -> Dict[str, Any]:
    """Run `python -m MODULE ARGS` and return the object that it prints on stdout; its stderr is ours.

    Raises:
        UserError: with its errors, where it answers `"ok": false`.
        TrainerError: where it dies, or answers with anything but an object.
    """
    command = [sys.executable, "-m", module, *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        process.wait()  # Ctrl-C went to it too: it cleans up and ends
        raise
    except SystemExit:
        process.kill()  # we alone were told to leave
        raise
    try:
        answer = json.loads(output)
        refused = not answer.get("ok")
    except (ValueError, AttributeError) as error:
        how = f"ended with code {process.returncode}" if process.returncode else "gave no answer"
        raise TrainerError(f"{' '.join(command[1:])} {how}; see its messages above") from error
    if refused:
        raise UserError("\n".join(answer.get("errors", [])))
    return answer


def show_help(module: str, args: Sequence[str]) -> int:
    """Let `python -m MODULE ARGS` print to our stdout, as for --help; returns its exit code."""
    return subprocess.call([sys.executable, "-m", module, *args])
