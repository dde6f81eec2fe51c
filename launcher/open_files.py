"""How many files a process may have open (RLIMIT_NOFILE). Standard library only."""

from __future__ import annotations

import errno
import resource

SPARE = 64  # what a process has open besides

INHERITED = resource.getrlimit(resource.RLIMIT_NOFILE)  # soft and hard, before we change it


def allow(count: int) -> None:
    """Raises the soft limit so far that so many files fit. Raises OSError where the hard one is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(
            errno.EMFILE,
            f"{needed} open files are needed and the limit is {hard}:"
            " raise it (`ulimit -Hn`, `nofile` in /etc/security/limits.conf)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def restore() -> None:
    """For a child process: the limit that we began with. Programs that use select() break above 1024."""
    resource.setrlimit(resource.RLIMIT_NOFILE, INHERITED)
