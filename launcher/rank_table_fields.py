"""Readers of single fields of a rank table's JSON: what is wrong goes to `problems`, and reading goes on."""

from __future__ import annotations

import ipaddress
import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

from launcher.chips import Chip
from launcher.yaml_lines import Problem, Where, name_of

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Values = Mapping[str, Any]

PORTS = "a port from 1024 to 65535"
COMPARE = "compare with what wrote the table"


def version_problem(version: Optional[str], chip: Optional[Chip]) -> Optional[Problem]:
    """Whether the kind of device reads this version."""
    if chip is None or version is None or version in chip.table_versions:
        return None
    known = " or ".join(chip.table_versions)
    remedy = f"make one for {chip.product}: a chip reads no other version than its own"
    return Problem(("version",), f"{version!r} is not that of {chip.product}", known, remedy)


class Reader:
    """Collects the problems of one table."""

    def __init__(self) -> None:
        self.problems: List[Problem] = []

    def note(self, where: Where, what: str, expected: str, remedy: str) -> None:
        self.problems.append(Problem(where, what, expected, remedy))

    def text(self, holder: Values, name: str, where: Where, required: bool = True) -> Optional[str]:
        """A field that has to be a string; None when it is missing or is not one."""
        if name not in holder:
            if required:
                self.note((*where, name), "is missing", "a string", f"add `{name}`")
            return None
        value = holder[name]
        if isinstance(value, str):
            return value
        expected = json.dumps(str(value)) if type(value) in (int, float) else "a string"
        self.note((*where, name), _kind(value), expected, "put it in quotes: HCCL reads strings only")
        return None

    def digits(
        self, holder: Values, name: str, where: Where, expected: str, required: bool = True
    ) -> Optional[int]:
        """A number written as a string."""
        text = self.text(holder, name, where, required)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            self.note((*where, name), repr(text), f"{expected} in digits", "write digits alone")
            return None
        return int(text)

    def integer(
        self, holder: Values, name: str, where: Where, low: int, high: int, required: bool = True
    ) -> Optional[int]:
        """A number that is a number, as all are in version 2.0."""
        expected = f"a whole number from {low} to {high}"
        if name not in holder:
            if required:
                self.note((*where, name), "is missing", expected, f"add `{name}`")
            return None
        value = holder[name]
        if type(value) is not int:
            remedy = "write it without quotes" if isinstance(value, str) else COMPARE
            self.note((*where, name), f"{value!r} {_kind(value)}", expected, remedy)
            return None
        if not low <= value <= high:
            self.note((*where, name), str(value), expected, "correct it")
            return None
        return value

    def objects(self, holder: Values, name: str, where: Where) -> Iterator[Tuple[Where, Values]]:
        """(where, item) of a field that has to be a list of objects, and not empty."""
        value, place = holder.get(name), (*where, name)
        if not isinstance(value, list) or not value:
            what = _kind(value) if name in holder else "is missing"
            self.note(place, what, "a list of objects, not empty", COMPARE)
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield (*place, index), item
            else:
                self.note((*place, index), _kind(item), "an object", COMPARE)

    def once(self, seen: Dict[Any, Where], value: Any, where: Where) -> None:
        if value in seen:
            what = f"{value} is also at {name_of(seen[value])}"
            self.note(where, what, "a value that occurs once", "correct one of them")
        else:
            seen[value] = where

    def addresses(self, text: Optional[str], where: Where) -> List[Address]:
        """One address, or several with commas between; the empty text stands for none."""
        found: List[Address] = []
        for part in text.split(",") if text else ():
            try:
                found.append(ipaddress.ip_address(part.strip()))
            except ValueError:
                remedy = "write the address itself; `hccn_tool -i N -ip -g` shows that of a device"
                self.note(where, f"{part!r} is not an IP address", "an IPv4 or IPv6 address", remedy)
        return found

    def is_completed(self, values: Values, required: bool = True) -> None:
        status = self.text(values, "status", (), required)
        if status is not None and status != "completed":
            remedy = "wait until what writes the table has finished it"
            self.note(("status",), f"{status!r}: the table is not finished", "'completed'", remedy)

    def dense(self, ranks: List[int], name: str = "rank_id") -> None:
        """Every rank from 0 on, each once."""
        seen: Dict[int, int] = {}
        for rank in ranks:
            seen[rank] = seen.get(rank, 0) + 1
        for rank in sorted(rank for rank, times in seen.items() if times > 1):
            self.note((name,), f"{rank} occurs {seen[rank]} times", "each rank once", "number the ranks anew")
        absent = [rank for rank in range(len(ranks)) if rank not in seen]
        if absent:
            listed = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
            expected = f"every rank from 0 to {len(ranks) - 1}"
            self.note((name,), f"{listed} missing", expected, "number the ranks anew")


def _kind(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "is empty"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return f"is {kinds.get(type(value), 'an object')}"
