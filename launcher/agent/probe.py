"""What /proc says of running processes, to tell one that waits from one that is stopped, blocked or busy."""

from __future__ import annotations

import os

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def observe(pids: dict[str, int]) -> dict[str, dict]:
    """What is seen of each main process, by name; one that is gone is left out.

    pids: of the main processes, which lead their process groups. Of each: `state`, the letter of its main
    thread (R S D T t Z); `cpu_s`, of all its threads since it began; `group_cpu_s`, of the others in its
    group; `stopped`, ids of those of them that are stopped; `blocked`, ids of all threads of the group in
    state D; `moved_bytes`, what the group has read and written; `wchan`, where in the kernel its main thread
    is, None where that is not told.
    """
    members = _groups()
    found = {}
    for name, pid in pids.items():
        group = members.get(pid, [])
        main = next((fields for member, fields in group if member == pid), None)
        if main is None:
            continue
        others = [(member, fields) for member, fields in group if member != pid]
        found[name] = {
            "state": main[0],
            "cpu_s": _cpu_s(main),
            "group_cpu_s": sum(_cpu_s(fields) for _, fields in others),
            "stopped": [member for member, fields in others if fields[0] == "T"],
            "blocked": [thread for member, _ in group for thread in _blocked(member)],
            "moved_bytes": sum(_moved_bytes(member) for member, _ in group),
            "wchan": _wchan(pid),
        }
    return found


def has_signal(pid: int, mask: str, number: int) -> bool:
    """Whether a signal is in a mask of /proc/PID/status: SigCgt, caught, or ShdPnd, not delivered yet."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(mask + ":"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _groups() -> dict[int, list[tuple[int, list[str]]]]:
    """Every process by process group: its id, and the fields of /proc/PID/stat from the state on."""
    groups: dict[int, list[tuple[int, list[str]]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            fields = _fields(f"/proc/{name}/stat")
            if fields:
                groups.setdefault(int(fields[2]), []).append((int(name), fields))
    return groups


def _fields(path: str) -> list[str]:
    """Of a `stat`, from the state on; empty where there is none."""
    # the program's name, in brackets, may itself hold blanks and brackets
    return _read(path).rpartition(")")[2].split()


def _cpu_s(fields: list[str]) -> float:
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _blocked(pid: int) -> list[int]:
    """Its threads that the kernel holds and does not let go; it is rarely the main one that loads data."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return []
    states = {int(thread): _fields(f"/proc/{pid}/task/{thread}/stat")[:1] for thread in threads}
    return [thread for thread, state in states.items() if state == ["D"]]


def _moved_bytes(pid: int) -> int:
    """By system calls, whether a disk had to do it or not; 0 where that is not told."""
    lines = _read(f"/proc/{pid}/io").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar:", "wchar:")))


def _wchan(pid: int) -> str | None:
    place = _read(f"/proc/{pid}/wchan").strip()
    return place if place not in ("", "0") else None


def _read(path: str) -> str:
    """A file of /proc; empty where there is none, or it is not for this user."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""
