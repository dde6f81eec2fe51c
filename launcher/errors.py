"""The errors that end `fcn-launch`, and the exit codes they become."""

from __future__ import annotations

from enum import IntEnum
from typing import Optional


class ExitCode(IntEnum):
    """Exit codes of `fcn-launch`: a script or a scheduler decides by them whether to try again."""

    DONE = 0
    USAGE = 2  # a usage error or a bad file; nothing was started
    PREFLIGHT = 3  # the machines are not ready
    TRAINING_CODE = 4  # the worker program failed by itself
    INFRASTRUCTURE = 5  # a process was killed, a host or an agent was lost
    HANG = 6
    NO_PROGRESS = 7  # several attempts without progress: do not requeue
    PREEMPTED = 75  # saved and left: requeue
    STOPPED = 130  # stopped by the user


class LaunchError(Exception):
    """An error whose text is meant for the person at the keyboard."""

    exit_code: ExitCode


class UserError(LaunchError):
    """Bad usage or a bad file, found before anything was started."""

    exit_code = ExitCode.USAGE


class Unreadable(Exception):
    """A tool of a host does not answer, or its output cannot be trusted: what is wrong, and what to do."""


class PreflightError(LaunchError):
    """The machines are not as the cluster file says, or not ready.

    host, device: whom this is held against, where it is one.
    """

    exit_code = ExitCode.PREFLIGHT

    def __init__(self, text: str, host: Optional[str] = None, device: Optional[int] = None) -> None:
        super().__init__(text)
        self.host, self.device = host, device
