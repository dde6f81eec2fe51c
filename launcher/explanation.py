"""Which of several logs tells of the first error, what it means, and who failed in which order. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from launcher.catalogue import ROLES, Role
from launcher.log_scan import Found, Scan

LATEST = "9999"  # after every time stamp

_COLLECTIVE = re.compile(r"\btag\[([A-Za-z]+)_")  # as HCCL names the one in which a rank waited too long

# Who has a symptom and no consequence failed by itself.
_BETWEEN_PROCESSES = (Role.CAUSE, Role.SYMPTOM, Role.CONSEQUENCE)


@dataclass(frozen=True)
class Process:
    """What the logs of one process say: `error` explains the others, which come in their order."""

    name: str
    rank: Optional[int]
    error: Found
    others: Tuple[Found, ...] = ()
    went_on: bool = False  # after its errors

    def to_dict(self) -> Dict[str, Any]:
        return {"name": self.name, "rank": self.rank, **_fields(self.error)}


@dataclass(frozen=True)
class Explanation:
    """processes: those with a known error, the one that explains the others first.

    silent: names of the others. unknown: (path, line, text) of the last error lines of their logs. named: the
    process that is known to have failed first, whatever the logs say.
    """

    processes: Tuple[Process, ...]
    silent: Tuple[str, ...]
    unknown: Tuple[Tuple[str, int, str], ...]
    named: Optional[str] = None

    @property
    def first(self) -> Optional[Process]:
        """The process that failed first; None where its error is not known."""
        first = self.processes[0] if self.processes else None
        return first if first is None or self.named in (None, first.name) else None

    @property
    def collectives(self) -> Dict[str, List[str]]:
        """Names of the processes by the collective in which they waited; more than one: they do not fit."""
        waits = ((process.name, _COLLECTIVE.search(process.error.text)) for process in self.processes)
        found: Dict[str, List[str]] = {}
        for name, match in waits:
            if match:
                found.setdefault(match.group(1), []).append(name)
        return found

    def to_dict(self) -> Dict[str, Any]:
        first = self.first
        return {
            "explained": first is not None,
            "first": None if first is None else first.to_dict(),
            "also": [] if first is None else [_fields(found) for found in first.others],
            "order": [process.to_dict() for process in in_order(self.processes)],
            "silent": list(self.silent),
            "collectives": self.collectives,
            "unknown": [{"path": path, "line": line, "text": text} for path, line, text in self.unknown],
        }


def explain(scans: Sequence[Scan], named: Optional[str] = None) -> Explanation:
    """The explanation of the logs of one job. named: as in it."""
    logs: Dict[str, List[Scan]] = {}
    for scan in scans:
        logs.setdefault(scan.name, []).append(scan)
    known = [_process(name, members) for name, members in logs.items() if any(s.found for s in members)]
    known.sort(key=lambda process: (process.name != named, *_between(process)))
    silent = tuple(name for name, members in logs.items() if not any(scan.found for scan in members))
    unknown = [(scan.path, line, text) for scan in scans if not scan.found for line, text in scan.last_errors]
    return Explanation(tuple(known), silent, tuple(unknown), named)


def in_order(processes: Sequence[Process]) -> List[Process]:
    """By the time of the error; those of unknown time behind, in their order."""
    return sorted(processes, key=lambda process: process.error.time or LATEST)


def _process(name: str, scans: Sequence[Scan]) -> Process:
    found = [found for scan in scans for found in scan.found]
    error = min(found, key=lambda found: (ROLES.index(found.signature.role), found.time or LATEST))
    others = tuple(other for other in found if other is not error)
    return Process(name, scans[0].rank, error, others, all(scan.went_on for scan in scans if scan.found))


def _between(process: Process) -> Tuple[bool, int, str, bool, int, str]:
    error, rank = process.error, process.rank
    place = _BETWEEN_PROCESSES.index(error.signature.role)
    return (process.went_on, place, error.time or LATEST, rank is None, rank or 0, process.name)


def _fields(found: Found) -> Dict[str, Any]:
    signature = found.signature
    return {
        "error": signature.name,
        "role": signature.role.value,
        "cause": signature.cause,
        "remedy": signature.remedy,
        "source": signature.source,
        "path": found.path,
        "line": found.line,
        "time": found.time,
        "text": found.text,
    }
