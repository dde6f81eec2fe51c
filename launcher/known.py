"""What the catalogue knows of the failure that was named the first: it explains, and decides nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Iterable, Iterator, Optional

from launcher.catalogue import ROLES, Role, Signature, catalogue
from launcher.diagnosis import Failure, Kind
from launcher.evidence import Sign
from launcher.log_scan import BLOCK_BYTES, scan_blocks

PLOGS = "plog"  # folder of an attempt, in which each process of CANN has one of its name
PLOGS_READ = 4  # of one process, the newest

# Signals by which a process ends itself; no log tells of others.
OWN_SIGNALS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
# Of these diagnosis.py says more: it knows the launcher's own part in them.
SAID_BETTER = (Sign.PORT_TAKEN, Sign.DISK_FULL)


def known_error(failure: Failure, attempt: Path) -> Optional[Signature]:
    """What its error lines are, or where they tell no cause the end of its plog; None where nothing is known.

    attempt: the folder of the attempt. What says no more than the exception itself does is not known.
    """
    if failure.kind not in (Kind.RAISED, Kind.EXIT_CODE) and failure.signal not in OWN_SIGNALS:
        return None
    if failure.sign in SAID_BETTER:
        return None
    found = _of_lines("\n".join(failure.error or failure.tail).encode())
    if found is None or found.role is not Role.CAUSE:
        found = _best([found, *_of_plogs(attempt / PLOGS / failure.name)])
    if found is None or found.role is Role.SYMPTOM or not (found.codes or found.says):
        return None
    return found


def _of_lines(lines: bytes) -> Optional[Signature]:
    return _best(found.signature for found in scan_blocks("log", [lines], catalogue()).found)


def _of_plogs(folder: Path) -> Iterator[Optional[Signature]]:
    try:
        paths = sorted(folder.rglob("*.log"), key=lambda path: path.stat().st_mtime_ns)
        for path in paths[-PLOGS_READ:]:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - BLOCK_BYTES))
                yield _of_lines(file.read())
    except OSError:
        return  # a verdict does without them


def _best(found: Iterable[Optional[Signature]]) -> Optional[Signature]:
    return min(filter(None, found), key=lambda signature: ROLES.index(signature.role), default=None)
